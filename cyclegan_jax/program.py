"""What a config computes on a mesh, before any array exists."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import optax
from absl import logging
from jax.sharding import Mesh
from ml_collections import ConfigDict

from cyclegan_jax import checks, networks, ops, sharding, train_state, train_step
from cyclegan_jax.pixels import PHOTOGRAPHS, Pixels
from cyclegan_jax.train_state import TrainState

# So many pixels of a batch keep a CPU busy.
_PAIRED_PIXELS = 256 * 256
# On a CPU: less of the compiler's time, and the same bits. A step on many pixels may be slower.
_QUICKLY = {'xla_backend_optimization_level': 1}
# What runs once, beside the step's compilation, need not be fast. Weights differ in the last bit.
_FOR_ONCE = {'xla_backend_optimization_level': 0}


@dataclasses.dataclass(frozen=True)
class Program:
    """The computation of a run.

    networks: the four modules.
    schedule: from the number of finished updates to the learning rate of the next one.
    state: shapes of the state, each with the place where it lives.
    batch: shapes of a global batch {'a', 'b'}, of the types of their pixels.
    create: key -> the state before the first update, born in place.
    step: (state, batch) -> (state, metrics), jitted; donates the state.
    """

    networks: networks.Networks
    schedule: Callable
    state: TrainState
    batch: Mapping[str, jax.ShapeDtypeStruct]
    create: Callable[[jax.Array], TrainState]
    step: Callable


def make_networks(config: ConfigDict) -> networks.Networks:
    """The four modules of a config.

    Raises:
      UserError: a network that does not exist.
    """
    channels = {'a': config.data.channels_a, 'b': config.data.channels_b}
    return networks.make_networks(channels, config.generator, config.discriminator, config.dtype)


def make_program(
    config: ConfigDict,
    nets: networks.Networks,
    mesh: Mesh,
    image_size: tuple[int, int],
    steps_per_epoch: int,
    pixels: Mapping[str, Pixels] = MappingProxyType({'a': PHOTOGRAPHS, 'b': PHOTOGRAPHS}),
) -> Program:
    """The program of a run on images of (height, width).

    Args:
      pixels: what the images of {'a', 'b'} hold.

    Raises:
      UserError: a loss that does not exist, or networks that cannot take these images.
    """
    checks.check_image_size(nets, image_size)

    def falling_from(rate: float) -> Callable[[jax.Array], jax.Array]:
        return train_state.learning_rate_schedule(
            rate, **config.schedule, steps_per_epoch=steps_per_epoch
        )

    def adam(schedule: Callable) -> optax.GradientTransformation:
        return optax.adam(schedule, b1=config.optimizer.b1, b2=config.optimizer.b2)

    schedule = falling_from(config.optimizer.learning_rate)
    judges_rate = config.optimizer.discriminator_rate
    optimizer = adam(schedule)
    on_cpu = mesh.devices.flat[0].platform == 'cpu'
    quick = on_cpu and not jax.config.read('jax_disable_most_optimizations')  # that is less yet
    images = config.batch_size // mesh.size // config.accumulate
    # On a CPU a step at 128x128 takes 0.86 times as long in pairs, of a batch of 4 1.3 times.
    pair_calls = not on_cpu or images * math.prod(image_size) < _PAIRED_PIXELS
    update = train_step.make_train_step(
        nets,
        optimizer,
        _loss(config, nets.channels),
        discriminator_optimizer=judges_rate and adam(falling_from(judges_rate)),
        decay=falling_from(1.0),
        augment=config.augment,
        average=config.average,
        accumulate=config.accumulate,
        pixels=pixels,
        pair_calls=pair_calls,
        in_turn=config.generator.remat or (on_cpu and not pair_calls),
    )

    def step(state: TrainState, batch: Mapping):
        with ops.devices(mesh.size):
            return update(state, batch)

    image_shapes = {d: (config.batch_size, *image_size, nets.channels[d]) for d in 'ab'}

    def create(key: jax.Array) -> TrainState:
        return train_state.create(
            nets,
            optimizer,
            key,
            image_shapes=image_shapes,
            pool_size=config.pool_size,
            average=config.average > 0,
        )

    # Shapes, then shardings, then arrays that are born where they live.
    shapes = jax.eval_shape(create, jax.random.key(0))
    places = train_state.state_sharding(mesh, shapes)
    split, replicated = sharding.split(mesh), sharding.replicated(mesh)

    def placed(leaf, place):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

    return Program(
        networks=nets,
        schedule=schedule,
        state=jax.tree.map(placed, shapes, places),
        batch={
            domain: jax.ShapeDtypeStruct(shape, pixels[domain].dtype, sharding=split)
            for domain, shape in image_shapes.items()
        },
        create=jax.jit(create, out_shardings=places, compiler_options=_FOR_ONCE if quick else None),
        step=jax.jit(
            step,
            donate_argnums=0,
            in_shardings=(places, split),
            out_shardings=(places, replicated),
            compiler_options=_QUICKLY if quick and pair_calls else None,
        ),
    )


def _loss(config: ConfigDict, channels: Mapping[str, int]) -> Mapping:
    """config.loss, without an identity loss between images that cannot be the same."""
    if channels['a'] == channels['b'] or not config.loss.identity_weight:
        return config.loss
    logging.info(
        'No identity loss: domain a has %d channels and b %d, so no image of the one can be one of '
        'the other.',
        channels['a'],
        channels['b'],
    )
    return {**config.loss, 'identity_weight': 0.0, 'identity_weight_end': None}
