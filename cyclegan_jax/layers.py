"""The arithmetic that must be fast: convolutions, up-convolution, instance norm, reflection pad.

Images are NHWC, kernels HWIO. Parameters are float32; `dtype` is the type that convolutions compute
in. Each layer that has a special form for speed has it here, behind one function.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array

_LAYOUT = ('NHWC', 'HWIO', 'NHWC')
_convolve = functools.partial(lax.conv_general_dilated, dimension_numbers=_LAYOUT)


def reflect_pad(x: Array, width: int) -> Array:
    """Mirrors `width` pixels at each side, the edge itself not repeated: (n, h + 2w, w + 2w, c)."""
    return jnp.pad(x, ((0, 0), (width, width), (width, width), (0, 0)), mode='reflect')


def instance_norm(x: Array, epsilon: float = 1e-5) -> Array:
    """Normalises each channel of each image to mean 0, variance 1 (Ulyanov et al. 2016).

    There are no learnt scales, as in the reference. Statistics are float32, and the variance is
    exact, not E[x^2] - E[x]^2, which cancels badly on flat images.
    """
    y = x.astype(jnp.float32)
    y = y - jnp.mean(y, axis=(1, 2), keepdims=True)
    variance = jnp.mean(jnp.square(y), axis=(1, 2), keepdims=True)
    return (y * lax.rsqrt(variance + epsilon)).astype(x.dtype)


def _valid(x: Array, kernel: Array) -> Array:
    return _convolve(x, kernel, (1, 1), 'VALID')


def _same_then_crop(x: Array, kernel: Array) -> Array:
    (top, left), (height, width) = (k // 2 for k in kernel.shape[:2]), x.shape[1:3]
    bottom, right = kernel.shape[0] - 1 - top, kernel.shape[1] - 1 - left
    y = _convolve(x, kernel, (1, 1), ((top, bottom), (left, right)))
    return y[:, top : height - bottom, left : width - right]


@jax.custom_vjp
def conv_valid(x: Array, kernel: Array) -> Array:
    """Stride-1 convolution without padding: (n, h, w, i) to (n, h - kh + 1, w - kw + 1, o).

    XLA's CPU backend runs the zero-padded convolution three times (3x3, 256 channels) to thirty
    times (7x7, 64 to 3 channels) faster than the unpadded one, which is worth the extra rim that is
    cut off again. Both gradients are quicker in the unpadded form, hence the custom rule.
    """
    return lax.platform_dependent(x, kernel, cpu=_same_then_crop, default=_valid)


def _conv_valid_fwd(x, kernel):
    return conv_valid(x, kernel), (x, kernel)


def _conv_valid_bwd(residuals, gradient):
    return jax.vjp(_valid, *residuals)[1](gradient)


conv_valid.defvjp(_conv_valid_fwd, _conv_valid_bwd)


def _up_conv(x: Array, kernel: Array) -> Array:
    size = kernel.shape[0]
    padding = ((size // 2, 2),) * 2  # 3x3: one output pixel more at the far side; 4x4: symmetric
    return _convolve(x, kernel, (1, 1), padding, lhs_dilation=(2, 2))


@jax.custom_vjp
def up_conv(x: Array, kernel: Array) -> Array:
    """Transposed convolution of stride 2 that doubles the size: (n, h, w, i) to (n, 2h, 2w, o).

    Equals torch's ConvTranspose2d(stride=2, padding=1) with a 4x4 kernel, or with a 3x3 kernel and
    output_padding=1, for a kernel that is flipped in space.

    The kernel's gradient, as XLA derives it, has a window as large as the image on dilated input:
    about a second for one layer on a CPU. It is written here as the kernel gradient of the strided
    convolution that this layer is the transpose of, with the roles of input and output exchanged.
    """
    return _up_conv(x, kernel)


def _up_conv_fwd(x, kernel):
    return _up_conv(x, kernel), (x, kernel)


def _up_conv_bwd(residuals, gradient):
    x, kernel = residuals

    def down_conv(kernel):
        # The adjoint of _up_conv: flipped, input and output channels exchanged, padding 1.
        adjoint = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
        return _convolve(gradient, adjoint, (2, 2), ((1, 1), (1, 1)))

    x_gradient, kernel_vjp = jax.vjp(down_conv, kernel)
    return x_gradient, kernel_vjp(x)[0]


up_conv.defvjp(_up_conv_fwd, _up_conv_bwd)


class Conv(nn.Module):
    """A convolution with N(0, 0.02) initial weights, as everywhere in the reference.

    Attributes:
      features: output channels.
      kernel: side of the square window.
      stride: 1 or 2.
      padding: zeros at each side: one number, or (before, after) for both axes.
      bias: a convolution followed by instance norm has none: the norm would remove it.
      up: transposed convolution that doubles the size; `stride` and `padding` are then implied.
      dtype: type that the convolution computes in, and returns.
    """

    features: int
    kernel: int
    stride: int = 1
    padding: int | tuple[int, int] = 0
    bias: bool = False
    up: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param('kernel', nn.initializers.normal(0.02), shape, jnp.float32)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if self.up:
            y = up_conv(x, kernel)
        elif self.stride == 1 and self.padding == 0:
            y = conv_valid(x, kernel)
        else:
            padding = self.padding if isinstance(self.padding, tuple) else (self.padding,) * 2
            y = _convolve(x, kernel, (self.stride,) * 2, (padding, padding))
        if self.bias:
            bias = self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)
        return y
