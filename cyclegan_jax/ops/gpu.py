"""Convolutions in the forms that NVIDIA's cuDNN has kernels for."""

import jax
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint

from cyclegan_jax.ops import cpu

Array = jax.Array


def up_convolve(x: Array, kernel: Array) -> Array:
    """`up_conv` as the transpose of the convolution of stride 2, which XLA knows again as such.

    As a convolution of dilated input it would write that to memory, at four times the size, and
    multiply its zeros. The barrier keeps XLA from seeing that `kernel` is flipped twice.
    """
    flipped = lax.optimization_barrier(cpu.adjoint(kernel))
    n, height, width, _ = x.shape
    image = jax.ShapeDtypeStruct((n, 2 * height, 2 * width, kernel.shape[3]), x.dtype)
    down = lambda y: cpu.plain(y, flipped, 2, ((1, 1), (1, 1)))
    return jax.linear_transpose(down, image)(x)[0]


def gradients(
    x: Array, kernel: Array, gradient: Array, *, stride: int, padding: cpu.Padding
) -> tuple[Array, Array]:
    """From the gradient of the output to those of `x` and of `kernel`.

    cuDNN's kernel gradient has the output channels first. That order would pass through the
    optimizer, and three arrays, not one, be brought back into that of the parameters.
    """
    forward = lambda x, kernel: cpu.plain(x, kernel, stride, padding)
    x_gradient, kernel_gradient = jax.vjp(forward, x, kernel)[1](gradient)
    return x_gradient, with_layout_constraint(kernel_gradient, Layout((0, 1, 2, 3)))
