"""Convolutions, each with the form that the platform is fast at behind one function.

Images are NHWC, kernels HWIO. Parameters are float32; `dtype` is the type that convolutions compute
in.
"""

import functools
import itertools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from cyclegan_jax.ops import cpu, gpu, lanes, tpu
from cyclegan_jax.ops.norm import InstanceNorm
from cyclegan_jax.ops.padding import mirror
from cyclegan_jax.ops.platform import by_platform

Array = jax.Array


# Jitted, and its gradients below, so that one of the many alike is traced once: a step is ready for
# the compiler in half the time.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
@functools.partial(jax.jit, static_argnums=(2, 3))
def conv(x: Array, kernel: Array, stride: int, padding: cpu.Padding) -> Array:
    """Convolution with zeros at the sides: (n, h, w, i), (k, k, i, o) to (n, h', w', o).

    Accelerators have a fast form of it, CPUs have not: see `cpu`, which makes the whole step 1.8
    times faster there.
    """
    static = {'stride': stride, 'padding': padding}
    return by_platform(cpu.plain, x, kernel, cpu=cpu.convolve, tpu=tpu.convolve, static=static)


def _conv_fwd(x, kernel, stride, padding):
    return conv(x, kernel, stride, padding), (x, kernel)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _conv_bwd(stride, padding, residuals, gradient):
    static = {'stride': stride, 'padding': padding}
    return by_platform(
        cpu.plain_gradients,
        *residuals,
        gradient,
        cpu=cpu.gradients,
        tpu=tpu.gradients,
        static=static,
    )


conv.defvjp(_conv_fwd, _conv_bwd)


def reflect_conv(x: Array, kernel: Array) -> Array:
    """Convolution of an odd window, behind a reflection pad that keeps the size of `x`."""
    width = kernel.shape[0] // 2
    strips = lanes.strips(x, lapped=width)
    x = lanes.fold(x, strips=strips)
    if tpu.takes_rims_apart(x, kernel):
        return lanes.unfold(tpu.reflect_convolve(x, kernel, strips), strips=strips)
    # Columns that belong together stay so: the pad has some more, for which the kernel has zeros.
    more = -width % lanes.together(x)
    kernel = jnp.pad(kernel, ((0, 0), (more, more), (0, 0), (0, 0)))
    y = conv(mirror(x, width, width + more, strips), kernel, 1, ((0, 0), (0, 0)))
    return lanes.unfold(y, strips=strips)


@jax.custom_vjp
def up_conv(x: Array, kernel: Array) -> Array:
    """Transposed convolution of stride 2 that doubles the size: (n, h, w, i) to (n, 2h, 2w, o).

    Equals torch's ConvTranspose2d(stride=2, padding=1) with a 4x4 kernel, or with a 3x3 kernel and
    output_padding=1, for a kernel that is flipped in space.

    The kernel's gradient, as XLA derives it, has a window as large as the image on dilated input:
    about a second for one layer on a CPU. It is written here as the kernel gradient of the strided
    convolution that this layer is the transpose of, with the roles of input and output exchanged.
    """
    forms = {'cpu': cpu.up_convolve, 'cuda': gpu.up_convolve, 'tpu': tpu.up_convolve}
    return by_platform(cpu.plain_up, x, kernel, static={}, **forms)


def _up_conv_fwd(x, kernel):
    return up_conv(x, kernel), (x, kernel)


def _up_conv_bwd(residuals, gradient):
    x, kernel = residuals

    def down_conv(kernel):
        return conv(gradient, kernel, 2, ((1, 1), (1, 1)))

    x_gradient, kernel_vjp = jax.vjp(down_conv, cpu.adjoint(kernel))
    return x_gradient, cpu.adjoint(kernel_vjp(x)[0])


up_conv.defvjp(_up_conv_fwd, _up_conv_bwd)


def of_repeated_pixels(kernel: Array) -> Array:
    """The kernel by which `up_conv` is a 3x3 convolution of an image that holds each pixel twice.

    (3, 3, i, o) to (4, 4, i, o). Twice a row and twice a column: what a window would see again is
    multiplied once, by the sum of its entries, which makes 4 products a pixel, not 9.

    Raises:
      ValueError: the window is not 3x3.
    """
    if kernel.shape[:2] != (3, 3):
        raise ValueError(f'kernel is {kernel.shape}; it must be 3x3: use up="transpose".')
    places = itertools.product((0, 1), repeat=2)
    return sum(jnp.pad(kernel, ((i, 1 - i), (j, 1 - j), (0, 0), (0, 0))) for i, j in places)


def in_own_layout(gradients: Any) -> Any:
    """Gradients of parameters as they are, whatever the order of axes they come in from `conv`."""
    return by_platform(lambda x: x, gradients, cuda=gpu.in_own_layout, static={})


class Conv(nn.Module):
    """A convolution with N(0, 0.02) initial weights, as everywhere in the reference.

    Attributes:
      features: output channels.
      kernel: side of the square window.
      stride: 1 or 2.
      padding: zeros at each side: one number, or (before, after) for both axes.
      reflect: behind a reflection pad that keeps the size; `stride` and `padding` are then implied.
      bias: not with `norm`, which would remove it.
      up: doubles the size; `stride` and `padding` are then implied. 'transpose' is a transposed
        convolution, 'nearest' a 3x3 one of an image in which each pixel is repeated.
      norm: instance norm follows, and then what is negative is multiplied by this: 0 is a ReLU, 1
        leaves it. None: no norm.
      dtype: type that the convolution computes in, and returns.

    Raises:
      ValueError: a bias and a norm, or 'nearest' with another window than 3x3.
    """

    features: int
    kernel: int
    stride: int = 1
    padding: int | tuple[int, int] = 0
    reflect: bool = False
    bias: bool = False
    up: Literal['', 'transpose', 'nearest'] = ''
    norm: float | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if self.bias and self.norm is not None:
            raise ValueError('bias is True, but the norm that follows removes it: leave it out.')
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param('kernel', nn.initializers.normal(0.02), shape, jnp.float32)
        if self.up == 'nearest':
            kernel = of_repeated_pixels(kernel)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if self.up:
            convolve = up_conv
        elif self.reflect:
            convolve = reflect_conv
        else:
            padding = self.padding if isinstance(self.padding, tuple) else (self.padding,) * 2
            convolve = functools.partial(conv, stride=self.stride, padding=(padding, padding))
        y = convolve(x, kernel)
        if self.bias:
            bias = self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype).reshape(1, 1, 1, -1)
        if self.norm is None:
            return y
        return InstanceNorm(self.norm)(y, tpu.pixel_in_advance(convolve, x, kernel))
