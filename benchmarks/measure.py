"""What all benchmarks share: options, which machine this is, and how results are kept."""

import argparse
import json
import os
import platform
import re
import sys
from pathlib import Path


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with --json; `description` is the script's docstring."""
    result = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument('--json', type=Path, help='also write the results to this file')
    return result


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
        help='in a turn; default: 1 on a CPU, 20 on accelerators',
    )
    add('--repeats', type=whole_number, default='7', metavar='N', help='turns; default: 7')


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
    return ['python', f'benchmarks/{Path(script).name}', *arguments]


def save(path: Path | None, benchmark: str, command: list[str], results: list[dict]) -> None:
    """Writes {'benchmark', 'command', 'machine', 'results': [...]}, if a path is given."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {
            'benchmark': benchmark,
            'command': ' '.join(command),
            'machine': machine(),
            'results': results,
        }
        path.write_text(json.dumps(document, indent=1) + '\n')
