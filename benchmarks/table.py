"""Writes the tables of docs/speed.md from benchmarks/results/: of speeds, and of compilers' plans.

    python benchmarks/table.py [--check]

Speeds are the results of train_step.py, translate.py, torch_peer.py and compare.py, plans those of
gpu_compile.py and tpu_compile.py; below each table stand its commands. A table without its markers
in docs/speed.md is printed.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sweep import OURS

_ROOT = Path(__file__).parents[1]
START, END = '<!-- speed table: python benchmarks/table.py -->', '<!-- end of speed table -->'
PLAN_START = '<!-- plan table: python benchmarks/table.py -->'
PLAN_END = '<!-- end of plan table -->'
_ROWS_FROM = ('train_step', 'translate', 'torch_peer', 'compare')
_HEADER = (
    'work',
    'size',
    'batch',
    'by',
    'time',
    'images/s',
    'its time / that of cyclegan_jax',
    'memory',
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--check', action='store_true', help='write nothing; exit status 1 if docs/speed.md differs'
    )
    args = parser.parse_args()
    files = sorted((_ROOT / 'benchmarks/results').glob('*.json'))
    documents = {path.name: json.loads(path.read_text()) for path in files}
    page = _ROOT / 'docs/speed.md'
    text = updated = page.read_text()
    for table, *markers in (
        (render(documents), START, END),
        (render_plans(documents), PLAN_START, PLAN_END),
    ):
        inserted = insert(updated, table, *markers)
        if inserted is None:
            print(table)
        updated = inserted or updated
    if not args.check:
        page.write_text(updated)
    elif updated != text:
        print(
            'error: a table in docs/speed.md is not that of benchmarks/results; run '
            'python benchmarks/table.py',
            file=sys.stderr,
        )
        return 1
    return 0


def insert(page: str, table: str, start: str = START, end: str = END) -> str | None:
    """The text with the table between its markers; None if it has no markers."""
    place = re.compile(f'{re.escape(start)}.*{re.escape(end)}', re.DOTALL)
    text, count = place.subn(lambda _: f'{start}\n{table}\n{end}', page)
    return text if count else None


def render(documents: Mapping[str, Mapping[str, Any]]) -> str:
    """A table for each machine and the list of commands, in Markdown; documents by file name."""
    documents = {n: d for n, d in documents.items() if d['benchmark'] in _ROWS_FROM}
    results = [
        (result, document['machine'])
        for document in documents.values()
        for result in document['results']
    ]
    results.sort(
        key=lambda pair: (
            *(pair[0][field] for field in ('work', 'size', 'batch')),
            OURS not in pair[0]['sides'],
        )
    )
    tables: dict[str, list[str]] = {}  # by machine, its rows
    for result, machine in results:
        for name, side in result['sides'].items():
            rows = tables.setdefault(_device(side, machine), [])
            rows.append(_line(_row(result, name, side)))
    lines = []
    for device, rows in tables.items():
        lines += [f'**{device}**', '', _line(_HEADER), _line('---' for _ in _HEADER), *rows, '']
    lines += [f'- `{name}`: `{document["command"]}`' for name, document in documents.items()]
    return '\n'.join(lines)


def render_plans(documents: Mapping[str, Mapping[str, Any]]) -> str:
    """What compilers plan for a whole step, in Markdown, and the list of commands."""
    documents = {
        name: document
        for name, document in documents.items()
        if any('kernels' in result or 'cycles' in result for result in document['results'])
    }
    header = ('compiled for', 'size', 'pairs a chip', 'type', 'kernels', 'GB: convolutions')
    header += ('all else', 'memory alone', 'Mcycles', 'of the peak', 'temporaries')
    results = [result for document in documents.values() for result in document['results']]
    # Results that tell of memory and collectives alone have no row.
    rows = [_plan_row(result) for result in results if 'kernels' in result or 'cycles' in result]
    lines = [_line(header), _line('---' for _ in header), *map(_line, rows), '']
    lines += [f'- `{name}`: `{document["command"]}`' for name, document in documents.items()]
    return '\n'.join(lines)


def _plan_row(result: Mapping[str, Any]) -> list[str]:
    def cell(name: str, unit: float, digits: int, suffix: str = '') -> str:
        value = result.get(name)
        return '' if value is None else f'{value / unit:.{digits}f}{suffix}'

    chip = result['device'] if 'card' in result else f'TPU {result["topology"]}'
    names = [chip, *(name for name in ('remat',) if result.get(name))]
    usual = {'kind': 'resnet', 'upsample': 'transpose'}
    names += [result[name] for name in usual if result.get(name, usual[name]) != usual[name]]
    names += [result['what']] if result.get('what', 'train_step') != 'train_step' else []
    return [
        ', '.join(names),
        str(result['size']),
        str(result['batch'] // result.get('devices', 1)),
        result['dtype'],
        cell('kernels', 1, 0),
        cell('convolution_bytes', 1e9, 1),
        cell('other_bytes', 1e9, 1),
        cell('memory_alone_seconds', 1e-3, 1, ' ms'),
        cell('cycles', 1e6, 1),
        cell('share_of_peak', 1e-2, 1, ' %'),
        f'{result["memory_bytes"]["temporaries"] / 1e9:.1f} GB',
    ]


def _line(cells: Iterable[str]) -> str:
    return f'| {" | ".join(cells)} |'


def _device(side: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    if side.get('platform', 'cpu') == 'cpu':
        return f'{machine["processor"]}, {machine["cores"]} cores'
    return side['device']


def _row(result: Mapping[str, Any], name: str, side: Mapping[str, Any]) -> list[str]:
    ratio = ''
    if name in result.get('ratios', {}):
        low, high = result['ratios'][name]['quartiles']
        ratio = f'**{result["ratios"][name]["median"]:.2f}** ({low:.2f} to {high:.2f})'
    return [
        _work(result),
        str(result['size']),
        str(result['batch']),
        f'{name} {result["dtype"]}' if name == OURS else name,
        *_speed(side),
        ratio,
        '' if 'error' in side else f'{side["peak_memory_bytes"] / 2**30:.1f} GiB',
    ]


def _work(result: Mapping[str, Any]) -> str:
    """The work's name, and all that is not as usual."""
    parts = [{'train_step': 'training', 'translate': 'translation'}[result['work']]]
    usual = {'width': 64, 'blocks': 9, 'devices': 1, 'accumulate': 1}
    parts += [
        f'{name} {result[name]}' for name in usual if result.get(name, usual[name]) != usual[name]
    ]
    if result.get('remat'):
        parts.append('remat')
    return ', '.join(parts)


def _speed(side: Mapping[str, Any]) -> tuple[str, str]:
    """Of a step, and of images; or what went wrong."""
    if 'error' in side:
        exhausted = re.search('RESOURCE_EXHAUSTED|out of memory', side['error'], re.IGNORECASE)
        return 'out of memory' if exhausted else 'failed', ''
    seconds = side['step_seconds']
    time = f'{seconds:.3g} s' if seconds >= 0.1 else f'{seconds * 1e3:.3g} ms'
    return time, f'{side["images_per_second"]:.3g}'


if __name__ == '__main__':
    sys.exit(main())
