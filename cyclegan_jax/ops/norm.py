"""What lies between two convolutions: instance norm, and the reflection pad of the next one."""

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array


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
