"""What all benchmarks share: options, which machine this is, and how results are kept."""

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path


class _Help(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """The docstring as it is, and the default of each option."""


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with --json; `description` is the script's docstring."""
    result = argparse.ArgumentParser(description=description, formatter_class=_Help)
    result.add_argument(
        '--json', type=_writable, metavar='FILE', help='also write the results to this file'
    )
    return result


def _writable(text: str) -> Path:
    """Told before anything is measured, not after."""
    path = Path(text)
    if not os.access(path if path.exists() else path.parent, os.W_OK) or path.is_dir():
        raise argparse.ArgumentTypeError(f'{text!r} cannot be written; name a file in a folder')
    return path


def add_workload(parser: argparse.ArgumentParser) -> None:
    """The images and networks of a workload, and how often it is timed."""
    add = parser.add_argument
    add('--size', type=whole_numbers, default='256', metavar='N,...', help='side of the images')
    add('--batch', type=whole_numbers, default='1', metavar='N,...', help='images of each domain')
    add('--width', type=whole_number, default='64', metavar='N', help='channels of the first layer')
    add('--blocks', type=whole_number, default='9', metavar='N', help='residual blocks')
    add(
        '--steps',
        type=whole_number,
        metavar='N',
        help='in a turn; None is 1 on a CPU, 20 on accelerators',
    )
    add('--repeats', type=whole_number, default='7', metavar='N', help='turns')


def whole_number(text: str) -> int:
    if not re.fullmatch(r'[1-9]\d*', text):
        raise argparse.ArgumentTypeError(f'{text!r} is not a positive whole number')
    return int(text)


def whole_numbers(text: str) -> list[int]:
    return [whole_number(part) for part in text.split(',')]


def dtypes(text: str) -> list[str]:
    names = text.split(',')
    if not set(names) <= {'float32', 'bfloat16'}:
        raise argparse.ArgumentTypeError(f'{text!r} is not float32, bfloat16 or float32,bfloat16')
    return names


def machine() -> dict[str, str | int]:
    """Name, processor, cores: what a result is a result of."""
    names = {}
    if Path('/proc/cpuinfo').exists():
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        names = dict(line.split('\t: ', 1) for line in lines if '\t: ' in line)
    return {
        'processor': names.get('model name', platform.processor() or platform.machine()),
        'cores': len(os.sched_getaffinity(0))
        if hasattr(os, 'sched_getaffinity')
        else os.cpu_count(),
        'system': platform.system(),
        'python': platform.python_version(),
    }


def command() -> list[str]:
    """This process's command, as it is typed in the project's folder."""
    script, *arguments = sys.argv
    script = Path(script).resolve().relative_to(Path(__file__).parents[1].resolve())
    return ['python', script.as_posix(), *arguments]


def save(path: Path | None, benchmark: str, command: list[str], results: list[dict]) -> None:
    """Writes what was measured, by which code, when and where, if a path is given."""
    if path:
        document = {
            'benchmark': benchmark,
            'command': ' '.join(command),
            'commit': _commit(),
            'date': datetime.date.today().isoformat(),
            'machine': machine(),
            'results': results,
        }
        path.write_text(json.dumps(document, indent=1) + '\n')


def _commit() -> str | None:
    """That of the project, with '-dirty' if files have been changed since; None without git."""
    command = ['git', '-C', str(Path(__file__).parent), 'describe', '--always', '--dirty']
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
