"""Convolutions in the forms that TPUs are fast at.

Numbers are millions of cycles on a v5e, as its compiler estimates them, for eight 256x256 images
in bfloat16.
"""

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from cyclegan_jax.ops import cpu, lanes
from cyclegan_jax.ops.padding import add_lapped, add_mirrored, add_rims, lap, mirror

Array = jax.Array

_TILE = 4  # output pixels a side that are computed as channels
_PARTS = 4  # along each side of an image, of which one may be computed twice

_UNPADDED = ((0, 0), (0, 0))


def convolve(x: Array, kernel: Array, stride: int, padding: cpu.Padding) -> Array:
    """Equals `cpu.plain`: 3.0, not 8.7, for 7x7 from 64 to 3 channels without padding."""
    above, below = padding[0][0], max(kernel.shape[0] - stride - padding[0][0], 0)
    strips = lanes.strips(x, lapped=max(above, below))
    if strips > 1:
        height = _output(x.shape[1], kernel.shape[0], stride, padding[0])
        if x.shape[1] == stride * height and height % strips == 0:
            x = lap(lanes.fold(x, strips=strips), above, below, strips)
            y = convolve(x, kernel, stride, ((0, 0), padding[1]))
            return lanes.unfold(y, strips=strips)
    if not lanes.are_filled(x):
        lapped, height = kernel.shape[0] - 1, _filled(x, kernel, padding)
        if _is_wide(kernel, stride) and lanes.strips(x, lapped, height) > 1:
            return _filled_up(x, kernel, padding)
        return cpu.plain(x, kernel, stride, padding)
    if _is_wide(kernel, stride) and kernel.shape[3] < kernel.shape[2]:
        return _by_tiles(x, kernel, padding)
    return _by_columns(x, kernel, stride, padding)


def gradients(
    x: Array, kernel: Array, gradient: Array, *, stride: int, padding: cpu.Padding
) -> tuple[Array, Array]:
    """From the gradient of the output to those of `x` and of `kernel`."""
    forward = functools.partial(convolve, stride=stride, padding=padding)
    x_gradient, kernel_gradient = jax.vjp(forward, x, kernel)[1](gradient)
    if _is_wide(kernel, stride):
        # The transposed layer: to few channels it is the one above.
        rims = tuple(
            (side - 1 - before, side - 1 - after)
            for side, (before, after) in zip(kernel.shape[:2], padding, strict=True)
        )
        x_gradient = convolve(gradient, cpu.adjoint(kernel), 1, rims)
    return x_gradient, kernel_gradient


def takes_rims_apart(x: Array, kernel: Array) -> bool:
    """Whether `reflect_convolve` is the form for `x`."""
    return lanes.are_filled(x) and kernel.shape[0] == 3


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def reflect_convolve(x: Array, kernel: Array, strips: int) -> Array:
    """A 3x3 convolution behind a reflection pad of images in strips, with its own gradient."""
    return _reflect_fwd(x, kernel, strips)[0]


@functools.partial(jax.jit, static_argnums=2)
def _reflect_fwd(x, kernel, strips):
    padded = mirror(x, 1, 1, strips)
    return convolve(padded, kernel, 1, _UNPADDED), (padded, kernel)


@functools.partial(jax.jit, static_argnums=0)
def _reflect_bwd(strips, residuals, gradient):
    """What comes of each rim is computed apart, and added where it was taken from.

    So a convolution writes the gradient of `x` as it is; the compiler lets it add the rims, and
    take the sums that the norm before wants. Cut from that of a padded image it is written twice
    more, which takes 2.5 more for a generator's gradient.
    """
    padded, kernel = residuals
    flipped = cpu.adjoint(kernel)
    above = convolve(gradient[:, :1], flipped[2:], 1, ((0, 0), (2, 2)))
    below = convolve(gradient[:, -1:], flipped[:1], 1, ((0, 0), (2, 2)))
    left = convolve(gradient[:, :, :1], flipped[:, 2:], 1, ((1, 1), (0, 0)))
    right = convolve(gradient[:, :, -1:], flipped[:, :1], 1, ((1, 1), (0, 0)))
    x_gradient = convolve(gradient, flipped, 1, ((1, 1), (1, 1)))
    above, below = (add_mirrored(rim, 1, 2) for rim in (above, below))
    x_gradient = add_lapped(x_gradient, above, below, strips, mirrored=True)
    x_gradient = add_rims(x_gradient, left, right, 2)
    return x_gradient, gradients(padded, kernel, gradient, stride=1, padding=_UNPADDED)[1]


reflect_convolve.defvjp(_reflect_fwd, _reflect_bwd)


def up_convolve(x: Array, kernel: Array) -> Array:
    """Equals `cpu.plain_up`: two columns of few channels at once, strips of few images."""
    size = kernel.shape[0]
    rows = columns = size // 2, 2
    strips = lanes.strips(x, lapped=1)
    if strips > 1:
        above = size // 2 - 1  # 3x3 sees the next row alone
        x = lap(lanes.fold(x, strips=strips), above, 1, strips)
        rows = rows[0] - 2 * above, 0  # so that no more is computed than the strip's own
    together = lanes.together(x, 2 * x.shape[2], kernel.shape[3])
    if together > 1:
        # Both columns of the output see the same of `x`, and between its columns zeros: left out.
        kernel = _side_by_side(kernel, 1, (1, together))[:, size // 2 % 2 :: 2]
        columns = size // 4, kernel.shape[1] - 1 - size // 4
    dilation = 2, 2 // together
    y = lax.conv_general_dilated(
        x, kernel, (1, 1), (rows, columns), lhs_dilation=dilation, **cpu.LAYOUT
    )
    return lanes.unfold(y, together, strips)


def pixel_in_advance(convolve: Callable, x: Array, kernel: Array) -> Array | None:
    """A pixel in the middle of `convolve(x, kernel)`, of what surrounds it alone: (n, 1, 1, o).

    A norm that measures from it does not wait for the image, so the compiler lets the convolution
    take the norm's sums, too: 37.7, not 40.6, for a generator's gradient. None where that gains
    nothing: on other platforms, for few images (8.0, not 7.6, for one's gradient in strips), for
    those that are not much larger than a window.
    """
    side = 2 * kernel.shape[0]  # of a part whose middle sees none of its rims
    if not lanes.are_filled(x) or min(x.shape[1:3]) < _PARTS * side:
        return None
    together = lanes.together(x)
    # Even, as strides want it and columns that are together.
    top, left = ((size - side) // 4 * 2 for size in x.shape[1:3])
    columns = slice(left // together, (left + side) // together)
    part = lanes.unfold(lanes.fold(x, together)[:, top : top + side, columns], together)
    y = convolve(*lax.stop_gradient((part, kernel)))
    row, column = (size // 2 for size in y.shape[1:3])
    return y[:, row : row + 1, column : column + 1]


def _is_wide(kernel: Array, stride: int) -> bool:
    """Whether a layer is between images and features: a large window, few channels."""
    return stride == 1 and kernel.shape[0] == 7 and min(kernel.shape[2:]) <= 4


def _filled(x: Array, kernel: Array, padding: cpu.Padding) -> int:
    """The height of `x` or of its convolution, or a few rows more, of which strips can be cut."""
    height = x.shape[1] + max(sum(padding[0]) - kernel.shape[0] + 1, 0)
    return -(-height // lanes.ROWS) * lanes.ROWS


def _filled_up(x: Array, kernel: Array, padding: cpu.Padding) -> Array:
    """A 7x7 layer in strips of an image whose height is none of theirs."""
    height = _output(x.shape[1], kernel.shape[0], 1, padding[0])
    more = _filled(x, kernel, padding) - x.shape[1]
    rows = padding[0][0], kernel.shape[0] - 1 - padding[0][0]
    x = jnp.pad(x, ((0, 0), (0, more), (0, 0), (0, 0)))
    return convolve(x, kernel, 1, (rows, padding[1]))[:, :height]


def _by_columns(x: Array, kernel: Array, stride: int, padding: cpu.Padding) -> Array:
    """Columns of the output together that `lanes` wants so."""
    width = _output(x.shape[2], kernel.shape[1], stride, padding[1])
    together = lanes.together(x, width, kernel.shape[3])
    return lanes.unfold(_tiled(x, kernel, stride, padding, (1, together)), together)


def _by_tiles(x: Array, kernel: Array, padding: cpu.Padding) -> Array:
    """A stride of 4x4 pixels, whose 16 pixels are channels of a kernel that sees all they see.

    Three output channels fill 3 of the 128 columns of a matrix unit; so it is 48, for twice the
    multiplications. The 7x7 window becomes 10x10, which holds the former at 16 places.
    """
    height, width = (
        _output(x.shape[axis + 1], kernel.shape[axis], 1, padding[axis]) for axis in (0, 1)
    )
    y = _tiled(x, kernel, 1, padding, (_TILE, _TILE))
    n, rows, columns, _ = y.shape
    y = y.reshape(n, rows, columns, _TILE, _TILE, -1).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(n, rows * _TILE, columns * _TILE, -1)[:, :height, :width]


def _tiled(
    x: Array, kernel: Array, stride: int, padding: cpu.Padding, tile: tuple[int, int]
) -> Array:
    """A convolution whose output has the pixels of tiles as channels.

    (n, h, w, i) to (n, h' / rows, w' / columns, rows columns o), rounded up.
    """
    strides = stride * tile[0], stride * tile[1]
    together = lanes.together(x)
    if strides[1] % together:
        together = 1
    pads = []
    sizes = [_output(x.shape[a + 1], kernel.shape[a], stride, padding[a]) for a in (0, 1)]
    kernel = _side_by_side(kernel, stride, tile)
    # A window begins and ends where columns do that are together.
    left = -padding[1][0] % together
    right = -(left + kernel.shape[1]) % together
    kernel = jnp.pad(kernel, ((0, 0), (left, right), (0, 0), (0, 0)))
    for axis, before in enumerate((padding[0][0], padding[1][0] + left)):
        seen = (-(-sizes[axis] // tile[axis]) - 1) * strides[axis] + kernel.shape[axis]
        pads.append((before, seen - before - x.shape[axis + 1]))
    kernel = kernel.reshape(
        kernel.shape[0], kernel.shape[1] // together, together * kernel.shape[2], -1
    )
    return lax.conv_general_dilated(
        lanes.fold(x, together),
        kernel,
        (strides[0], strides[1] // together),
        (pads[0], (pads[1][0] // together, pads[1][1] // together)),
        **cpu.LAYOUT,
    )


def _side_by_side(kernel: Array, stride: int, tile: tuple[int, int]) -> Array:
    """The kernel at the place of each pixel of a tile, as output channels."""
    rows, columns = ((count - 1) * stride for count in tile)
    places = itertools.product(*(range(0, count * stride, stride) for count in tile))
    return jnp.concatenate(
        [jnp.pad(kernel, ((i, rows - i), (j, columns - j), (0, 0), (0, 0))) for i, j in places],
        axis=3,
    )


def _output(size: int, window: int, stride: int, padding: tuple[int, int]) -> int:
    return (size + sum(padding) - window) // stride + 1
