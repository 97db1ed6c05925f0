"""Big images in overlapping tiles, blended so that no seam shows."""

import math
from collections.abc import Callable, Iterator

import numpy as np

OVERLAP = 0.25  # of a tile's side, at least: where two tiles are blended
_MARGIN = OVERLAP / 4  # of a tile's side: seen through its mirrored sides, it counts for nothing

Window = tuple[slice, slice]  # rows, columns: what stands in [] of an array
Read = Callable[[Window], np.ndarray]


def run_in_tiles(
    read: Read,
    shape: tuple[int, int],
    tile: int,
    run: Callable[[list[np.ndarray]], np.ndarray],
    *,
    multiple: int = 1,
    batch_size: int = 1,
) -> Iterator[np.ndarray]:
    """Runs a network over an image of any size with the memory that one row of tiles takes.

    Weights fall linearly to nothing near the edge of a tile, and the weights of all tiles at a
    pixel sum to 1.

    Args:
      read: gives the pixels of a window, (h, w, c), float32.
      shape: (height, width) of the image.
      tile: side of a tile; an image that is smaller is one tile.
      run: takes and returns tiles of one size, `batch_size` at most, (tile, tile, c), float32.
      multiple: tiles start at multiples of that, so that a network halves all of them alike. A
        side of `shape`, and `tile`, must be multiples too.

    Yields:
      Bands of the result, (h', width, c'), float32, from top to bottom.
    """
    (tops, row_weights), (lefts, column_weights) = (_axis(n, tile, multiple) for n in shape)
    height, width = row_weights.shape[1], column_weights.shape[1]
    shared = None  # what the tiles above have added to the first rows of this band
    for i, top in enumerate(tops):
        blended = None
        for first in range(0, len(lefts), batch_size):
            some = range(first, min(first + batch_size, len(lefts)))
            rows = slice(top, top + height)
            outputs = run([read((rows, slice(lefts[j], lefts[j] + width))) for j in some])
            if blended is None:
                blended = np.zeros((height, shape[1], outputs[0].shape[2]), np.float32)
            for j, pixels in zip(some, outputs, strict=True):
                weights = np.outer(row_weights[i], column_weights[j]).astype(np.float32)
                blended[:, lefts[j] : lefts[j] + width] += weights[..., None] * pixels
        if shared is not None:
            blended[: len(shared)] += shared
        done = tops[i + 1] - top if i + 1 < len(tops) else height
        yield blended[:done]
        shared = blended[done:]


def beyond_the_sides(read: Read, shape: tuple[int, int]) -> Read:
    """Reads windows that begin in an image of this shape; what lies beyond it is mirrored."""

    def mirrored(window: Window) -> np.ndarray:
        sides = list(zip(window, shape, strict=True))
        pixels = read(tuple(slice(s.start, min(s.stop, n)) for s, n in sides))
        return np.pad(pixels, [*((0, max(0, s.stop - n)) for s, n in sides), (0, 0)], 'reflect')

    return mirrored


def small_copy(read: Read, shape: tuple[int, int], tile: int) -> np.ndarray:
    """An image with no more pixels than a tile has: means of squares, (h, w, c), float32.

    It is read once, in windows that are no larger than a tile.
    """
    factor = math.ceil(math.sqrt(shape[0] * shape[1]) / tile)
    step = max(factor, tile // factor * factor)
    bands = []
    for top in range(0, shape[0], step):
        windows = []
        for left in range(0, shape[1], step):
            pixels = read(
                (slice(top, min(top + step, shape[0])), slice(left, min(left + step, shape[1])))
            )
            for axis in (0, 1):  # the last square may be cut
                starts = np.arange(0, pixels.shape[axis], factor)
                counts = np.diff(np.append(starts, pixels.shape[axis]))
                pixels = np.add.reduceat(pixels, starts, axis)
                pixels /= np.expand_dims(counts, (1 - axis, 2)).astype(np.float32)
            windows.append(pixels)
        bands.append(np.concatenate(windows, 1))
    return np.concatenate(bands)


def _axis(length: int, tile: int, multiple: int) -> tuple[list[int], np.ndarray]:
    """Where tiles start along one axis, spread evenly, and their weights, (number, tile)."""
    tile = min(tile, length)
    step = max(multiple, (tile - round(tile * OVERLAP)) // multiple * multiple)
    number = 1 + -(-(length - tile) // step)
    steps = (length - tile) // multiple
    starts = [round(i * steps / max(1, number - 1)) * multiple for i in range(number)]
    ramp = np.arange(tile) + 0.5
    edge = np.minimum(ramp, ramp[::-1])
    # At the sides of the image, where there is no other tile, the least weight becomes 1.
    weight = np.clip(edge - tile * _MARGIN, 1e-6, tile * (OVERLAP - 2 * _MARGIN))
    total = np.zeros(length)
    for start in starts:
        total[start : start + tile] += weight
    return starts, np.stack([weight / total[start : start + tile] for start in starts])
