"""Halving and doubling a size without aliasing: blurred, not every other pixel (Zhang 2019).

The windows are those of CUT's code, https://github.com/taesungp/contrastive-unpaired-translation.
"""

import jax
import jax.numpy as jnp
from jax import lax

from cyclegan_jax.ops.padding import reflect_pad

Array = jax.Array


def blur_down(x: Array) -> Array:
    """[1, 2, 1] / 4 each way, at every other pixel, sides mirrored: (n, h, w, c) to half, up."""
    x = reflect_pad(x, 1)
    for axis in (1, 2):
        end = x.shape[axis] - 2
        left, middle, right = (
            lax.slice_in_dim(x, i, i + end, stride=2, axis=axis) for i in range(3)
        )
        x = 0.25 * left + 0.5 * middle + 0.25 * right
    return x


def blur_up(x: Array) -> Array:
    """[1, 3, 3, 1] / 4 each way, between pixels, sides repeated: (n, h, w, c) to twice the size."""
    for axis in (1, 2):
        size = x.shape[axis]
        first, last = (lax.slice_in_dim(x, i, i + 1, axis=axis) for i in (0, size - 1))
        before = jnp.concatenate([first, lax.slice_in_dim(x, 0, size - 1, axis=axis)], axis)
        after = jnp.concatenate([lax.slice_in_dim(x, 1, size, axis=axis), last], axis)
        pair = [0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after]
        shape = list(x.shape)
        shape[axis] *= 2
        x = jnp.stack(pair, axis + 1).reshape(shape)
    return x
