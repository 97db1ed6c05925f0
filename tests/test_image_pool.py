"""The pool against the reference's rules, image by image, and its statistics."""

import jax
import jax.numpy as jnp
import numpy as np

from cyclegan_jax.image_pool import ImagePool


def run(size, batch, steps):
    """Feeds images whose every pixel is their number; returns what came back, (steps, batch)."""
    pool = ImagePool.create(size, (batch, 2, 2, 1))
    query = jax.jit(ImagePool.query)
    numbers = np.arange(steps * batch, dtype=np.float32).reshape(steps, batch)
    returned, pools = [], []
    for step, row in enumerate(numbers):
        images = jnp.broadcast_to(row[:, None, None, None], (batch, 2, 2, 1))
        pool, images = query(pool, images, jax.random.key(step))
        returned.append(np.asarray(images[:, 0, 0, 0]))
        pools.append(np.asarray(pool.images[:, :, 0, 0, 0]))
    return numbers, np.array(returned), np.array(pools)


def test_returns_and_stores_everything_until_it_is_full():
    numbers, returned, pools = run(size=8, batch=1, steps=8)
    np.testing.assert_array_equal(returned, numbers)
    np.testing.assert_array_equal(pools[-1], numbers.T)


def test_follows_the_references_rules_once_full():
    """An image is either returned and forgotten, or stored in the place of the one returned."""
    numbers, returned, pools = run(size=4, batch=1, steps=200)
    for step in range(4, 200):
        before, after, new = pools[step - 1, 0], pools[step, 0], numbers[step, 0]
        if returned[step, 0] == new:
            np.testing.assert_array_equal(after, before)
        else:
            [place] = np.nonzero(before != after)[0]
            assert returned[step, 0] == before[place] and after[place] == new


def test_half_of_the_images_are_old_ones_from_anywhere_in_the_pool():
    numbers, returned, pools = run(size=4, batch=1, steps=2000)
    old = (returned != numbers)[4:, 0]
    assert abs(old.mean() - 0.5) < 0.05
    places = [
        np.nonzero(pools[s, 0] != pools[s - 1, 0])[0][0] for s in range(4, 2000) if old[s - 4]
    ]
    shares = np.bincount(places, minlength=4) / len(places)
    assert np.abs(shares - 0.25).max() < 0.05


def test_slots_of_a_batch_draw_for_themselves_and_never_mix():
    numbers, returned, pools = run(size=8, batch=4, steps=300)
    assert pools.shape[1:] == (4, 2), 'eight images in all, two for each slot'
    np.testing.assert_array_equal(returned % 4, numbers % 4)
    old = (returned != numbers)[10:]
    assert 0.2 < (old[:, 0] == old[:, 1]).mean() < 0.8, 'all slots drew the same'


def test_capacity_is_rounded_up_to_a_whole_number_of_batches():
    assert ImagePool.create(50, (8, 4, 4, 3)).images.shape == (8, 7, 4, 4, 3)
