"""The schedule, value by value, and what a fresh state looks like."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cyclegan_jax import networks, train_state


def rates(num_epochs, decay_start_epoch, steps_per_epoch=1):
    schedule = train_state.learning_rate_schedule(
        1.0,
        num_epochs=num_epochs,
        decay_start_epoch=decay_start_epoch,
        steps_per_epoch=steps_per_epoch,
    )
    return np.asarray(schedule(jnp.arange(num_epochs * steps_per_epoch)))


def test_schedule_is_the_references_in_every_epoch():
    """1 - max(0, k + 1 - 100) / 101 with k epochs finished: 100 times 1, then 100/101 to 1/101."""
    expected = [1.0] * 100 + [i / 101 for i in range(100, 0, -1)]
    np.testing.assert_allclose(rates(200, 100), expected, rtol=1e-6)


def test_schedule_of_a_short_run_by_hand():
    np.testing.assert_allclose(rates(4, 2), [1, 1, 2 / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(rates(3, 0), [3 / 4, 2 / 4, 1 / 4], rtol=1e-6)


def test_schedule_changes_between_epochs_only():
    np.testing.assert_array_equal(rates(4, 2, steps_per_epoch=5), np.repeat(rates(4, 2), 5))


def test_schedule_is_constant_without_a_decay():
    np.testing.assert_array_equal(rates(7, 7), 1)


def test_schedule_never_turns_negative_past_the_last_epoch():
    schedule = train_state.learning_rate_schedule(
        1.0, num_epochs=2, decay_start_epoch=1, steps_per_epoch=1
    )
    assert schedule(100) == 0


@pytest.fixture(scope='module')
def state():
    nets = networks.make_networks(
        {'a': 3, 'b': 3}, {'width': 4, 'num_blocks': 1}, {'width': 4, 'num_layers': 2}
    )
    shapes = {'a': (2, 32, 32, 3), 'b': (2, 32, 32, 3)}
    create = lambda key: train_state.create(
        nets, optax.adam(1.0), key, image_shapes=shapes, pool_size=4
    )
    return jax.jit(create)(jax.random.key(0))


def test_the_four_networks_start_from_different_weights(state):
    for pair in (state.generators, state.discriminators):
        one, other = (jax.tree.leaves(params) for params in pair.values())
        kernels = [(x, y) for x, y in zip(one, other, strict=True) if x.ndim == 4]
        assert kernels and all((x != y).mean() > 0.99 for x, y in kernels)


def test_a_fresh_state_is_at_step_0_with_empty_pools(state):
    assert state.step == 0
    assert set(state.pools) == {'a', 'b'}
    assert not any(pool.images.any() or pool.count for pool in state.pools.values())
