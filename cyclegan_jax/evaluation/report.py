"""What is written and printed of an evaluation."""

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from cyclegan_jax.evaluation.direction import Direction
from cyclegan_jax.evaluation.measures import DISTRIBUTION, Scores, is_detail
from cyclegan_jax.evaluation.resize import PROTOCOLS
from cyclegan_jax.storage import write_json

# Where a score is better; those that are in neither are diagnoses.
LOWER = (*DISTRIBUTION, 'l1')
HIGHER = ('psnr', 'ssim', 'pixel_accuracy', 'class_accuracy', 'class_iou', 'weighted_iou')

_THOUSANDS = tuple(name for name in DISTRIBUTION if 'kid' in name)  # printed so, by convention
_BASELINES = ('floor', 'ceiling', 'untranslated', 'mean_image', 'shuffled', 'label_ceiling')
_SHUFFLED = '_shuffled'
_PACKAGES = ('cyclegan_jax', 'jax', 'jaxlib', 'flax', 'numpy', 'scipy', 'pillow')


def protocol(metrics: Sequence[str], sha256: str | None) -> dict:
    """What the scores of `metrics` depend on beside the images.

    Args:
      sha256: of the Inception weights; None if they were not used.
    """
    kinds = dict.fromkeys(DISTRIBUTION[name] for name in metrics if name in DISTRIBUTION)
    return {
        'inception_sha256': sha256,
        'resize': {f'fid_{k}, kid_{k}': PROTOCOLS[k] for k in kinds if k in PROTOCOLS},
        'versions': _versions(),
    }


def record(direction: Direction, scores: Scores) -> dict:
    """All numbers of one direction."""
    return {
        'scores': scores,
        'baselines': direction.baselines,
        'images': direction.count,
        'real_images': len(direction.real),
        'warnings': direction.warnings(scores),
    }


def write(path: Path, contents: dict) -> None:
    """Writes JSON, and makes the folder for it.

    Raises:
      OSError: the path cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, contents)


def table(title: str, recorded: Mapping) -> str:
    """Text of a `record`: each score, where it is better, and what to read it against."""
    scores = recorded['scores']
    shuffled = {k.removesuffix(_SHUFFLED): v for k, v in scores.items() if k.endswith(_SHUFFLED)}
    known = recorded['baselines'] | {'shuffled': shuffled}
    columns = {name: known[name] for name in _BASELINES if known.get(name)}
    rows = [['', 'score', 'better', *(name.replace('_', ' ') for name in columns)]]
    for name, value in scores.items():
        if is_detail(name):
            continue
        unit = ' x1000' if name in _THOUSANDS else ''
        spread = f' ± {_text(name, scores[f"{name}_std"])}' if f'{name}_std' in scores else ''
        better = 'lower' if name in LOWER else 'higher' if name in HIGHER else ''
        cells = [_text(name, column[name]) if name in column else '' for column in columns.values()]
        rows.append([name + unit, _text(name, value) + spread, better, *cells])
    counts = f'{recorded["images"]} images against {recorded["real_images"]} real ones'
    notes = [f'  note: {warning}' for warning in recorded['warnings']]
    return '\n'.join([f'{title}: {counts}', aligned(rows), *notes])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines of text, their columns below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ('  '.join(f'{c:<{w}}' for c, w in zip(row, widths, strict=True)) for row in rows)
    return '\n'.join(f'  {line.rstrip()}' for line in lines)


def _text(name: str, value: float) -> str:
    return f'{1000 * value if name in _THOUSANDS else value:.4g}'


def _versions() -> dict[str, str]:
    found = {'python': platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = 'not installed'  # run from a checkout
    return found
