"""What discriminators see: which disturbances there are, and that learning goes through them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cyclegan_jax import augmentation
from cyclegan_jax.augmentation import KINDS, make_augmentation
from cyclegan_jax.errors import UserError

IMAGES = jax.random.uniform(jax.random.key(0), (64, 16, 24, 3), minval=-1)
KEY = jax.random.key(1)


@functools.cache
def disturbed(names):
    return np.asarray(jax.jit(make_augmentation(names))(IMAGES, KEY))


def per_image(values):
    """The one number of each image, and that there is but one."""
    values = np.asarray(values).reshape(len(IMAGES), -1)
    np.testing.assert_allclose(values, np.broadcast_to(values[:, :1], values.shape), atol=2e-3)
    assert len(np.unique(values[:, 0])) > 50, 'each image draws its own'
    return values[:, 0]


def test_brightness_adds_up_to_a_half():
    added = per_image(disturbed('brightness') - IMAGES)
    assert -0.5 <= added.min() < -0.4 and 0.4 < added.max() <= 0.5


def ratio(names, axis):
    """By how much the distances from the mean over some axes are stretched."""
    before, after = (
        x - x.mean(axis, keepdims=True) for x in (np.asarray(IMAGES), disturbed(names))
    )
    return per_image(np.sqrt(np.square(after).sum(axis) / np.square(before).sum(axis)))


def test_saturation_stretches_colours_and_keeps_the_grey_of_each_pixel():
    np.testing.assert_allclose(disturbed('saturation').mean(3), IMAGES.mean(3), atol=1e-6)
    factor = ratio('saturation', axis=(3,))
    assert 0 <= factor.min() < 0.2 and 1.8 < factor.max() <= 2


def test_contrast_stretches_values_and_keeps_the_mean_of_the_image():
    axis = (1, 2, 3)
    np.testing.assert_allclose(disturbed('contrast').mean(axis), IMAGES.mean(axis), atol=1e-6)
    factor = ratio('contrast', axis)
    assert 0.5 <= factor.min() < 0.6 and 1.4 < factor.max() <= 1.5


def test_a_shift_moves_by_up_to_an_eighth_and_fills_with_zeros():
    moves = set()
    for before, after in zip(np.asarray(IMAGES), disturbed('shift'), strict=True):
        padded = np.pad(before, ((4, 4), (6, 6), (0, 0)))
        places = [
            (y, x)
            for y, x in np.ndindex(9, 13)
            if np.array_equal(padded[y : y + 16, x : x + 24], after)
        ]
        assert len(places) == 1
        moves |= {(places[0][0] - 4, places[0][1] - 6)}
    assert {abs(y) for y, _ in moves} == {0, 1, 2} and {abs(x) for _, x in moves} == {0, 1, 2, 3}


def test_none_changes_nothing_and_all_are_one_after_the_other():
    assert (disturbed('') == IMAGES).all()
    images = IMAGES
    for number, disturb in enumerate(KINDS.values()):
        images = disturb(images, jax.random.fold_in(KEY, number))
    everything = disturbed(' shift,brightness, saturation,contrast')
    np.testing.assert_allclose(everything, images, atol=1e-5)


@pytest.mark.parametrize('name', KINDS)
def test_gradients_go_through(name):
    """Each is a linear map and a constant: along its gradient a sum grows as the gradient says."""
    images = IMAGES[:2]
    weights = jax.random.normal(jax.random.key(2), images.shape)
    score = jax.jit(lambda x: jnp.vdot(weights, KINDS[name](x, KEY)))
    gradient = jax.jit(jax.grad(score))(images)
    np.testing.assert_allclose(
        score(images + gradient) - score(images), jnp.vdot(gradient, gradient), rtol=1e-3
    )
    assert jnp.vdot(gradient, gradient) > 100


def test_grey_images_and_a_mistake():
    grey = augmentation.saturation(IMAGES[..., :1], KEY)
    np.testing.assert_allclose(grey, IMAGES[..., :1], atol=1e-6)
    with pytest.raises(UserError, match=r"augment is 'cutout'"):
        make_augmentation('shift,cutout')
