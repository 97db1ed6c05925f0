"""All that training changes, how it starts, and how the learning rate falls."""

from collections.abc import Callable, Mapping

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from cyclegan_jax import sharding
from cyclegan_jax.image_pool import ImagePool
from cyclegan_jax.networks import Networks

Array = jax.Array


@flax.struct.dataclass
class TrainState:
    """One value that is the whole run; everything in it is saved.

    step: int32, the number of finished updates.
    generators: parameters {'a2b', 'b2a'}; discriminators: parameters {'a', 'b'}.
    generator_opt, discriminator_opt: one Adam over both generators, one over both discriminators.
    pools: {'a', 'b'}: the fakes of each domain that its discriminator is shown; {} without pools.
    key: constant. What step t draws is a function of (key, t), so a resumed run draws the same.
    average: the generators' moving average {'a2b', 'b2a'}; {} where none is kept.
    """

    step: Array
    generators: dict
    discriminators: dict
    generator_opt: optax.OptState
    discriminator_opt: optax.OptState
    pools: dict[str, ImagePool]
    key: Array
    average: dict = flax.struct.field(
        default_factory=dict, metadata={'later': lambda fields: fields['generators']}
    )

    @property
    def shown(self) -> dict:
        """The generators that samples and scores are of: the average, where there is one."""
        return self.average or self.generators


def learning_rate_schedule(
    learning_rate: float, *, num_epochs: int, decay_start_epoch: int, steps_per_epoch: int
) -> Callable[[Array], Array]:
    """The reference's: constant for `decay_start_epoch` epochs, then linear, once an epoch.

    Epoch e, counted from 1, has the factor 1 - max(0, e - start) / (num_epochs - start + 1): the
    last of 200 epochs still learns at 1/101 of the full rate. `decay_start_epoch = num_epochs`
    keeps the rate constant.

    Returns:
      A function from the number of finished updates, a traced one or an int, to the rate of the
      next one.
    """

    def schedule(step):
        # Without jnp, each function of which would be a program to compile where step is an int.
        past = step // steps_per_epoch + 1 - decay_start_epoch
        factor = 1 - (past > 0) * past / (num_epochs - decay_start_epoch + 1)
        return learning_rate * (factor > 0) * factor

    return schedule


def create(
    networks: Networks,
    optimizer: optax.GradientTransformation,
    key: Array,
    *,
    image_shapes: Mapping[str, tuple[int, int, int, int]],
    pool_size: int,
    average: bool = False,
) -> TrainState:
    """The state before the first update; the four networks start from different keys.

    Args:
      image_shapes: (n, h, w, c) of the batches of domain 'a' and 'b', n being the global batch.
      pool_size: images of history for each domain; 0 for none.
      average: whether the generators' moving average is kept.
    """
    state_key, *keys = jax.random.split(key, 5)

    def init(network, key, domain):
        return network.init(key, jnp.zeros((1, *image_shapes[domain][1:])))['params']

    generators = {
        'a2b': init(networks.generators['a2b'], keys[0], 'a'),
        'b2a': init(networks.generators['b2a'], keys[1], 'b'),
    }
    discriminators = {
        'a': init(networks.discriminators['a'], keys[2], 'a'),
        'b': init(networks.discriminators['b'], keys[3], 'b'),
    }
    pools = {d: ImagePool.create(pool_size, image_shapes[d]) for d in 'ab'} if pool_size else {}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        generators=generators,
        discriminators=discriminators,
        generator_opt=optimizer.init(generators),
        discriminator_opt=optimizer.init(discriminators),
        pools=pools,
        key=state_key,
        average=_copy(generators) if average else {},
    )


def replace_networks(state: TrainState, params: Mapping) -> TrainState:
    """The state before the first update, with some of its networks already trained.

    Args:
      params: parameters by name of the network, 'a2b', 'b2a', 'a', 'b', or some of them.
    """

    def replace(networks: dict) -> dict:
        return {name: params.get(name, own) for name, own in networks.items()}

    generators = replace(state.generators)
    return state.replace(
        generators=generators,
        discriminators=replace(state.discriminators),
        average=_copy(generators) if state.average else {},
    )


def _copy(tree):
    # The step donates the state, and cannot donate a buffer twice.
    return jax.tree.map(jnp.copy, tree)


def state_sharding(mesh: Mesh, state: TrainState) -> TrainState:
    """For each leaf of a state, or of its shapes, where it lives."""
    everywhere = jax.tree.map(lambda _: sharding.replicated(mesh), state)
    pools = {
        domain: pool.replace(images=sharding.split(mesh))
        for domain, pool in everywhere.pools.items()
    }
    return everywhere.replace(pools=pools)
