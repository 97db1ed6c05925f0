"""Trains the same small CycleGAN here and in PyTorch, and scores both alike as they go.

    python benchmarks/recipes/equivalence.py --data=datasets/horse2zebra \
        --workdir=runs/equivalence --score='python score.py' --json=FILE --figure=FILE

64x64, width 32, 3 blocks, discriminators of width 32 with 2 strided blocks, batch 1, pool 50,
identity 5, constant rate: each side with its own data loop and its own random numbers. SCORE is a
command that takes two folders of pictures, real and translated, and prints a line of JSON with
numbers. Killed at any time, the same command goes on; what FILE has is not trained for again. Needs
the torch extra and matplotlib.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
import measure
import outcome
from torch_training import CROP

SIDES = ('cyclegan_jax', 'PyTorch')


def main() -> int:
    parser = measure.parser(__doc__)
    add = parser.add_argument
    outcome.add_arguments(parser)
    add('--updates', type=measure.whole_numbers, default='2000,4000,8000,16000', metavar='N,...')
    args = parser.parse_args()
    real = outcome.shrink(args.data, args.workdir / 'real', CROP)
    results = outcome.Results('equivalence', args.json)
    for seed in range(args.seeds):
        for updates in sorted(args.updates):
            for side in SIDES:
                point = {'side': side, 'seed': seed, 'updates': updates}
                if not results.has(point):
                    results.add(point | _point(side, seed, updates, real, args))
                    print(json.dumps(results.rows[-1]), flush=True)
                if args.figure:
                    draw(results.rows, args.figure)
    return 0


def _point(side: str, seed: int, updates: int, real: Path, args) -> dict:
    """Scores of one run after so many updates, by direction."""
    workdir = args.workdir / f'{side}_{seed}'
    train = _train_here if side == SIDES[0] else _train_torch
    return outcome.kept(
        workdir / f'step_{updates}.json',
        lambda: outcome.score(args.score, real, train(workdir, seed, updates, real, args.data)),
    )


def _train_here(workdir: Path, seed: int, updates: int, real: Path, data: Path) -> dict[str, Path]:
    more = {'seed': seed, 'schedule.decay_start_epoch': 200, 'max_steps': updates}
    outcome.train(workdir, outcome.fields(data, CROP) | more)
    return outcome.translate(workdir, real, workdir / f'step_{updates}')


def _train_torch(workdir: Path, seed: int, updates: int, real: Path, data: Path) -> dict[str, Path]:
    script = Path(__file__).with_name('torch_training.py')
    arguments = {'data': data, 'test': real, 'workdir': workdir, 'seed': seed, 'updates': updates}
    subprocess.run([sys.executable, str(script), *outcome.flags(arguments)], check=True)
    return outcome.directions_in(workdir / f'step_{updates}')


def draw(results: list[dict], path: Path) -> None:
    """A panel for each direction and score: each run a thin line, each side's mean a thick one."""
    from matplotlib.figure import Figure

    names = list(results[0]['a2b'])
    figure = Figure(figsize=(4 * len(names), 6), layout='constrained')
    axes = figure.subplots(2, len(names), squeeze=False)
    for row, direction in zip(axes, outcome.DIRECTIONS, strict=True):
        for axis, name in zip(row, names, strict=True):
            for side, colour in zip(SIDES, ('tab:blue', 'tab:orange'), strict=True):
                runs: dict[int, dict[int, float]] = {}
                for result in sorted(results, key=lambda row: row['updates']):
                    if result['side'] == side:
                        value = result[direction][name]
                        runs.setdefault(result['seed'], {})[result['updates']] = value
                for values in runs.values():
                    axis.plot(*zip(*values.items(), strict=True), color=colour, linewidth=0.7)
                means = {
                    updates: statistics.mean(v[updates] for v in runs.values() if updates in v)
                    for updates in sorted({u for values in runs.values() for u in values})
                }
                mean_line = zip(*means.items(), strict=True)
                axis.plot(*mean_line, color=colour, linewidth=2.5, marker='o', label=side)
            axis.set(title=f'{name} {direction}', xlabel='updates', ylim=(0, None))
            axis.set_xticks(sorted({result['updates'] for result in results}))
            axis.legend()
    figure.savefig(path, dpi=120)


if __name__ == '__main__':
    sys.exit(main())
