"""Convolutions in the forms that TPUs are fast at.

Numbers are millions of cycles on a v5e, as its compiler estimates them, for eight 256x256 images
in bfloat16.
"""

import functools

import jax
import jax.numpy as jnp

from cyclegan_jax.ops import cpu

Array = jax.Array

_TILE = 4  # output pixels a side that are computed as channels
# Fewer images than this are spread over a TPU's lanes by folding their width into the batch, which
# tiles come in the way of: of one image a generator's gradient takes 30.8 with them, 26.2 without.
_BATCH = 8


def convolve(x: Array, kernel: Array, stride: int, padding: cpu.Padding) -> Array:
    """Equals `cpu.plain`: 3.0, not 8.7, for 7x7 from 64 to 3 channels without padding."""
    if _is_wide(x, kernel, stride, padding) and kernel.shape[3] < kernel.shape[2]:
        return _by_tiles(x, kernel)
    return cpu.plain(x, kernel, stride, padding)


def gradients(
    x: Array, kernel: Array, gradient: Array, *, stride: int, padding: cpu.Padding
) -> tuple[Array, Array]:
    """From the gradient of the output to those of `x` and of `kernel`.

    For the layer above 3.4 and 2.6, not 4.3 and 8.6.
    """
    forward = functools.partial(convolve, stride=stride, padding=padding)
    if _is_wide(x, kernel, stride, padding) and kernel.shape[2] < kernel.shape[3]:
        # The transposed layer is the one above.
        rim = kernel.shape[0] - 1
        padded = jnp.pad(gradient, ((0, 0), (rim, rim), (rim, rim), (0, 0)))
        [kernel_gradient] = jax.vjp(lambda kernel: forward(x, kernel), kernel)[1](gradient)
        return convolve(padded, cpu.adjoint(kernel), stride, padding), kernel_gradient
    return jax.vjp(forward, x, kernel)[1](gradient)


def _is_wide(x: Array, kernel: Array, stride: int, padding: cpu.Padding) -> bool:
    """Whether a layer is between many images and features: a large window, few channels."""
    # An exported program leaves the number of images open.
    many = isinstance(x.shape[0], int) and x.shape[0] >= _BATCH
    few_channels = kernel.shape[0] == 7 and min(kernel.shape[2:]) <= 4
    return many and few_channels and cpu.is_unpadded(stride, padding)


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
