"""Convolutions in the forms that NVIDIA's cuDNN has kernels for."""

from typing import Any

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


def in_own_layout(parameters: Any) -> Any:
    """Gradients of a tree of parameters, in the order of axes that the parameters have.

    cuDNN's kernel gradient has the output channels first. That order would pass through the
    optimizer, and three arrays, not one, be brought back into that of the parameters.
    """
    own = lambda x: with_layout_constraint(x, Layout(tuple(range(x.ndim))))
    return jax.tree.map(own, parameters)
