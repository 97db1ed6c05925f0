"""One update of all four networks, as one pure function."""

import functools
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
import optax
from jax import lax

from cyclegan_jax import losses, ops
from cyclegan_jax.augmentation import make_augmentation
from cyclegan_jax.errors import UserError
from cyclegan_jax.networks import Networks
from cyclegan_jax.pixels import PHOTOGRAPHS, Pixels
from cyclegan_jax.train_state import TrainState

Array = jax.Array
Metrics = dict[str, Array]


def make_translate(
    generator, source: Pixels = PHOTOGRAPHS, target: Pixels = PHOTOGRAPHS
) -> Callable[[Mapping, Array], Array]:
    """Builds (params, stored images) -> stored images, to be jitted, of a generator module."""

    def translate(params: Mapping, images: Array) -> Array:
        return target.to_stored(generator.apply({'params': params}, source.to_float(images)))

    return translate


def make_train_step(
    networks: Networks,
    optimizer: optax.GradientTransformation,
    loss: Mapping,
    *,
    discriminator_optimizer: optax.GradientTransformation | None = None,
    decay: Callable[[Array], Array] | None = None,
    augment: str = '',
    average: float = 0.0,
    accumulate: int = 1,
    pixels: Mapping[str, Pixels] = MappingProxyType({'a': PHOTOGRAPHS, 'b': PHOTOGRAPHS}),
    pair_calls: bool,
    in_turn: bool,
) -> Callable[[TrainState, Mapping[str, Array]], tuple[TrainState, Metrics]]:
    """Builds the step, to be jitted: (state, {'a', 'b'}: (n, h, w, c)) -> (state, metrics).

    Both gradients are taken at the old parameters, and the discriminators see the fakes of the
    generators' own forward pass, through the pools: the reference's arithmetic.

    Args:
      loss: `gan`, one of `losses.KINDS`, the weight of each of `losses.TERMS` and what some of them
        end at, and the weight of the discriminators' `losses.gradient_penalty`, which is computed
        at each `penalty_every`th update, times that number (Karras et al. 2020, StyleGAN2).
      discriminator_optimizer: by default the same for all.
      decay: from the number of finished updates to what is left of a weight that relaxes: 1 to 0.
      augment: see `make_augmentation`: of all that discriminators see.
      average: share of `state.average` that stays at an update, once there were many; 0 for none.
      accumulate: parts that a batch is cut into, one after the other on the device, where the whole
        does not fit. The gradients are the mean over the parts: those of the whole batch. Each
        device's share of the batch must be a multiple. Only what is drawn, for dropout, `augment`
        and the penalty, differs.
      pixels: what the images of {'a', 'b'} hold.
      pair_calls: whether a network sees two batches in one call where it can (a generator its real
        and its identity batch, a discriminator real and fake). It is quicker where a batch alone is
        too small to keep the device busy.
      in_turn: whether what the one generator begins is done, gradients and all, before the other
        begins: nearly half of the memory.

    Returns:
      The step. Its metrics are float32 scalars: each loss term as it enters the total, the mean
      score that each discriminator gives, and the gradient's norm for each network.

    Raises:
      UserError: a loss that does not exist, or identity loss between unlike numbers of channels.
    """
    gan, weights = loss['gan'], losses.term_weights(loss)
    relaxing, penalty_weight = losses.relaxing_terms(loss), losses.penalty_weight(loss)
    penalty_every = loss.get('penalty_every', 1)
    disturb = make_augmentation(augment)
    channels = networks.channels
    if weights['identity'] and channels['a'] != channels['b']:
        raise UserError(
            f'loss.identity_weight is {weights["identity"]}, but domain a has {channels["a"]} '
            f'channels and b has {channels["b"]}: a generator cannot keep an image of the other '
            'kind; set loss.identity_weight to 0.'
        )

    def call(network, params, *batches, **kwargs):
        """The network's output for each batch, in one call if that pays."""

        if not pair_calls:
            return [_apply(network, params, x, **kwargs) for x in batches]
        # Interleaved, not concatenated, so that the batch stays split over the devices as it is.
        x = jnp.stack(batches, axis=1).reshape(-1, *batches[0].shape[1:])
        y = _apply(network, params, x, **kwargs)
        y = jax.tree.map(lambda y: y.reshape(-1, len(batches), *y.shape[1:]), y)
        return [jax.tree.map(lambda y, i=i: y[:, i], y) for i in range(len(batches))]

    def discriminate(params, domain, *batches):
        return call(networks.discriminators[domain], params[domain], *batches)

    def step(state: TrainState, batch: Mapping[str, Array]) -> tuple[TrainState, Metrics]:
        step_key = jax.random.fold_in(state.key, state.step)

        def key_for(name: str, part: Array | int | None = None) -> Array:
            key = jax.random.fold_in(step_key, zlib.crc32(name.encode()))
            return key if part is None else jax.random.fold_in(key, part)

        def now_and_then(penalty):
            """At each `penalty_every`th update, and then as often."""
            due = state.step % penalty_every == 0
            rare = lambda images: penalty_every * penalty(images)
            return lambda images: lax.cond(due, rare, lambda _: jnp.zeros(()), images)

        factors = {name: end + (1 - end) * decay(state.step) for name, end in relaxing.items()}

        def generator_gradients(batch, part):
            real = {domain: pixels[domain].to_float(images) for domain, images in batch.items()}

            def generate(params, direction, purpose, *batches):
                key = key_for(f'{direction}/{purpose}', part if accumulate > 1 else None)
                network = networks.generators[direction]
                return call(network, params[direction], *batches, train=True, rngs={'dropout': key})

            def total(params, real, domain, other):
                """Of what one generator makes of a batch, and of the way back from there."""
                target = [real[other]] if weights['identity'] else []
                way = f'{domain}2{other}', f'{other}2{domain}'
                fake, *same = generate(params, way[0], 'fake', real[domain], *target)
                [cycled] = generate(params, way[1], 'cycle', fake)
                seen = disturb(fake, key_for(f'seen/{other}', part))
                [scores] = discriminate(state.discriminators, other, seen)
                outputs = losses.Outputs(
                    real=real,
                    fake={other: fake},
                    cycled={domain: cycled},
                    same={other: same[0]} if same else {},
                    scores={other: scores},
                )
                terms = losses.generator_terms(outputs, gan, weights, factors)
                return terms['total'], (terms, outputs.fake)

            gradients = jax.grad(total, has_aux=True)
            grads, (terms, fakes) = gradients(state.generators, real, 'a', 'b')
            if in_turn:
                real = ops.after(grads, real)
            grads_b, (terms_b, fakes_b) = gradients(state.generators, real, 'b', 'a')
            terms_b['total'] += terms['total']
            grads = jax.tree.map(jnp.add, grads, grads_b)
            return (grads, {**terms, **terms_b}), {**fakes, **fakes_b}

        (generator_grads, terms), fakes = _by_parts(generator_gradients, batch, accumulate)

        pools = {}
        for domain, pool in state.pools.items():
            key = key_for(f'pool/{domain}')
            pools[domain], fakes[domain] = pool.query(fakes[domain], key)

        def discriminator_gradients(batches, part):
            batch, fakes = batches

            def total(params):
                terms, scores = {}, {}
                for domain, images in batch.items():
                    real = pixels[domain].to_float(images)
                    seen = disturb(real, key_for(f'seen_real/{domain}', part))
                    seen_fake = disturb(fakes[domain], key_for(f'seen_fake/{domain}', part))
                    real, fake = discriminate(params, domain, seen, seen_fake)
                    terms[domain] = losses.discriminator_adversarial(gan, real, fake)
                    scores[f'real_{domain}'] = losses.over_scales(jnp.mean, real)
                    scores[f'fake_{domain}'] = losses.over_scales(jnp.mean, fake)
                    if penalty_weight:
                        key = key_for(f'mix/{domain}', part)
                        share = jax.random.uniform(key, (seen.shape[0], 1, 1, 1))
                        mixed = share * seen + (1 - share) * seen_fake
                        judge = lambda x, domain=domain: discriminate(params, domain, x)[0]
                        penalty = functools.partial(losses.gradient_penalty, judge)
                        if penalty_every > 1:
                            penalty = now_and_then(penalty)
                        terms[f'penalty_{domain}'] = penalty_weight * penalty(mixed)
                return sum(terms.values()), (terms, scores)

            grads, (terms, scores) = jax.grad(total, has_aux=True)(state.discriminators)
            return (grads, terms, scores), ()

        (discriminator_grads, judged, scores), () = _by_parts(
            discriminator_gradients, (batch, fakes), accumulate
        )

        # After the gradients of a network's calls are added up: once, not for each call.
        generator_grads, discriminator_grads = ops.in_own_layout(
            (generator_grads, discriminator_grads)
        )
        generators, generator_opt = _update(
            optimizer, generator_grads, state.generator_opt, state.generators
        )
        discriminators, discriminator_opt = _update(
            discriminator_optimizer or optimizer,
            discriminator_grads,
            state.discriminator_opt,
            state.discriminators,
        )
        metrics = {
            **{f'generator/{name}': term for name, term in terms.items()},
            **{f'discriminator/{name}': term for name, term in judged.items()},
            **{f'score/{name}': score for name, score in scores.items()},
        }
        for name, grads in {**generator_grads, **discriminator_grads}.items():
            metrics[f'gradient_norm/{name}'] = _norm(grads)
        state = state.replace(
            step=state.step + 1,
            generators=generators,
            discriminators=discriminators,
            generator_opt=generator_opt,
            discriminator_opt=discriminator_opt,
            pools=pools,
        )
        if average:
            state = state.replace(average=_averaged(state.average, generators, average, state.step))
        return state, metrics

    return step


@functools.partial(jax.jit, static_argnames=('network', 'train'))
def _apply(network, params, x: Array, **kwargs) -> Array:
    # Jitted only so that a network is traced once, not at each of its calls: it halves the time.
    return network.apply({'params': params}, x, **kwargs)


def _by_parts(function, batch, parts: int):
    """Calls `function(part of the batch, its number) -> (means, images)` on each part in turn.

    Returns:
      The mean of the means, and the images of all parts in the order of the batch.
    """
    if parts == 1:
        return function(batch, 0)

    # Image i goes to part i % parts, so that every device takes each part from its own images.
    def split(x: Array) -> Array:
        return jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0)

    def join(x: Array) -> Array:
        return jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:])

    def add(sums, part):
        means, images = function(*part)
        return jax.tree.map(jnp.add, sums, means), images

    batch = jax.tree.map(split, batch)
    means, _ = jax.eval_shape(function, jax.tree.map(lambda x: x[0], batch), 0)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), means)
    sums, images = lax.scan(add, zeros, (batch, jnp.arange(parts)))
    return jax.tree.map(lambda x: x / parts, sums), jax.tree.map(join, images)


def _averaged(average, params, share: float, step: Array):
    """The moving average after so many updates.

    Its half-life is at most the last 20th of the updates (Karras et al. 2020, StyleGAN2-ADA): with
    a large share alone, the first weights would be seen in it for many epochs.
    """
    share = jnp.minimum(share, 0.5 ** (20 / step))
    return optax.incremental_update(params, average, 1 - share)


def _norm(gradients) -> Array:
    """Of all arrays as one vector.

    Rows are summed where the optimizer reads them, and their sums kept apart: one array at a time,
    as by `optax.tree.norm`, would be a kernel more on a GPU for each.
    """
    rows = [jnp.sum(jnp.square(x), -1).ravel() for x in jax.tree.leaves(gradients)]
    return jnp.sqrt(jnp.sum(lax.optimization_barrier(jnp.concatenate(rows))))


def _update(optimizer, grads, opt_state, params):
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state
