"""What is written and printed of an evaluation."""

import importlib.metadata
import platform
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from cyclegan_jax.evaluation.direction import Direction
from cyclegan_jax.evaluation.measures import Scores
from cyclegan_jax.evaluation.metric import Metric, Score
from cyclegan_jax.evaluation.scores import BASELINES, named

_PACKAGES = ('cyclegan_jax', 'jax', 'jaxlib', 'flax', 'numpy', 'scipy', 'pillow')


def protocol(metrics: Sequence[Metric], sha256: str | None) -> dict:
    """What the scores depend on beside the images.

    Args:
      sha256: of the Inception weights; None if they were not used.
    """
    users = defaultdict(list)
    for metric in metrics:
        if metric.features and metric.features.resize:
            users[metric.features].append(metric.name)
    return {
        'inception_sha256': sha256,
        'resize': {', '.join(names): f.resize for f, names in users.items()},
        'definitions': {m.name: m.definition for m in metrics if m.definition},
        'features_sha256': {', '.join(names): f.sha256 for f, names in users.items() if f.sha256},
        'versions': _versions(),
    }


def record(direction: Direction, scores: Scores) -> dict:
    """All numbers of one direction."""
    return {
        'scores': scores,
        'baselines': direction.baselines,
        'images': direction.count,
        'real_images': direction.real_count,
        'warnings': direction.warnings(scores),
    }


def known(baselines: Mapping[str, Scores], scores: Scores, score: Score) -> Iterator[tuple]:
    """What a score is read against: (name of the baseline, value)."""
    for name in BASELINES:
        if name == 'shuffled' and score.shuffled in scores:
            yield name, scores[score.shuffled]
        elif score.name in baselines.get(name, {}):
            yield name, baselines[name][score.name]


def table(title: str, recorded: Mapping) -> str:
    """Text of a `record`: each score, where it is better, and what to read it against."""
    scores = recorded['scores']
    shown = [score for score in map(named, scores) if score]
    beside = {s.name: dict(known(recorded['baselines'], scores, s)) for s in shown}
    columns = [name for name in BASELINES if any(name in cells for cells in beside.values())]
    rows = [['', 'score', 'better', *(name.replace('_', ' ') for name in columns)]]
    for score in shown:
        unit = f' x{score.factor}' if score.factor != 1 else ''
        value = _text(score, scores[score.name])
        spread = f' ± {_text(score, scores[score.spread])}' if score.spread in scores else ''
        against = beside[score.name]
        cells = [_text(score, against[name]) if name in against else '' for name in columns]
        rows.append([score.name + unit, value + spread, score.better, *cells])
    counts = f'{recorded["images"]} images'
    if recorded['real_images']:
        counts += f' against {recorded["real_images"]} real ones'
    notes = [f'  note: {warning}' for warning in recorded['warnings']]
    return '\n'.join([f'{title}: {counts}', _aligned(rows), *notes])


def label_table(found: Mapping) -> str:
    """Text of what `folders.evaluate_label_maps` returns."""
    lines = found['scores'] | ({'gap closed': found['gap_closed']} if found['gap_closed'] else {})
    columns = list(found['scores']['predictions'])
    rows = [['', *columns]]
    for name, values in lines.items():
        rows.append([name, *(f'{values[c]:.4g}' if c in values else '' for c in columns)])
    classes = len(found['class_iou']['predictions'])
    return f'{found["label_maps"]} label maps of {classes} classes\n{_aligned(rows)}'


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines of text, their columns below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ('  '.join(f'{c:<{w}}' for c, w in zip(row, widths, strict=True)) for row in rows)
    return '\n'.join(f'  {line.rstrip()}' for line in lines)


def _text(score: Score, value: float) -> str:
    return f'{score.factor * value:.4g}'


def _versions() -> dict[str, str]:
    found = {'python': platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = 'not installed'  # run from a checkout
    return found
