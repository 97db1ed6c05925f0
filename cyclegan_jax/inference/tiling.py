"""Big images in overlapping tiles, blended so that no seam shows."""

from collections.abc import Callable

import numpy as np

OVERLAP = 0.25  # of a tile's side, at least: where two tiles are blended


def run_in_tiles(
    image: np.ndarray, tile: int, run: Callable[[list[np.ndarray]], list[np.ndarray]]
) -> np.ndarray:
    """Runs a network over an image of any size with the memory that one row of tiles takes.

    Weights fall linearly to the edge of a tile, and the weights of all tiles at a pixel sum to 1.

    Args:
      image: (h, w, c), float32.
      tile: side of a tile; an image that is smaller is one tile.
      run: takes and returns tiles of one size, (tile, tile, c), float32.

    Returns:
      (h, w, c'), float32.
    """
    (tops, row_weights), (lefts, column_weights) = (_axis(n, tile) for n in image.shape[:2])
    height, width = row_weights.shape[1], column_weights.shape[1]
    rows = []
    shared = None  # what the tiles above have added to the first rows of this band
    for i, top in enumerate(tops):
        band = image[top : top + height]
        outputs = run([band[:, left : left + width] for left in lefts])
        blended = np.zeros((height, image.shape[1], outputs[0].shape[2]), np.float32)
        if shared is not None:
            blended[: len(shared)] += shared
        for left, pixels, weights in zip(lefts, outputs, column_weights, strict=True):
            blended[:, left : left + width] += np.outer(row_weights[i], weights)[..., None] * pixels
        done = tops[i + 1] - top if i + 1 < len(tops) else height
        rows.append(blended[:done])
        shared = blended[done:]
    return np.concatenate(rows)


def _axis(length: int, tile: int) -> tuple[list[int], np.ndarray]:
    """Where tiles start along one axis, spread evenly, and their weights, (number, tile)."""
    tile = min(tile, length)
    step = tile - round(tile * OVERLAP)
    number = 1 + -(-(length - tile) // step)
    starts = [round(i * (length - tile) / max(1, number - 1)) for i in range(number)]
    ramp = np.arange(tile) + 0.5
    weight = np.minimum(np.minimum(ramp, ramp[::-1]), tile * OVERLAP)
    total = np.zeros(length)
    for start in starts:
        total[start : start + tile] += weight
    return starts, np.stack([weight / total[start : start + tile] for start in starts])
