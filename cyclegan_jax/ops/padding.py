"""What lies beyond the sides of images and of strips, and the adjoints.

XLA derives the adjoint of a reflection pad as a chain of slices and sums; here it is written out.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from cyclegan_jax.ops import lanes
from cyclegan_jax.ops.platform import by_platform

Array = jax.Array


def reflect_pad(x: Array, width: int) -> Array:
    """Mirrors `width` pixels at each side, the edge itself not repeated: (n, h + 2w, w + 2w, c)."""
    return mirror(x, width, width)


def mirror(x: Array, rows: int, columns: int, strips: int = 1) -> Array:
    """As `reflect_pad`, by so many rows above and below, and columns at the left and right.

    strips: how many each image is cut into. Only its first is then mirrored above, only its last
    below; others get the rows of their neighbours.
    """
    if strips > 1:
        x, rows = lap(x, rows, rows, strips, mirrored=True), 0
    together = lanes.together(x)
    if not columns or columns % together:
        together = 1
    return lanes.unfold(
        _padded(lanes.fold(x, together), rows, columns // together, together), together
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _padded(x: Array, rows: int, columns: int, together: int) -> Array:
    if together > 1:
        return _mirror(_mirror_pairs(x, columns), rows, 0)
    static = {'rows': rows, 'columns': columns}
    return by_platform(_mirror, x, cuda=_mirror_by_index, static=static)


def _padded_fwd(x, rows, columns, together):
    return _padded(x, rows, columns, together), ()


def _padded_bwd(rows, columns, together, _, gradient):
    if together > 1:
        return (_add_mirrored_pairs(add_mirrored(gradient, rows, 1), columns),)
    return (add_mirrored(add_mirrored(gradient, columns, 2), rows, 1),)


_padded.defvjp(_padded_fwd, _padded_bwd)


def _mirror(x: Array, rows: int, columns: int) -> Array:
    return jnp.pad(x, ((0, 0), (rows, rows), (columns, columns), (0, 0)), mode='reflect')


def _mirror_by_index(x: Array, rows: int, columns: int) -> Array:
    """One kernel on a GPU, with what computes `x` in it; `_mirror` is two, and copies `x` twice."""

    def places(size, width):
        place = jnp.abs(jnp.arange(-width, size + width))
        return size - 1 - jnp.abs(size - 1 - place)

    at = places(x.shape[1], rows)[:, None], places(x.shape[2], columns)
    return x.at[:, *at].get(mode='promise_in_bounds')


def _mirror_pairs(x: Array, rim: int) -> Array:
    """`_mirror`, of columns in pairs, by so many pairs: even columns come from even ones."""
    even, odd = jnp.split(x, 2, axis=3)
    left = even[:, :, 1 : rim + 1], odd[:, :, :rim]
    right = even[:, :, -rim:], odd[:, :, -rim - 1 : -1]
    left, right = (jnp.flip(jnp.concatenate(side, axis=3), 2) for side in (left, right))
    return jnp.concatenate([left, x, right], axis=2)


def _add_mirrored_pairs(y: Array, rim: int) -> Array:
    """The adjoint of `_mirror_pairs`."""
    rest = y.shape[2] - 3 * rim - 1
    total = y[:, :, rim:-rim]
    for side, pads in ((y[:, :, :rim], (0, rest)), (y[:, :, -rim:], (rest, 0))):
        even, odd = jnp.split(jnp.flip(side, 2), 2, axis=3)
        at = [_pad_columns(even, (1, 0)), _pad_columns(odd, (0, 1))]
        total = total + _pad_columns(jnp.concatenate(at, axis=3), pads)
    return total


def _pad_columns(x: Array, pads: tuple[int, int]) -> Array:
    return jnp.pad(x, ((0, 0), (0, 0), pads, (0, 0)))


def add_mirrored(y: Array, width: int, axis: int) -> Array:
    """The adjoint of a pad along one axis: what lies in it is added to the pixels it mirrors."""
    if not width:
        return y
    end = y.shape[axis] - width
    near, far = (lax.slice_in_dim(y, *ends, axis=axis) for ends in ((0, width), (end, None)))
    return add_rims(lax.slice_in_dim(y, width, end, axis=axis), near, far, axis)


def add_rims(x: Array, near: Array, far: Array, axis: int) -> Array:
    """Adds what lies in the padding at both sides of `x`, along one axis, where it is mirrored."""
    size, width = x.shape[axis], near.shape[axis]
    for place, rim in ((1, near), (size - 1 - width, far)):
        pads = [(0, 0)] * x.ndim
        pads[axis] = (place, size - width - place)
        x = x + jnp.pad(jnp.flip(rim, axis), pads)
    return x


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def lap(x: Array, above: int, below: int, strips: int, mirrored: bool = False) -> Array:
    """So many rows of the strips above and below: (n s, h, w, c) to (n s, above + h + below, w, c).

    Where an image ends there are zeros, or what `mirrored` asks for.
    """
    columns = lanes.together(x)
    x = lanes.fold(x, columns)
    first, last = (
        (jnp.flip(x[:, 1 : above + 1], 1), jnp.flip(x[:, -1 - below : -1], 1))
        if mirrored
        else (None, None)
    )
    rows = [
        _at_neighbours(x[:, x.shape[1] - above :], strips, 1, first),
        x,
        _at_neighbours(x[:, :below], strips, -1, last),
    ]
    return lanes.unfold(jnp.concatenate(rows, axis=1), columns)


def _lap_fwd(x, above, below, strips, mirrored):
    return lap(x, above, below, strips, mirrored), ()


def _lap_bwd(above, below, strips, mirrored, _, gradient):
    columns = lanes.together(gradient)
    y = lanes.fold(gradient, columns)
    end = y.shape[1] - below
    x = add_lapped(y[:, above:end], y[:, :above], y[:, end:], strips, mirrored)
    return (lanes.unfold(x, columns),)


lap.defvjp(_lap_fwd, _lap_bwd)


def add_lapped(x: Array, above: Array, below: Array, strips: int, mirrored: bool) -> Array:
    """The adjoint of `lap`: what lies above and below strips of `x` is added where it came from."""
    height = x.shape[1]
    if strips > 1:
        for rows, by, place in ((above, -1, height - above.shape[1]), (below, 1, 0)):
            pads = (place, height - place - rows.shape[1])
            x = x + jnp.pad(_at_neighbours(rows, strips, by), ((0, 0), pads, (0, 0), (0, 0)))
    if not mirrored:
        return x
    if strips > 1:
        strip = jnp.arange(x.shape[0])[:, None, None, None] % strips
        above, below = jnp.where(strip == 0, above, 0), jnp.where(strip == strips - 1, below, 0)
    return add_rims(x, above, below, 1)


def _at_neighbours(x: Array, strips: int, by: int, ends: Array | None = None) -> Array:
    """Rows of each strip at the next, for `by` 1, or at the one before, for -1.

    The first strip of an image, or the last, gets its own rows of `ends`, or zeros.
    """
    shape = x.shape
    x = x.reshape(shape[0] // strips, strips, *shape[1:])
    ends = jnp.zeros_like(x) if ends is None else ends.reshape(x.shape)
    rows = [ends[:, :1], x[:, :-1]] if by == 1 else [x[:, 1:], ends[:, -1:]]
    return jnp.concatenate(rows, axis=1).reshape(shape)
