"""Trains the same small CycleGAN here and in PyTorch, and scores both alike as they go.

    python benchmarks/recipes/equivalence.py --data=datasets/horse2zebra \
        --workdir=runs/equivalence --score='python score.py' --json=FILE --figure=FILE

64x64, width 32, 3 blocks, discriminators of width 32 with 2 strided blocks, batch 1, pool 50,
identity 5, constant rate: each side with its own data loop and its own random numbers. SCORE is a
command that takes two folders of pictures, real and translated, and prints a line of JSON with
numbers. Killed at any time, the same command goes on. Needs the torch extra and matplotlib.
"""

import json
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / 'benchmarks'))
import measure  # noqa: E402
from torch_training import BLOCKS, CROP, LAYERS, LOAD, WIDTH  # noqa: E402

SIDES = ('cyclegan_jax', 'PyTorch')


def main() -> int:
    parser = measure.parser(__doc__)
    add = parser.add_argument
    add('--data', type=Path, required=True, metavar='FOLDER', help='with trainA, trainB, ...')
    add('--workdir', type=Path, required=True, metavar='FOLDER', help='of all runs')
    add('--score', type=shlex.split, required=True, metavar='COMMAND')
    add('--updates', type=measure.whole_numbers, default='2000,4000,8000,16000', metavar='N,...')
    add('--seeds', type=measure.whole_number, default='3', metavar='N', help='of each side')
    add('--figure', type=Path, metavar='FILE', help='also draw the scores')
    args = parser.parse_args()
    real = _shrink(args.data, args.workdir / 'real')
    results = []
    for updates in args.updates:
        for seed in range(args.seeds):
            for side in SIDES:
                result = _point(side, seed, updates, real, args)
                results.append({'side': side, 'seed': seed, 'updates': updates, **result})
                print(json.dumps(results[-1]), flush=True)
                measure.save(args.json, 'equivalence', measure.command(), results)
                if args.figure:
                    draw(results, args.figure)
    return 0


def _shrink(data: Path, output: Path) -> Path:
    """The test pictures at the networks' size, in folders a and b."""
    for domain in 'ab':
        folder = output / domain
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted((data / f'test{domain.upper()}').iterdir()):
            picture = Image.open(path).convert('RGB').resize((CROP, CROP), Image.BICUBIC)
            picture.save(folder / f'{path.stem}.png')
    return output


def _point(side: str, seed: int, updates: int, real: Path, args) -> dict:
    """Scores of one run after so many updates, by direction."""
    workdir = args.workdir / f'{side}_{seed}'
    kept = workdir / f'step_{updates}.json'
    if not kept.exists():
        train = _train_here if side == SIDES[0] else _train_torch
        translated = train(workdir, seed, updates, real, args.data)
        scores = {
            direction: _score(args.score, real / direction[-1], translated / direction)
            for direction in ('a2b', 'b2a')
        }
        kept.write_text(json.dumps(scores))
    return json.loads(kept.read_text())


def _train_here(workdir: Path, seed: int, updates: int, real: Path, data: Path) -> Path:
    fields = {
        'seed': seed,
        'data.path': data.absolute(),
        'data.load_size': LOAD,
        'data.crop_size': CROP,
        'generator.width': WIDTH,
        'generator.num_blocks': BLOCKS,
        'discriminator.width': WIDTH,
        'discriminator.num_layers': LAYERS,
        'schedule.decay_start_epoch': 200,
        'max_steps': updates,
        'sample_every': 2000,
        'checkpoint_every': 1000,
    }
    flags = [f'--config.{name}={value}' for name, value in fields.items()]
    config = ROOT / 'configs' / 'horse2zebra.py'
    _run(ROOT / 'main.py', f'--config={config}', f'--workdir={workdir}', *flags)
    output = workdir / f'step_{updates}'
    for direction in ('a2b', 'b2a'):
        _run(
            *('-m', 'cyclegan_jax.translate', f'--model={workdir}', f'--direction={direction}'),
            *(f'--input={real / direction[0]}', f'--output={output / direction}'),
        )
    return output


def _train_torch(workdir: Path, seed: int, updates: int, real: Path, data: Path) -> Path:
    script = Path(__file__).with_name('torch_training.py')
    arguments = {'data': data, 'test': real, 'workdir': workdir, 'seed': seed, 'updates': updates}
    _run(script, *(f'--{name}={value}' for name, value in arguments.items()))
    return workdir / f'step_{updates}'


def _run(*command) -> None:
    subprocess.run([sys.executable, *map(str, command)], check=True, cwd=ROOT)


def _score(command: list[str], real: Path, translated: Path) -> dict[str, float]:
    line = subprocess.check_output([*command, str(real), str(translated)], text=True)
    return {name: value for name, value in json.loads(line).items() if isinstance(value, float)}


def draw(results: list[dict], path: Path) -> None:
    """A panel for each direction and score: each run a thin line, each side's mean a thick one."""
    from matplotlib.figure import Figure

    names = list(results[0]['a2b'])
    figure = Figure(figsize=(4 * len(names), 6), layout='constrained')
    axes = figure.subplots(2, len(names), squeeze=False)
    for row, direction in zip(axes, ('a2b', 'b2a'), strict=True):
        for axis, name in zip(row, names, strict=True):
            for side, colour in zip(SIDES, ('tab:blue', 'tab:orange'), strict=True):
                runs: dict[int, dict[int, float]] = {}
                for result in results:
                    if result['side'] == side:
                        value = result[direction][name]
                        runs.setdefault(result['seed'], {})[result['updates']] = value
                for values in runs.values():
                    axis.plot(*zip(*values.items(), strict=True), color=colour, linewidth=0.7)
                means = {
                    updates: statistics.mean(v[updates] for v in runs.values() if updates in v)
                    for updates in dict.fromkeys(u for values in runs.values() for u in values)
                }
                mean_line = zip(*means.items(), strict=True)
                axis.plot(*mean_line, color=colour, linewidth=2.5, marker='o', label=side)
            axis.set(title=f'{name} {direction}', xlabel='updates', ylim=(0, None))
            axis.legend()
    figure.savefig(path, dpi=120)


if __name__ == '__main__':
    sys.exit(main())
