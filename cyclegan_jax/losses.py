"""Loss terms: arrays in, float32 scalars out. Every reduction is a mean, as in the reference."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cyclegan_jax.errors import UserError, check_choice

Array = jax.Array

KINDS = ('lsgan', 'vanilla', 'hinge')


class Outputs(NamedTuple):
    """What one pass of the generators has made of a batch, each by the domain that it belongs to.

    real: {'a', 'b'}: the batch, (n, h, w, c) in [-1, 1].
    fake: what the generators made of the real images of the other domain.
    cycled: what comes back: {'a': b2a(a2b(a)), 'b': a2b(b2a(b))}.
    same: what a generator makes of its own target: {'a': b2a(a), 'b': a2b(b)}; {} if no term asks.
    scores: what the discriminators say of `fake`, logits of any shape.
    """

    real: Mapping[str, Array]
    fake: Mapping[str, Array]
    cycled: Mapping[str, Array]
    same: Mapping[str, Array]
    scores: Mapping[str, Array]


def adversarial(outputs: Outputs, gan: str) -> dict[str, Array]:
    """How far the discriminators are from taking fakes for real, by generator (paper, 3.1)."""
    return {
        'a2b': generator_adversarial(gan, outputs.scores['b']),
        'b2a': generator_adversarial(gan, outputs.scores['a']),
    }


def cycle(outputs: Outputs, gan: str) -> dict[str, Array]:
    """How far the way there and back is from where it began (paper, 3.2)."""
    return {domain: l1(outputs.cycled[domain], outputs.real[domain]) for domain in outputs.cycled}


def identity(outputs: Outputs, gan: str) -> dict[str, Array]:
    """How far a generator changes what is of its target domain already (paper, 5.2)."""
    return {domain: l1(outputs.same[domain], outputs.real[domain]) for domain in outputs.same}


# The generators' loss is the sum of these, each times `<name>_weight` of the config.
TERMS = {'adversarial': adversarial, 'cycle': cycle, 'identity': identity}


def generator_terms(outputs: Outputs, gan: str, weights: Mapping[str, float]) -> dict[str, Array]:
    """{'cycle_a': ..., ..., 'total': ...}: each term as it enters the total, and the total.

    A term of weight 0 is left out: it would cost time and change nothing.

    Args:
      gan: one of KINDS.
      weights: by name of the term.
    """
    terms = {
        f'{name}_{part}': weights[name] * loss
        for name, term in TERMS.items()
        if weights[name]
        for part, loss in term(outputs, gan).items()
    }
    return {**terms, 'total': sum(terms.values(), jnp.zeros(()))}


def term_weights(loss: Mapping) -> dict[str, float]:
    """The weight of each of TERMS, from `config.loss`.

    Raises:
      UserError: a kind of adversarial loss that does not exist, or a weight that is not a number.
    """
    check_choice('loss.gan', loss['gan'], KINDS)
    weights = {name: loss[f'{name}_weight'] for name in TERMS}
    for name, weight in weights.items():
        if not 0 <= weight < math.inf:
            raise UserError(f'loss.{name}_weight is {weight}; it must be 0 or a positive number.')
    return weights


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
    """Mean absolute difference."""
    return jnp.mean(jnp.abs(x - y))
