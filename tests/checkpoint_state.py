"""What the tests of checkpoints save: the shape of a TrainState, in small.

There are 8 pool slots over up to 8 devices.
"""

import flax.struct
import jax
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from cyclegan_jax.checkpoint import CheckpointError, Checkpoints

METADATA = {'config': {'generator': {'width': 4}}, 'batches': {'next_index': 7}}
OPTIMIZER = optax.adam(lambda step: 0.1 / (step + 1), b1=0.5)


@flax.struct.dataclass
class Pool:
    images: jax.Array
    count: jax.Array


@flax.struct.dataclass
class State:
    step: jax.Array
    generators: dict
    discriminators: dict
    generator_opt: optax.OptState
    discriminator_opt: optax.OptState
    pools: dict
    key: jax.Array


def create(seed, width):
    """On the host; the key as its data."""
    rng = np.random.default_rng(seed)

    def params(*names):
        kernels = rng.standard_normal((len(names), 3, width), np.float32)
        return {
            name: {'conv': {'kernel': kernel, 'bias': np.zeros(width, np.float32)}}
            for name, kernel in zip(names, kernels, strict=True)
        }

    generators, discriminators = params('a2b', 'b2a'), params('a', 'b')
    images = rng.random((2, 8, 2, 16, 16, 3), np.float32)
    return State(
        step=np.int32(seed),
        generators=generators,
        discriminators=discriminators,
        generator_opt=OPTIMIZER.init(generators),
        discriminator_opt=OPTIMIZER.init(discriminators),
        pools={name: Pool(images[i], np.int32(seed)) for i, name in enumerate('ab')},
        key=np.asarray([seed, 17], np.uint32),
    )


def make(seed=0, devices=None, width=4):
    """On the devices (all by default), also where they belong to several processes."""
    host = create(seed, width)
    devices = devices or jax.devices()
    mesh = jax.make_mesh((len(devices),), ('data',), (AxisType.Auto,), devices=devices)

    def put(leaf, *axes):
        sharding = NamedSharding(mesh, PartitionSpec(*axes))
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    state = jax.tree.map(put, host)
    pools = {k: Pool(put(pool.images, 'data'), put(pool.count)) for k, pool in host.pools.items()}
    return state.replace(pools=pools, key=jax.random.wrap_key_data(state.key))


def abstract(**kwargs):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), make(**kwargs)
    )


@jax.jit
def update(state):
    """Changes every leaf but the key, and two updates do not commute."""
    updates, generator_opt = OPTIMIZER.update(state.generators, state.generator_opt)
    return state.replace(
        step=state.step + 1,
        generators=optax.apply_updates(state.generators, updates),
        discriminators=jax.tree.map(lambda x: 0.9 * x + state.step, state.discriminators),
        generator_opt=generator_opt,
        pools=jax.tree.map(lambda x: x + 1, state.pools),
    )


def equal(left, right):
    """Whether two trees of arrays are the same, bit by bit; of this process's part of them."""

    def parts(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        if leaf.is_fully_addressable:
            return [np.asarray(leaf)]
        return [np.asarray(shard.data) for shard in leaf.addressable_shards]

    assert jax.tree.structure(left) == jax.tree.structure(right)
    return all(
        x.dtype == y.dtype and all(map(np.array_equal, parts(x), parts(y)))
        for x, y in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    )


@pytest.fixture
def checkpoints(tmp_path):
    checkpoints = Checkpoints(tmp_path / 'checkpoints', keep=3)
    yield checkpoints
    checkpoints.close()


@pytest.fixture
def two(checkpoints):
    """Checkpoints of the states with seed 1 and 2, at steps 1 and 2."""
    for step in (1, 2):
        checkpoints.save(step, make(step), METADATA | {'saved_at': step})
    checkpoints.wait()
    return checkpoints


def message(call, *args):
    with pytest.raises(CheckpointError) as info:
        call(*args)
    assert '\n' not in str(info.value)
    return str(info.value)
