"""Signs of failure that the losses do not show: negated colours, and outputs that are all alike."""

from collections.abc import Mapping

import numpy as np

MIN_CORRELATION = 0.0
MIN_DIVERSITY = 0.5


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson correlation of brightness, over the pixels of an image and its translation.

    Args:
      x, y: uint8 (h, w, c), of one size; the channels may differ.

    Returns:
      In [-1, 1]; 0 where one of them has the same brightness everywhere.
    """
    x, y = (image.mean(axis=-1) for image in (x, y))
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x**2).sum() * (y**2).sum())
    return float((x * y).sum() / scale) if scale else 0.0


def warnings(scores: Mapping[str, float]) -> list[str]:
    """What `correlation` and `diversity`, if they are among the scores, give reason to fear."""
    found = []
    if scores.get('correlation', 1) < MIN_CORRELATION:
        found.append(
            f'outputs correlate negatively with their inputs ({scores["correlation"]:.2f}): the '
            'colours may be inverted, which training anew usually cures'
        )
    if scores.get('diversity', 1) < MIN_DIVERSITY:
        found.append(
            f'outputs differ among themselves only {scores["diversity"]:.2f} times as much as real '
            f'images (below {MIN_DIVERSITY}): they may have collapsed to a few'
        )
    return found
