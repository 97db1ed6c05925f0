"""Blur in place of strides: the windows, what they do to a shift, and who reads the networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from translate_fixtures import RESNET, check_only_onnx_has_it, random_network

from cyclegan_jax.interop import make_module
from cyclegan_jax.networks import make_discriminator, make_generator
from cyclegan_jax.ops import blur_down, blur_up


def rows(*values):
    """One image whose rows all have these values."""
    return jnp.broadcast_to(jnp.array(values, jnp.float32)[None, None, :, None], (1, 6, 6, 1))


def test_the_windows_are_those_of_the_reference():
    np.testing.assert_allclose(blur_down(rows(0, 0, 4, 0, 0, 0))[0, 0, :, 0], [0, 2, 0])
    np.testing.assert_allclose(blur_down(rows(0, 4, 0, 0, 0, 8))[0, 0, :, 0], [2, 1, 2])
    doubled = blur_up(rows(0, 0, 4, 0, 0, 0))
    assert doubled.shape == (1, 12, 12, 1)
    np.testing.assert_allclose(doubled[0, 5, :, 0], [0, 0, 0, 1, 3, 3, 1, 0, 0, 0, 0, 0])


@pytest.mark.parametrize('size', [(6, 8), (5, 7)])
def test_flat_stays_flat_and_sizes_are_halved_and_doubled(size):
    x = jnp.full((2, *size, 3), 0.5)
    halved = blur_down(x)
    assert halved.shape == (2, -(-size[0] // 2), -(-size[1] // 2), 3)
    np.testing.assert_allclose(halved, 0.5)
    np.testing.assert_allclose(blur_up(x), 0.5)


def test_stripes_of_a_pixel_become_grey_not_one_of_the_two():
    stripes = rows(1, -1, 1, -1, 1, -1)
    np.testing.assert_allclose(blur_down(stripes), 0, atol=1e-6)
    assert set(np.unique(stripes[:, ::2, ::2])) == {1}


@pytest.mark.parametrize('kind', ['patch', 'huggan', 'two_scale'])
def test_judges_give_as_many_answers_as_with_strides(kind):
    for side in (24, 31):
        image = jax.ShapeDtypeStruct((1, side, side + 3, 3), jnp.float32)
        shapes = []
        for downsample in ('stride', 'blur'):
            judge = make_discriminator(kind=kind, width=2, num_layers=2, downsample=downsample)
            output, params = jax.eval_shape(judge.init_with_output, jax.random.key(0), image)
            shapes.append((jax.tree.map(jnp.shape, output), jax.tree.map(jnp.shape, params)))
        assert shapes[0] == shapes[1]
        assert judge.torch_code is None


def test_blurred_generators_go_to_onnx_and_to_no_pytorch_code(tmp_path):
    network = random_network(spec=RESNET | {'downsample': 'blur', 'upsample': 'blur'})
    images = np.random.default_rng(0).uniform(-1, 1, (1, 16, 24, 3)).astype(np.float32)
    expected, loaded = check_only_onnx_has_it(network, images, tmp_path)
    assert loaded.spec['downsample'] == 'blur'
    strided = make_module('generator', RESNET, (3, 3)).apply({'params': network.params}, images)
    assert np.abs(strided - expected).max() > 1e-3


def test_a_blur_that_does_not_exist_is_told():
    with pytest.raises(ValueError, match=r"generator.downsample is 'pool'"):
        make_generator(3, downsample='pool')
    with pytest.raises(ValueError, match=r"discriminator.downsample is 'pool'"):
        make_discriminator(downsample='pool')
