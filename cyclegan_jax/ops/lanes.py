"""How images fill a TPU's registers, which hold 8 rows of 128 lanes.

Images lie along the rows, channels along the lanes. Fewer than eight images would be cut up by the
compiler, along the width and for each convolution anew, and what lies between is copied; so each
is cut along its height into strips, which are a batch. 64 channels leave half of the lanes empty:
to read such an image takes as long as one of 128, and a product of matrices is half of nothing; so
two neighbouring columns are one.

Operations on a TPU fold what they take, and unfold what they return; where one follows another, XLA
drops both.
"""

import math
from typing import NamedTuple

import jax

from cyclegan_jax.ops.platform import devices, platform

Array = jax.Array

ROWS = 8
_LANES = 128


class Folds(NamedTuple):
    """How an array is folded: so many columns are one, an image is cut into so many strips."""

    columns: int = 1
    strips: int = 1


def strips(x: Array, lapped: int = 0, height: int | None = None) -> int:
    """How many strips each image is to be cut into, or another of the same batch.

    A device's strips are then a multiple of eight. 1 where it has eight images, where the height is
    no multiple, or where a strip has no more rows than are lapped.
    """
    if not _is_for_tpu(x) or _images(x) >= ROWS:
        return 1
    height = height or x.shape[1]
    count = ROWS // math.gcd(_images(x), ROWS)
    return count if height % count == 0 and height // count > lapped else 1


def are_filled(x: Array) -> bool:
    """Whether `x` is for a TPU, of sizes that are known, and has images to fill its registers."""
    return _is_for_tpu(x) and _images(x) >= ROWS


def together(x: Array, width: int | None = None, channels: int | None = None) -> int:
    """How many columns of `x` are to be one, 1 or 2; or of another image of the same batch."""
    if not are_filled(x):
        return 1
    width, channels = width or x.shape[2], channels or x.shape[3]
    return 2 if channels == _LANES // 2 and width % 2 == 0 else 1


def fold(x: Array, columns: int = 1, strips: int = 1) -> Array:
    """(n, h, w, c) to (n strips, h / strips, w / columns, columns c)."""
    n, height, width, channels = x.shape
    if columns == strips == 1:  # of sizes that may be unknown
        return x
    return x.reshape(n * strips, height // strips, width // columns, columns * channels)


def unfold(x: Array, columns: int = 1, strips: int = 1) -> Array:
    """Undoes `fold`."""
    n, height, width, channels = x.shape
    if columns == strips == 1:
        return x
    return x.reshape(n // strips, height * strips, width * columns, channels // columns)


def _is_for_tpu(x: Array) -> bool:
    """Sizes that an exported program leaves open have the plain forms."""
    return platform() == 'tpu' and all(isinstance(size, int) for size in x.shape)


def _images(x: Array) -> int:
    return x.shape[0] // devices.value
