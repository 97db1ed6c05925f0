"""Measures a workload in several settings: what is printed of it, and what is kept."""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import measure
import numpy as np
import workers

OURS = 'cyclegan_jax'


def settings(args: argparse.Namespace, *names: str, **fixed: Any) -> Iterable[dict[str, Any]]:
    """Every value of one list with every value of the others, and what is the same for all."""
    for values in itertools.product(*(getattr(args, name) for name in names)):
        yield {**dict(zip(names, values, strict=True)), **fixed}


def sweep(
    benchmark: str,
    work: str,
    swept: Iterable[Mapping[str, Any]],
    sides: Callable[[Mapping[str, Any]], Mapping[str, workers.Side]],
    args: argparse.Namespace,
) -> int:
    """Measures, prints and saves setting after setting.

    Args:
      benchmark: the command's name.
      work: 'train_step' or 'translate'.
      swept: the settings: size, batch and so on.
      sides: from a setting to the workloads that are timed in turn.
      args: with `steps`, `repeats` and `json`.

    Returns:
      The exit status: 1 if something failed.
    """
    results = []
    for setting in swept:
        try:
            reports = workers.take_turns(sides(setting), args.steps, args.repeats)
        except ValueError as error:
            sys.exit(f'error: {error}')
        results.append(_result(work, setting, reports))
        _show(results[-1])
        measure.save(args.json, benchmark, measure.command(), results)
    return int(any('error' in side for result in results for side in result['sides'].values()))


def _result(
    work: str, setting: Mapping[str, Any], reports: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """What is kept of one setting.

    {'work', every setting, 'sides': {name: numbers, or {'error'}}}. Where ours and others were
    measured, also 'ratios', of their time to ours turn by turn: {name: median and quartiles};
    'best_peer', the name of the fastest; and 'largest_difference' from our output, where there is
    one: {name: number}.
    """
    outputs = {name: report.pop('output', None) for name, report in reports.items()}
    sides = {name: _numbers(report) for name, report in reports.items()}
    result = {'work': work, **setting, 'sides': sides}
    peers = {name: side for name, side in sides.items() if 'error' not in side}
    ours = peers.pop(OURS, None)
    if ours and peers:
        result['ratios'] = {
            name: _spread(np.divide(side['turns'], ours['turns'])) for name, side in peers.items()
        }
        result['best_peer'] = min(peers, key=lambda name: peers[name]['step_seconds'])
        if outputs[OURS] is not None:
            result['largest_difference'] = {
                name: float(np.abs(outputs[name] - outputs[OURS]).max()) for name in peers
            }
    return result


def _numbers(report: Mapping[str, Any]) -> Mapping[str, Any]:
    if 'error' in report:
        return report
    spread = _spread(report['turns'])
    rate = report['flops'] / spread['median']
    return {
        'step_seconds': spread['median'],
        'step_seconds_quartiles': spread['quartiles'],
        'images_per_second': report['images'] / spread['median'],
        'flops_per_second': rate,
        'share_of_matrix_rate': rate / report['matrix_flops_per_second'],
        **report,
    }


def _spread(values: Sequence[float]) -> dict[str, Any]:
    low, median, high = map(float, np.percentile(values, (25, 50, 75)))
    return {'median': median, 'quartiles': [low, high]}


def _show(result: Mapping[str, Any]) -> None:
    names = [name for name in result if name in ('size', 'batch', 'dtype', 'devices')]
    print(', '.join([result['work'], *(f'{name} {result[name]}' for name in names)]))
    for name, side in result['sides'].items():
        print(f'  {name}: {_line(side)}')
    for name, ratio in result.get('ratios', {}).items():
        best = ', the fastest peer,' if name == result['best_peer'] else ''
        low, high = ratio['quartiles']
        line = f'{name}{best} takes {ratio["median"]:.2f} times as long ({low:.2f} to {high:.2f})'
        if 'largest_difference' in result:
            line += f'; its output differs by {result["largest_difference"][name]:.1e} at most'
        print(f'  {line}', flush=True)


def _line(side: Mapping[str, Any]) -> str:
    if 'error' in side:
        return side['error']
    low, high = side['step_seconds_quartiles']
    compiled = side.get('compile_seconds')
    return '; '.join(
        [
            f'{side["step_seconds"]:.3g} s a step ({low:.3g} to {high:.3g})',
            f'{side["images_per_second"]:.3g} images/s',
            f'{side["flops_per_second"] / 1e12:.3g} TFLOP/s, '
            f'{side["share_of_matrix_rate"]:.0%} of the rate of matrix products',
            f'{side["peak_memory_bytes"] / 2**30:.2f} GiB',
            f'compiled in {compiled:.1f} s'
            if compiled
            else f'first step {side["first_step_seconds"]:.1f} s',
        ]
    )
