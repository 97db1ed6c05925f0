"""What all benchmarks share: which machine this is, and how results are kept."""

import argparse
import json
import os
import platform
from pathlib import Path


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with --json; `description` is the script's docstring."""
    result = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument('--json', type=Path, help='also write the results to this file')
    return result


def machine() -> dict[str, str | int]:
    """Name, processor, cores: what a result is a result of."""
    names = {}
    if Path('/proc/cpuinfo').exists():
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        names = dict(line.split('\t: ', 1) for line in lines if '\t: ' in line)
    return {
        'processor': names.get('model name\t'.strip(), platform.processor() or platform.machine()),
        'cores': len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
        'system': platform.system(),
        'python': platform.python_version(),
    }


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
