"""Loss terms: arrays in, float32 scalars out. Every reduction is a mean, as in the reference."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cyclegan_jax.errors import UserError, check_choice

Array = jax.Array
Logits = Array | tuple[Array, ...]  # for each of the scales that a discriminator judges

KINDS = ('lsgan', 'vanilla', 'hinge')


class Outputs(NamedTuple):
    """What one generator has made of a batch, and the other of that, by the domain it belongs to.

    If a2b was the first; likewise of b2a:

    real: {'a', 'b'}: the batch, (n, h, w, c) in [-1, 1].
    fake: {'b': a2b(a)}.
    cycled: what comes back: {'a': b2a(a2b(a))}.
    same: what it makes of its own target: {'b': a2b(b)}; {} if no term asks.
    scores: {'b'}: what the discriminator says of `fake`: logits of any shape, or of each scale.
    """

    real: Mapping[str, Array]
    fake: Mapping[str, Array]
    cycled: Mapping[str, Array]
    same: Mapping[str, Array]
    scores: Mapping[str, Logits]


def adversarial(outputs: Outputs, gan: str) -> dict[str, Array]:
    """How far a discriminator is from taking fakes for real, by generator (paper, 3.1)."""
    maker = {'a': 'b2a', 'b': 'a2b'}
    return {
        maker[domain]: generator_adversarial(gan, logits)
        for domain, logits in outputs.scores.items()
    }


def cycle(outputs: Outputs, gan: str) -> dict[str, Array]:
    """How far the way there and back is from where it began (paper, 3.2)."""
    return {domain: l1(outputs.cycled[domain], outputs.real[domain]) for domain in outputs.cycled}


def identity(outputs: Outputs, gan: str) -> dict[str, Array]:
    """How far a generator changes what is of its target domain already (paper, 5.2)."""
    return {domain: l1(outputs.same[domain], outputs.real[domain]) for domain in outputs.same}


# The generators' loss is the sum of these, each times `<name>_weight` of the config.
TERMS = {'adversarial': adversarial, 'cycle': cycle, 'identity': identity}


def generator_terms(
    outputs: Outputs,
    gan: str,
    weights: Mapping[str, float],
    factors: Mapping[str, Array] | None = None,
) -> dict[str, Array]:
    """{'cycle_a': ..., ..., 'total': ...}: each term as it enters the total, and the total.

    A term of weight 0 is left out: it would cost time and change nothing.

    Args:
      gan: one of KINDS.
      weights: by name of the term.
      factors: of the weights of some terms, where these change while training.
    """
    now = {**weights, **{name: weights[name] * f for name, f in (factors or {}).items()}}
    terms = {
        f'{name}_{part}': now[name] * loss
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


def relaxing_terms(loss: Mapping) -> dict[str, float]:
    """The share of its weight that each of TERMS ends at which relaxes, from `config.loss`.

    Raises:
      UserError: a last weight that is not a number, or of a term that has no weight before.
    """
    ends = {name: loss.get(f'{name}_weight_end') for name in TERMS}
    for name, end in ends.items():
        weight = loss[f'{name}_weight']
        if end is not None and not (0 <= end < math.inf and weight):
            raise UserError(
                f'loss.{name}_weight_end is {end}, and loss.{name}_weight {weight}; the first must '
                'be 0 or a positive number, the other a positive one.'
            )
    return {n: end / loss[f'{n}_weight'] for n, end in ends.items() if end is not None}


def penalty_weight(loss: Mapping) -> float:
    """That of `gradient_penalty`, from `config.loss`; raises UserError if it is no number."""
    weight = loss.get('penalty_weight', 0.0)
    if not 0 <= weight < math.inf:
        raise UserError(f'loss.penalty_weight is {weight}; it must be 0 or a positive number.')
    return weight


def gradient_penalty(judge: Callable[[Array], Logits], images: Array) -> Array:
    """How steep a discriminator is: the mean over images of its gradient's squared norm.

    The gradient of the mean of its logits. Zero-centred, where WGAN-GP's is centred on 1 (Mescheder
    et al. 2018); at mixes of real and generated images, as UVCGAN v2 has it.

    Args:
      judge: from images to logits; it must judge each image by itself.
      images: (n, h, w, c).
    """

    def summed(images):
        return images.shape[0] * over_scales(jnp.mean, judge(images))

    return jnp.sum(jnp.square(jax.grad(summed)(images))) / images.shape[0]


def over_scales(function: Callable[..., Array], *logits: Logits) -> Array:
    """The mean, over the scales that a discriminator judges, of a function of the logits of one."""
    first, *others = (function(*each) for each in zip(*map(jax.tree.leaves, logits), strict=True))
    return sum(others, first) / (1 + len(others)) if others else first


def generator_adversarial(kind: str, fake: Logits) -> Array:
    """How far the discriminator is from taking fakes for real.

    Args:
      kind: 'lsgan' (Mao et al. 2017: squared distance of the logits to 1), 'vanilla' (Goodfellow
        et al. 2014: cross-entropy, the non-saturating form) or 'hinge' (Lim and Ye 2017).
      fake: the discriminator's logits of generated images, any shape.
    """

    def loss(fake):
        if kind == 'lsgan':
            return jnp.mean(jnp.square(fake - 1))
        if kind == 'vanilla':
            return jnp.mean(jax.nn.softplus(-fake))
        assert kind == 'hinge', kind
        return -jnp.mean(fake)

    return over_scales(loss, fake)


def discriminator_adversarial(kind: str, real: Logits, fake: Logits) -> Array:
    """How badly a discriminator tells real from fake; halved, to slow it (paper, 7.1).

    Args:
      kind: as in `generator_adversarial`.
      real: logits of real images, any shape.
      fake: logits of generated images, any shape.
    """

    def loss(real, fake):
        if kind == 'lsgan':
            return jnp.mean(jnp.square(real - 1)) + jnp.mean(jnp.square(fake))
        if kind == 'vanilla':
            return jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))
        assert kind == 'hinge', kind
        return jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake))

    return 0.5 * over_scales(loss, real, fake)


def l1(x: Array, y: Array) -> Array:
    """Mean absolute difference."""
    return jnp.mean(jnp.abs(x - y))
