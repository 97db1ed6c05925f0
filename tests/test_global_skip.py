"""Generators that compute what is added to the image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from translate_fixtures import RESNET, check_only_onnx_has_it, random_network

from cyclegan_jax.errors import UserError
from cyclegan_jax.networks import make_generator, make_networks
from cyclegan_jax.networks.resnet import SKIPPED

SKIP = RESNET | {'global_skip': True}
IMAGES = np.random.default_rng(0).uniform(-1, 1, (1, 16, 24, 3)).astype(np.float32)


def silenced(network):
    """The parameters, but for a last layer that says nothing."""
    params = dict(network.params)
    params['out'] = jax.tree.map(jnp.zeros_like, params['out'])
    return params


def test_a_generator_that_adds_nothing_gives_the_image():
    network = random_network(spec=SKIP)
    images = IMAGES.copy()
    images[0, 0, 0], images[0, 0, 1] = 1, -1.5  # the ends, and beyond
    found = network.module().apply({'params': silenced(network)}, images)
    np.testing.assert_allclose(found, SKIPPED * images.clip(-1, 1), atol=1e-6)


def test_gradients_are_finite_at_the_ends_of_the_range():
    network = random_network(spec=SKIP)
    loss = lambda images: jnp.sum(network.module().apply({'params': network.params}, images))
    gradient = jax.grad(loss)(np.sign(IMAGES))
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_it_goes_to_onnx_and_to_no_pytorch_code(tmp_path):
    network = random_network(spec=SKIP)
    expected, loaded = check_only_onnx_has_it(network, IMAGES, tmp_path)
    assert loaded.spec['global_skip'] is True
    without = random_network(spec=RESNET).module().apply({'params': network.params}, IMAGES)
    assert np.abs(without - expected).max() > 0.1


def test_it_is_refused_where_it_cannot_be():
    with pytest.raises(UserError, match='domain a has 1 channels and b 3; set it False'):
        make_networks({'a': 1, 'b': 3}, {'global_skip': True}, {})
    with pytest.raises(UserError, match="global_skip is True, but kind 'unet' does not have it"):
        make_generator(3, kind='unet', global_skip=True)
