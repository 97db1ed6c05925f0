"""What lies between two convolutions: instance norm and the activation.

It moves more bytes than it computes. So all of it is one function with a gradient of its own, which
keeps the convolution's output as it came and two numbers a channel; what `jax.grad` derives keeps
float32 copies of whole images.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cyclegan_jax.ops import lanes
from cyclegan_jax.ops.platform import by_platform

Array = jax.Array

_EPSILON = 1e-5


def instance_norm(x: Array, slope: float = 1.0, near: Array | None = None) -> Array:
    """Normalises each channel of each image to mean 0, variance 1 (Ulyanov et al. 2016).

    There are no learnt scales, as in the reference. What is negative is then multiplied by `slope`
    (0 for a ReLU). (n, h, w, c), in the type of `x`.

    near: (n, 1, 1, c), what statistics are measured from, where it is known before `x`; without
    it, a pixel of `x`. It must be as near the others as one of them.
    """
    strips = lanes.strips(x)
    x = lanes.fold(x, strips=strips)
    folds = lanes.Folds(lanes.together(x), strips)
    return lanes.unfold(_norm(lanes.fold(x, folds.columns), near, slope, folds), *folds)


class InstanceNorm(nn.Module):
    """`instance_norm` as a layer of a generator, whose statistics can be kept and given back.

    Where the collection 'statistics' is asked for, the layer keeps mean and 1 / standard deviation
    of its channels, (n, 1, 1, c) each, there. Where it is given, they are taken in place of those
    of `x`: a part of a picture is then normalised as the whole was. Without it, it costs nothing.
    """

    slope: float = 1.0

    @nn.compact
    def __call__(self, x: Array, near: Array | None = None) -> Array:
        if given := self.get_variable('statistics', 'of_picture'):
            return _normalise(x, *given, self.slope)
        if self.is_mutable_collection('statistics') and not self.is_initializing():
            self.put_variable('statistics', 'of_picture', _statistics(x, near, lanes.Folds()))
        return instance_norm(x, self.slope, near)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _norm(x, near, slope, folds):
    return _forward(x, near, slope, folds)[0]


# `x` is folded already: XLA would unfold what a function that is called twice does inside.
@functools.partial(jax.jit, static_argnums=(2, 3))
def _forward(x, near, slope, folds):
    mean, scale = _statistics(x, near, folds)
    return _normalise(x, mean, scale, slope), (x, near, mean, scale)


def _normalise(x, mean, scale, slope):
    y = (x.astype(jnp.float32) - mean) * scale
    if slope != 1:
        y = jnp.where(y >= 0, y, slope * y)
    return y.astype(x.dtype)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _backward(slope, folds, residuals, gradient):
    x, near, mean, scale = residuals
    y = (x.astype(jnp.float32) - mean) * scale
    gradient = gradient.astype(jnp.float32)
    if slope != 1:
        # A ReLU has no slope at 0, a leaky one has that of what is positive.
        is_kept = y >= 0 if slope else y > 0
        gradient = jnp.where(is_kept, gradient, slope * gradient)
    mean_gradient, mean_product = (
        _of_channels(mean, folds) for mean in _means(gradient, gradient * y)
    )
    x_gradient = scale * (gradient - mean_gradient - y * mean_product)
    return x_gradient.astype(x.dtype), jax.tree.map(jnp.zeros_like, near)


_norm.defvjp(_forward, _backward)


def _statistics(x: Array, near: Array | None, folds: lanes.Folds) -> tuple[Array, Array]:
    """Mean and 1 / standard deviation of each channel of each image, float32, (n, 1, 1, c).

    folds: of `x`. A channel's numbers are then there for each strip, and for each column.

    E[x^2] - E[x]^2 cancels badly on flat images; neither form does.
    """
    on_cpu = lambda x, near, folds: _in_two_passes(x)  # where nothing is folded
    mean, variance = by_platform(_in_one_pass, x, near, cpu=on_cpu, static={'folds': folds})
    return mean, lax.rsqrt(variance + _EPSILON)


def _of_channels(means: Array, folds: lanes.Folds) -> Array:
    """The mean over a channel's strips and its one or two columns, at the place of each."""
    if folds.strips > 1:
        means = jnp.mean(means.reshape(-1, folds.strips, *means.shape[1:]), 1)
        means = jnp.repeat(means, folds.strips, 0)
    return (means + jnp.roll(means, means.shape[3] // 2, 3)) / 2 if folds.columns > 1 else means


def _in_two_passes(x: Array) -> tuple[Array, Array]:
    x = x.astype(jnp.float32)
    [mean] = _at_once(x)
    return mean, *_at_once(jnp.square(x - mean))


def _in_one_pass(x: Array, near: Array | None, folds: lanes.Folds) -> tuple[Array, Array]:
    """Mean and variance, where reading `x` is what takes the time.

    All is measured from `near`, or from the pixel in the middle. The square of a pixel's distance
    from the mean is at most (pixels - 1) times the variance. So in the worst case, where it alone
    is far from all others, an image of 256x256 loses a hundredth or two of its variance to the
    rounding of a float32; as a rule it loses nothing. (With the mean of several pixels XLA writes
    float32 images to memory once more: 75 GB a step, not 65.)
    """
    if near is None:
        middle, pixels = (_middle(x, size, folds) for size in ((1, 1), x.shape[1:3]))
    else:
        middle = pixels = _everywhere(near.astype(jnp.float32), folds)
    away = x.astype(jnp.float32) - pixels
    means = by_platform(_by_rows, away, jnp.square(away), cuda=_by_bands, static={})
    away, square = (_of_channels(mean, folds) for mean in means)
    return middle + away, jnp.maximum(square - jnp.square(away), 0)


def _middle(x: Array, size: tuple[int, int], folds: lanes.Folds) -> Array:
    """The pixel in the middle of each image, float32, repeated to (n strips, *size, columns c)."""
    static = {'size': size, 'folds': folds}
    return by_platform(_slice, x, cuda=_gather, static=static).astype(jnp.float32)


def _slice(x: Array, size: tuple[int, int], folds: lanes.Folds) -> Array:
    row, column = x.shape[1] // 2, x.shape[2] // 2
    strip = folds.strips // 2
    if strip:  # strips are an even number, and the middle is where the second half begins
        row = 0
    pixel = x[:, row : row + 1, column : column + 1, : x.shape[3] // folds.columns]
    pixel = pixel.reshape(-1, folds.strips, *pixel.shape[1:])[:, strip]
    return jnp.broadcast_to(_everywhere(pixel, folds), (x.shape[0], *size, x.shape[3]))


def _everywhere(pixel: Array, folds: lanes.Folds) -> Array:
    """At the place of each strip and column: (n, 1, 1, c) to (n strips, 1, 1, columns c)."""
    return jnp.concatenate([jnp.repeat(pixel, folds.strips, 0)] * folds.columns, axis=3)


def _gather(x: Array, size: tuple[int, int], folds: lanes.Folds) -> Array:
    """Read where it is used on a GPU; a slice is a kernel of its own. Nothing is folded there."""
    places = (jnp.full(size, side // 2) for side in x.shape[1:3])
    return x.at[:, *places].get(mode='promise_in_bounds')


def _means(*xs: Array) -> list[Array]:
    """Of each channel of each image: (n, h, w, c) to (n, 1, 1, c), float32."""
    return by_platform(_by_rows, *xs, cpu=_at_once, static={})


def _at_once(*xs: Array) -> list[Array]:
    return [jnp.mean(x, (1, 2), keepdims=True) for x in xs]


def _by_rows(*xs: Array) -> list[Array]:
    """Rows are summed first, and the sums kept apart.

    They are enough to keep a GPU busy, and XLA then computes `xs` where it sums them; otherwise it
    writes them to memory. A CPU takes a fifth longer for a generator's gradient this way.
    """
    pixels = xs[0].shape[1] * xs[0].shape[2]
    rows = lax.optimization_barrier([jnp.sum(x, 2, keepdims=True) for x in xs])
    zeros = (np.float32(0),) * len(xs)
    means = lax.reduce(tuple(row / pixels for row in rows), zeros, _add_all, (1,))
    return [mean[:, None] for mean in means]


def _by_bands(*xs: Array) -> list[Array]:
    """As `_by_rows`, but by at most 31 bands of rows.

    So few XLA adds up in the kernel that computes mean and scale: 267 kernels in place of 290 for a
    generator's gradient, eight images. (Where gradients are summed, others would be split.)
    """
    n, height, width, channels = xs[0].shape
    bands = max(count for count in range(1, 32) if height % count == 0)
    # Fewer are too few for a GPU's cores; XLA then writes float32 images to memory.
    if not isinstance(n, int) or n * bands < 24:
        return _by_rows(*xs)
    sums = lax.optimization_barrier(
        [jnp.sum(x.reshape(n, bands, -1, channels), 2, keepdims=True) for x in xs]
    )
    return [jnp.sum(part, 1, keepdims=True) / (height * width) for part in sums]


def _add_all(xs: tuple[Array, ...], ys: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(map(jnp.add, xs, ys))
