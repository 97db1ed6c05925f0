"""Which changes of the recipe pay: trains a table of recipes, and scores all test pictures.

    python benchmarks/recipes/ablation.py --data=datasets/horse2zebra --workdir=runs/ablation \
        --score='python score.py' --json=FILE --figure=FILE

SCORE is a command that takes two folders of pictures, real and translated, and prints a line of
JSON with numbers; less is better. Each run keeps the average of its generators too, which changes
nothing else, so that trained and averaged weights of one run are compared for nothing. All recipes
with the first seed come first. Killed at any time, the same command goes on, and it may be given
more seeds; what FILE has is not trained for again. Needs matplotlib for the figure. --pictures
shows the first eight test pictures of both domains, and below each the translations by the averaged
weights of each recipe's first seed.
"""

import statistics
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
import measure
import numpy as np
import outcome
from PIL import Image

# What each part changes; `outcome.SETTING` is the rest.
PARTS = {
    'augment': {'augment': 'brightness,saturation,contrast,shift'},
    'penalty': {'loss.penalty_weight': 1.0},
    'relax': {'loss.cycle_weight_end': 3.0, 'loss.identity_weight_end': 1.0},
    'slow': {'optimizer.discriminator_rate': 1e-4},
    'scales': {'discriminator.kind': 'two_scale'},
    'blur': {
        'generator.downsample': 'blur',
        'generator.upsample': 'blur',
        'discriminator.downsample': 'blur',
    },
    'skip': {'generator.global_skip': True},
}
# What each recipe has of them: none, one alone, one beside the skip, the one that pays by itself.
RECIPES = {
    'plain': (),
    **{part: (part,) for part in PARTS},
    **{f'skip and {part}': ('skip', part) for part in PARTS if part != 'skip'},
}
WEIGHTS = ('trained', 'average')


def main() -> int:
    parser = measure.parser(__doc__)
    add = parser.add_argument
    outcome.add_arguments(parser)
    add('--recipes', default=','.join(RECIPES), metavar='NAME,...', help='in this order')
    add('--updates', type=measure.whole_number, default='8000', metavar='N', help='half decay')
    add('--size', type=measure.whole_number, default='64', metavar='N', help='side of the images')
    add('--pictures', type=Path, metavar='FILE', help='also show translations, where runs are')
    args = parser.parse_args()
    names = args.recipes.split(',')
    if unknown := set(names) - set(RECIPES):
        parser.error(f'no recipe {", ".join(unknown)}; there are {", ".join(RECIPES)}')
    setting = {'updates': args.updates, 'size': args.size}
    results = outcome.Results('ablation', args.json)
    if other := [row for row in results.rows if not setting.items() <= row.items()]:
        parser.error(f'{args.json} has results of another setting, {other[0]}; name another FILE')
    real = outcome.shrink(args.data, args.workdir / 'real', args.size)
    for name, translated in _ends(real, args).items():
        point = {'recipe': name, **setting}
        if not results.has(point):
            results.add(point | outcome.score(args.score, real, translated))
    for seed in range(args.seeds):
        for name in names:
            point = {'recipe': name, 'seed': seed, **setting}
            if not results.has(point):
                scores = _run(name, seed, real, args)
                results.add(*(point | {'weights': kind} | found for kind, found in scores.items()))
                print(table(results.rows), flush=True)
            if args.figure:
                draw(results.rows, args.figure)
    if args.pictures:
        show(names, real, args.workdir, args.pictures)
    return 0


def _ends(real: Path, args) -> dict[str, dict[str, Path]]:
    """What needs no training, by direction: untranslated inputs, and real training pictures."""
    training = outcome.shrink(args.data, args.workdir / 'training', args.size, split='train')
    return {
        'untranslated': {direction: real / direction[0] for direction in outcome.DIRECTIONS},
        'training pictures': {
            direction: training / direction[-1] for direction in outcome.DIRECTIONS
        },
    }


def _run(name: str, seed: int, real: Path, args) -> dict[str, dict]:
    """{'trained', 'average'}: scores of one run, by direction."""
    workdir = _folder(args.workdir, name, seed)

    def trained_and_scored():
        epochs = args.updates / outcome.epoch_length(args.data)
        fields = {
            **outcome.fields(args.data, args.size),
            'seed': seed,
            'average': 0.999,
            'schedule.num_epochs': max(2, round(epochs)),
            'schedule.decay_start_epoch': max(2, round(epochs)) // 2,
            'max_steps': args.updates,
        }
        for part in RECIPES[name]:
            fields |= PARTS[part]
        outcome.train(workdir, fields)
        return {
            weights: outcome.score(
                args.score, real, outcome.translate(workdir, real, workdir / weights, weights)
            )
            for weights in WEIGHTS
        }

    return outcome.kept(workdir / f'scores_{args.updates}.json', trained_and_scored)


def _folder(workdir: Path, name: str, seed: int) -> Path:
    return workdir / f'{name.replace(" ", "_")}_{seed}'


def _columns(results: list[dict]) -> list[tuple[str, str]]:
    return [(direction, name) for direction in outcome.DIRECTIONS for name in results[0][direction]]


def _rows(results: list[dict]) -> dict[tuple[str, str], list[dict]]:
    """The runs by recipe, in their order, and weights; '' where nothing is trained."""
    order = ['untranslated', 'training pictures', *RECIPES]
    rows: dict[tuple[str, str], list[dict]] = {}
    for result in sorted(results, key=lambda row: order.index(row['recipe'])):
        rows.setdefault((result['recipe'], result.get('weights', '')), []).append(result)
    return rows


def table(results: list[dict]) -> str:
    """Means over the seeds, with the least and the greatest where there are several."""
    columns = _columns(results)
    lines = [
        ['recipe', 'weights', 'seeds', *(f'{name} {direction}' for direction, name in columns)]
    ]
    for (recipe, weights), runs in _rows(results).items():
        cells = []
        for direction, name in columns:
            values = [run[direction][name] for run in runs]
            spread = f' ({min(values):.1f} to {max(values):.1f})' if len(values) > 1 else ''
            cells.append(f'{statistics.mean(values):.1f}{spread}')
        lines.append([recipe, weights, str(len(runs)) if weights else '', *cells])
    return '\n'.join(
        f'| {" | ".join(line)} |' for line in [lines[0], ['---'] * len(lines[0]), *lines[1:]]
    )


def draw(results: list[dict], path: Path) -> None:
    """A panel for each direction and score, a row for each recipe, a dot for each seed."""
    from matplotlib.figure import Figure

    columns, rows = _columns(results), _rows(results)
    recipes = list(dict.fromkeys(recipe for recipe, weights in rows if weights))
    figure = Figure(figsize=(4 * len(columns), 1.5 + 0.4 * len(recipes)), layout='constrained')
    axes = figure.subplots(1, len(columns), squeeze=False, sharey=True)[0]
    for axis, (direction, name) in zip(axes, columns, strict=True):
        for weights, colour in zip(WEIGHTS, ('tab:gray', 'tab:blue'), strict=True):
            dots = [
                (run[direction][name], row)
                for row, recipe in enumerate(recipes)
                for run in rows.get((recipe, weights), [])
            ]
            axis.scatter(*zip(*dots, strict=True), color=colour, label=weights)
        for end, style in (('untranslated', '--'), ('training pictures', ':')):
            [known] = rows[end, '']
            axis.axvline(known[direction][name], color='black', linestyle=style, label=end)
        axis.set(title=f'{name} {direction}', xlim=(0, None))
        axis.set_yticks(range(len(recipes)), recipes)
    axes[0].invert_yaxis()
    axes[0].legend()
    figure.savefig(path, dpi=120)


def show(names: list[str], real: Path, workdir: Path, path: Path, count: int = 8) -> None:
    """A row of test pictures of each domain, and below it one of each recipe's translations."""
    rows = []
    for direction in outcome.DIRECTIONS:
        inputs = sorted((real / direction[0]).iterdir())[:count]
        rows.append(inputs)
        for name in names:
            translated = _folder(workdir, name, 0) / 'average' / direction
            rows.append([translated / picture.name for picture in inputs])
    pictures = [[np.asarray(Image.open(file)) for file in row] for row in rows]
    grid = np.concatenate([np.concatenate(row, axis=1) for row in pictures])
    Image.fromarray(grid).resize((2 * grid.shape[1], 2 * grid.shape[0]), Image.NEAREST).save(path)


if __name__ == '__main__':
    sys.exit(main())
