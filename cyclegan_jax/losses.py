"""Loss terms: arrays in, float32 scalars out. Every reduction is a mean, as in the reference."""

import jax
import jax.numpy as jnp

Array = jax.Array

KINDS = ('lsgan', 'vanilla', 'hinge')


def generator_adversarial(kind: str, fake: Array) -> Array:
    """How far the discriminator is from taking fakes for real.

    Args:
      kind: 'lsgan' (Mao et al. 2017: squared distance of the logits to 1), 'vanilla' (Goodfellow
        et al. 2014: cross-entropy, the non-saturating form) or 'hinge' (Lim and Ye 2017).
      fake: the discriminator's logits of generated images, any shape.
    """
    if kind == 'lsgan':
        return jnp.mean(jnp.square(fake - 1))
    if kind == 'vanilla':
        return jnp.mean(jax.nn.softplus(-fake))
    assert kind == 'hinge', kind
    return -jnp.mean(fake)


def discriminator_adversarial(kind: str, real: Array, fake: Array) -> Array:
    """How badly a discriminator tells real from fake; halved, to slow it (paper, 7.1).

    Args:
      kind: as in `generator_adversarial`.
      real: logits of real images, any shape.
      fake: logits of generated images, any shape.
    """
    if kind == 'lsgan':
        total = jnp.mean(jnp.square(real - 1)) + jnp.mean(jnp.square(fake))
    elif kind == 'vanilla':
        total = jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))
    else:
        assert kind == 'hinge', kind
        total = jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake))
    return 0.5 * total


def l1(x: Array, y: Array) -> Array:
    """Mean absolute difference: the cycle and the identity loss (paper, 3.2 and 5.2)."""
    return jnp.mean(jnp.abs(x - y))
