"""Convolutions in the forms that TPUs are fast at.

Numbers are millions of cycles on a v5e, as its compiler estimates them, for eight 256x256 images
in bfloat16.
"""

import jax
import jax.numpy as jnp

from cyclegan_jax.ops import cpu
from cyclegan_jax.ops.platform import devices

Array = jax.Array

_TILE = 4  # output pixels a side that are computed as channels
# So many images of a device fill its lanes. The compiler cuts the width of fewer into as many, and
# copies the columns that windows share seven times; so it is given strips, cut along the height.
_BATCH = 8


def convolve(x: Array, kernel: Array, stride: int, padding: cpu.Padding) -> Array:
    """Equals `cpu.plain`: 3.0, not 8.7, for 7x7 from 64 to 3 channels without padding."""
    if not _is_wide(x, kernel, stride, padding):
        return cpu.plain(x, kernel, stride, padding)
    size, height = kernel.shape[0], x.shape[1] - kernel.shape[0] + 1
    y = _unpadded(_strips(x, size), kernel)
    return y.reshape(x.shape[0], -1, *y.shape[2:])[:, :height]


def gradients(
    x: Array, kernel: Array, gradient: Array, *, stride: int, padding: cpu.Padding
) -> tuple[Array, Array]:
    """From the gradient of the output to those of `x` and of `kernel`.

    For the layer above 3.4 and 2.6, not 4.3 and 8.6.
    """
    if not _is_wide(x, kernel, stride, padding):
        return cpu.plain_gradients(x, kernel, gradient, stride=stride, padding=padding)
    strips, of_strips = _strips(x, kernel.shape[0]), _strips(gradient, 1)
    strips_gradient, kernel_gradient = jax.vjp(_unpadded, strips, kernel)[1](of_strips)
    if strips is x and kernel.shape[3] < kernel.shape[2]:
        return strips_gradient, kernel_gradient
    # The transposed layer: to few channels it is the one above.
    rim = kernel.shape[0] - 1, kernel.shape[0] - 1
    padded = jnp.pad(gradient, ((0, 0), rim, rim, (0, 0)))
    return convolve(padded, cpu.adjoint(kernel), stride, padding), kernel_gradient


def _is_wide(x: Array, kernel: Array, stride: int, padding: cpu.Padding) -> bool:
    """Whether a layer is between images and features: a large window, few channels."""
    known = all(isinstance(size, int) for size in x.shape)  # an exported program leaves it open
    few_channels = kernel.shape[0] == 7 and min(kernel.shape[2:]) <= 4
    return known and few_channels and cpu.is_unpadded(stride, padding)


def _strips(x: Array, size: int) -> Array:
    """Few images as a batch of strips, which overlap by what a window of this size needs.

    (n, h + size - 1, w, c) to (8 n, h' + size - 1, w, c) where 8 h' is h, or a little more.
    """
    n, height, width, channels = x.shape
    if n >= _BATCH * devices.value:
        return x
    rows = -(-(height - size + 1) // _BATCH)
    x = jnp.pad(x, ((0, 0), (0, _BATCH * rows + size - 1 - height), (0, 0), (0, 0)))
    strips = [x[:, i * rows : (i + 1) * rows + size - 1] for i in range(_BATCH)]
    return jnp.stack(strips, axis=1).reshape(-1, rows + size - 1, width, channels)


def _unpadded(x: Array, kernel: Array) -> Array:
    if kernel.shape[3] < kernel.shape[2]:
        return _by_tiles(x, kernel)
    return cpu.plain(x, kernel, 1, ((0, 0), (0, 0)))


def _by_tiles(x: Array, kernel: Array) -> Array:
    """A stride of 4x4 pixels, whose 16 pixels are channels of a kernel that sees all they see.

    Three output channels fill 3 of the 128 columns of a matrix unit; so it is 48, for twice the
    multiplications. The 7x7 window becomes 10x10, which holds the former at 16 places.
    """
    n, height, width, _ = x.shape
    size, _, _, outputs = kernel.shape
    height, width = height - size + 1, width - size + 1
    x = jnp.pad(x, ((0, 0), (0, -height % _TILE), (0, -width % _TILE), (0, 0)))
    shifted = [
        jnp.pad(kernel, ((i, _TILE - 1 - i), (j, _TILE - 1 - j), (0, 0), (0, 0)))
        for i in range(_TILE)
        for j in range(_TILE)
    ]
    y = cpu.plain(x, jnp.concatenate(shifted, axis=3), _TILE, ((0, 0), (0, 0)))
    rows, columns = y.shape[1:3]
    y = y.reshape(n, rows, columns, _TILE, _TILE, outputs).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(n, rows * _TILE, columns * _TILE, outputs)[:, :height, :width]
