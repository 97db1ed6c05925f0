"""Images of 64 channels on a TPU, two neighbouring columns as one.

Channels lie along the 128 lanes of a TPU's registers. 64 leave half of them empty: to read such an
image takes as long as one of 128 channels, and a product of matrices is half of nothing. So
operations there fold what they take, and unfold what they return; where one follows another,
XLA drops both.
"""

import jax

from cyclegan_jax.ops.platform import devices, platform

Array = jax.Array

_LANES = 128
_BATCH = 8  # images that fill a register's other side


def has_few_images(x: Array) -> bool:
    """Whether a device's share of a batch leaves it for the compiler to cut images up."""
    images = x.shape[0]  # which an exported program may leave open
    return not isinstance(images, int) or images < _BATCH * devices.value


def are_filled(x: Array) -> bool:
    """Whether `x` is for a TPU, of sizes that are known, and has images to fill its registers."""
    sizes_are_known = all(isinstance(size, int) for size in x.shape)
    return platform() == 'tpu' and sizes_are_known and not has_few_images(x)


def together(x: Array, width: int | None = None, channels: int | None = None) -> int:
    """How many columns of `x` are to be one, 1 or 2; or of another image of the same batch."""
    if not are_filled(x):
        return 1
    width, channels = width or x.shape[2], channels or x.shape[3]
    return 2 if channels == _LANES // 2 and width % 2 == 0 else 1


def fold(x: Array, columns: int) -> Array:
    """(n, h, w, c) to (n, h, w / columns, columns c)."""
    n, height, width, channels = x.shape
    return x.reshape(n, height, width // columns, columns * channels) if columns > 1 else x


def unfold(x: Array, columns: int) -> Array:
    """Undoes `fold`."""
    n, height, width, channels = x.shape
    return x.reshape(n, height, width * columns, channels // columns) if columns > 1 else x
