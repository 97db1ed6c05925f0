"""Convolutions in the forms that XLA's CPU backend is fast at, and their gradients.

The same numbers can be had in ways that differ in speed by a factor of ten, because only some
windows and paddings have a fast kernel. Times below are milliseconds on two cores, for one 256x256
image in a generator of width 64.

Gradients are written out, all as NHWC and HWIO: what `jax.vjp` derives has other layouts, which XLA
cures outside of loops only, and which are ten times slower inside.

CYCLEGAN_JAX_WINOGRAD=0 in the environment does without Winograd's algorithm, and its rounding.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cyclegan_jax.ops import winograd

Array = jax.Array
Padding = tuple[tuple[int, int], tuple[int, int]]  # zeros: (above, below), (left, right)

# So many values of an operand XLA's kernel gradient is quick at; more fall out of the cache.
_QUICK_VALUES = 6 * 2**20

LAYOUT = {'dimension_numbers': ('NHWC', 'HWIO', 'NHWC')}


def plain(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    """XLA's convolution as it is: (n, h, w, i), (k, k, i, o) to (n, h', w', o)."""
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, **LAYOUT)


def plain_up(x: Array, kernel: Array) -> Array:
    """XLA's transposed convolution of stride 2: (n, h, w, i), (k, k, i, o) to (n, 2h, 2w, o)."""
    size = kernel.shape[0]
    padding = ((size // 2, 2),) * 2  # 3x3: one output pixel more at the far side; 4x4: symmetric
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, lhs_dilation=(2, 2), **LAYOUT)


def up_convolve(x: Array, kernel: Array) -> Array:
    """Equals `plain_up`. A 4x4 window is four of 2x2, each of every other pixel of the output.

    XLA would multiply the zeros between the pixels of `x`, too: 37, not 57, for 128 to 64 channels.
    """
    if kernel.shape[0] != 4:  # too little is gained with 3x3
        return plain_up(x, kernel)
    rows = [
        jnp.stack(
            [plain(x, kernel[i::2, j::2], 1, ((1 - i, i), (1 - j, j))) for j in (0, 1)], axis=3
        )
        for i in (0, 1)
    ]
    n, height, width, _ = x.shape
    return jnp.stack(rows, axis=2).reshape(n, 2 * height, 2 * width, kernel.shape[3])


def plain_gradients(
    x: Array, kernel: Array, gradient: Array, *, stride: int, padding: Padding
) -> tuple[Array, Array]:
    """As `gradients`, but as XLA derives them."""
    forward = functools.partial(plain, stride=stride, padding=padding)
    return jax.vjp(forward, x, kernel)[1](gradient)


def convolve(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    """Equals `plain`.

    3x3 convolutions of many channels without padding, three quarters of a generator's work, go by
    Winograd's algorithm: 12, not 27. Others without padding are done with it, and the rim is cut
    off again: 13, not 310, for 7x7 from 64 to 3 channels.
    """
    if not is_unpadded(stride, padding):
        return plain(x, kernel, stride, padding)
    if _winograd_pays(x, kernel):
        return winograd.convolve(x, kernel)
    before, after = _halves(kernel)
    y = plain(x, kernel, 1, ((before, after),) * 2)
    return y[:, before : y.shape[1] - after, before : y.shape[2] - after]


def gradients(
    x: Array, kernel: Array, gradient: Array, *, stride: int, padding: Padding
) -> tuple[Array, Array]:
    """From the gradient of the output to those of `x` and of `kernel`.

    Where Winograd's algorithm serves: 40, not 60, and at batch 4 140, not 500.
    """
    if not is_unpadded(stride, padding):
        x_gradient = _x_gradient(x, kernel, gradient, stride, padding)
        return x_gradient, _kernel_gradient(x, kernel, gradient, stride, padding)
    if _winograd_pays(x, kernel):
        return winograd.gradients(x, kernel, gradient)
    flipped = adjoint(kernel)
    before, after = _halves(kernel)
    # Half of the zeros as padding, half as data: 13, not 60, for 7x7 from 64 to 3 channels.
    x_gradient = plain(_pad_as_data(gradient, before), flipped, 1, ((after, after),) * 2)
    if kernel.shape[2] <= kernel.shape[3]:
        return x_gradient, _kernel_gradient(x, kernel, gradient, stride, padding)
    # Input and gradient exchanged, so that the few channels come first: 28, not 65, for 64 to 3.
    padded = _pad_as_data(gradient, kernel.shape[0] - 1)
    return x_gradient, adjoint(_kernel_gradient(padded, flipped, x, stride, padding))


def adjoint(kernel: Array) -> Array:
    """The kernel of the transposed convolution: flipped, input and output channels exchanged."""
    return jnp.flip(kernel, (0, 1)).swapaxes(2, 3)


def _x_gradient(x: Array, kernel: Array, gradient: Array, stride: int, padding: Padding) -> Array:
    """The gradient of `x`, of which only the shape counts."""
    pads = []
    for axis, spread in enumerate(_spread(gradient, stride)):
        window = kernel.shape[axis]
        before = window - 1 - padding[axis][0]
        pads.append((before, x.shape[axis + 1] + window - 1 - spread - before))
    return lax.conv_general_dilated(
        gradient, adjoint(kernel), (1, 1), pads, lhs_dilation=(stride, stride), **LAYOUT
    )


def _kernel_gradient(
    x: Array, kernel: Array, gradient: Array, stride: int, padding: Padding
) -> Array:
    """The gradient of `kernel`, of which only the shape counts."""
    if max(x.size, gradient.size) <= _QUICK_VALUES:
        # Channels are the batch, and the gradient is the window.
        pads = []
        for axis, spread in enumerate(_spread(gradient, stride)):
            before = padding[axis][0]
            pads.append((before, kernel.shape[axis] - 1 + spread - x.shape[axis + 1] - before))
        x, gradient = x.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3)
        result = lax.conv_general_dilated(
            x, gradient, (1, 1), pads, rhs_dilation=(stride, stride), **LAYOUT
        )
        return result.transpose(1, 2, 0, 3)
    # For each entry of the window, the product of what it saw with what came of it: at batch 4,
    # 320, not 630, for 3x3 of stride 2 from 64 to 128 channels.
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    height, width = _spread(gradient, stride)
    entries = [
        jnp.einsum('nhwi,nhwo->io', x[:, i : i + height : stride, j : j + width : stride], gradient)
        for i, j in np.ndindex(*kernel.shape[:2])
    ]
    return jnp.stack(entries).reshape(kernel.shape)


def _spread(gradient: Array, stride: int) -> list[int]:
    """Height and width of `gradient` with its pixels `stride` apart."""
    return [1 + stride * (size - 1) for size in gradient.shape[1:3]]


def is_unpadded(stride: int, padding: Padding) -> bool:
    return stride == 1 and not any(map(any, padding))


def _winograd_pays(x: Array, kernel: Array) -> bool:
    # Tiles can only be cut where the size is known; an exported program leaves it open.
    known = all(isinstance(size, int) for size in x.shape)
    allowed = os.environ.get('CYCLEGAN_JAX_WINOGRAD', '1') != '0'  # looked at while tracing
    return allowed and known and kernel.shape[:2] == (3, 3) and min(kernel.shape[2:]) >= 64


def _halves(kernel: Array) -> tuple[int, int]:
    """The padding that keeps the size: at the near and at the far side."""
    before = kernel.shape[0] // 2
    return before, kernel.shape[0] - 1 - before


def _pad_as_data(x: Array, width: int) -> Array:
    """Zeros at each side, which the compiler is kept from turning into a convolution's padding."""
    return lax.optimization_barrier(jnp.pad(x, ((0, 0), (width, width), (width, width), (0, 0))))
