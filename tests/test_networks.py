"""Shapes, parameter counts, receptive fields, and what a generator may be asked for."""

import collections
import functools
import importlib
import pkgutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import configs
from cyclegan_jax import interop, networks
from cyclegan_jax.errors import UserError
from cyclegan_jax.inference import exporting
from cyclegan_jax.inference.translator import Translator
from cyclegan_jax.networks import resnet
from cyclegan_jax.ops import norm

# Parameters of (one generator, one discriminator). The reference's networks have as many, and the
# biases that its instance norms remove: 5,248 (9 blocks), 3,712 (6 blocks) and 4,928 (U-Net), and
# 896 in each discriminator.
COUNTS = {
    'default': (11_372_931, 2_763_841),
    'horse2zebra': (11_372_931, 2_763_841),
    'facades': (11_372_931, 2_763_841),
    'maps': (11_372_931, 2_763_841),
    'monet': (11_372_931, 2_763_841),
    'improved': (11_372_931, 2_763_841),
    'bald': (11_372_931, 2_763_841),
    'sim2real': (11_372_931, 2_763_841),
    'nft': (11_372_931, 2_763_841),
    'anime': (54_404_675, 2_763_841),
    'synthetic': (198_243, 42_769),
}


def count(network, size=256):
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def output_shape(network, *shape):
    x = jnp.zeros(shape)
    return jax.eval_shape(lambda: network.init_with_output(jax.random.key(0), x)[0]).shape


def test_the_table_covers_every_config():
    assert set(COUNTS) == {module.name for module in pkgutil.iter_modules(configs.__path__)}


@pytest.mark.parametrize('name', COUNTS)
def test_parameter_counts(name):
    config = importlib.import_module(f'configs.{name}').get_config()
    nets = networks.make_networks(
        {'a': 3, 'b': 3}, config.generator, config.discriminator, config.dtype
    )
    counts = count(nets.generators['a2b']), count(nets.discriminators['a'])
    assert counts == COUNTS[name], 'If the architecture was meant to change, update the table.'


@pytest.mark.parametrize(
    ('kwargs', 'reference_count', 'biases'),
    [
        ({'num_blocks': 9}, 11_378_179, 5_248),
        ({'num_blocks': 6}, 7_837_699, 3_712),
        ({'upsample': 'nearest'}, 11_378_179, 5_248),
        ({'kind': 'unet', 'num_downs': 8}, 54_409_603, 4_928),
        ({'kind': 'unet', 'num_downs': 7}, 41_825_667, 3_904),
    ],
)
def test_generators_have_the_references_parameters_but_the_idle_biases(
    kwargs, reference_count, biases
):
    assert count(networks.make_generator(3, **kwargs)) == reference_count - biases


def test_discriminators_have_the_references_parameters_but_the_idle_biases():
    assert count(networks.make_discriminator()) == 2_764_737 - 896
    assert count(networks.make_discriminator(kind='huggan')) == 2_764_737 - 896
    assert count(networks.make_discriminator(kind='pixel')) == 8_705 - 128


@pytest.mark.parametrize('kind', ['resnet', 'unet'])
def test_generators_keep_the_size_and_change_the_channels(kind):
    generator = networks.make_generator(1, kind=kind, width=4, num_downs=5)
    multiple = generator.size_multiple
    assert output_shape(generator, 2, 2 * multiple, 3 * multiple, 3) == (
        2, 2 * multiple, 3 * multiple, 1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ('kind', 'sizes'),
    [
        ('patch', {128: 14, 256: 30, 512: 62}),
        ('huggan', {128: 8, 256: 16, 512: 32}),
        ('pixel', {128: 128}),
    ],
)
def test_discriminator_output_sizes(kind, sizes):
    network = networks.make_discriminator(kind=kind, width=4)
    for size, expected in sizes.items():
        assert output_shape(network, 1, size, size, 3) == (1, expected, expected, 1)


@pytest.mark.parametrize(
    ('kwargs', 'field'),
    [({'num_layers': n}, f) for n, f in zip(range(1, 6), (16, 34, 70, 142, 286), strict=True)]
    + [({'kind': 'huggan'}, 94), ({'kind': 'pixel'}, 1)],
)
def test_receptive_field(kwargs, field, monkeypatch):
    """The pixels that one logit depends on, by the support of its gradient."""
    # A norm makes every pixel matter, so it is left out; positive weights cannot cancel.
    leaky_relu = lambda x, slope, near: nn.leaky_relu(x, slope)
    monkeypatch.setattr(norm, 'instance_norm', leaky_relu)
    network = networks.make_discriminator(width=1, **kwargs)
    x = jnp.ones((1, field + 64, field + 64, 1))
    params = jax.tree.map(jnp.ones_like, jax.eval_shape(network.init, jax.random.key(0), x))

    def logit(x):
        y = network.apply(params, x)
        return y[0, y.shape[1] // 2, y.shape[2] // 2, 0]

    seen = np.nonzero(np.asarray(jax.grad(logit)(x))[0, :, :, 0])
    assert [axis.max() - axis.min() + 1 for axis in seen] == [field, field]


def test_a_block_does_not_clip_its_sum():
    """There is no ReLU after the addition: a block that adds nothing returns its input."""
    block = resnet.ResNetBlock(0.0, jnp.float32)
    x = jax.random.normal(jax.random.key(0), (1, 8, 8, 4))
    params = jax.tree.map(jnp.zeros_like, block.init(jax.random.key(0), x, False))
    np.testing.assert_array_equal(block.apply(params, x, False), x)


def test_unet_carries_detail_past_its_bottleneck():
    """With the deepest layers cut out, the output still depends on single pixels, by the skips."""
    unet = networks.make_generator(3, kind='unet', width=4, num_downs=5)
    x = jax.random.normal(jax.random.key(0), (1, 32, 32, 3))
    params = unet.init(jax.random.key(1), x)
    params['params']['down_4'] = jax.tree.map(jnp.zeros_like, params['params']['down_4'])
    moved = unet.apply(params, x.at[0, 5, 5, 0].add(1.0)) - unet.apply(params, x)
    assert jnp.abs(moved).max() > 1e-4


@pytest.mark.parametrize('kind', ['resnet', 'unet'])
def test_dropout_is_drawn_only_while_training(kind):
    generator = networks.make_generator(
        3, kind=kind, width=4, num_blocks=2, num_downs=6, dropout=0.5
    )
    x = jax.random.normal(jax.random.key(0), (1, 64, 64, 3))
    params = jax.jit(generator.init)(jax.random.key(1), x)

    @jax.jit
    def draw(seed):
        return generator.apply(params, x, train=True, rngs={'dropout': jax.random.key(seed)})

    assert jnp.abs(draw(0) - draw(1)).max() > 1e-4
    np.testing.assert_array_equal(draw(0), draw(0))
    assert jnp.abs(draw(0) - generator.apply(params, x)).max() > 1e-4


@pytest.mark.parametrize(
    ('make', 'kwargs', 'said'),
    [
        (networks.make_generator, {'kind': 'vit'}, "generator.kind is 'vit'"),
        (networks.make_generator, {'upsample': 'linear'}, "'transpose', 'nearest'"),
        (networks.make_generator, {'dtype': 'float16'}, "'bfloat16'"),
        (networks.make_generator, {'dropout': 1.0}, 'below 1'),
        (networks.make_generator, {'num_blocks': -1}, 'at least 0'),
        (networks.make_generator, {'kind': 'unet', 'num_downs': 4}, 'at least 5'),
        (networks.make_discriminator, {'kind': 'full'}, "discriminator.kind is 'full'"),
        (networks.make_discriminator, {'num_layers': 0}, 'at least 1'),
    ],
)
def test_mistakes_name_the_field_the_value_and_the_choices(make, kwargs, said):
    channels = (3,) if make is networks.make_generator else ()
    with pytest.raises(ValueError) as error:
        make(*channels, **kwargs)
    assert said in str(error.value) and '\n' not in str(error.value)


def test_remat_keeps_less_for_the_gradients():
    def kept(remat):
        generator = networks.make_generator(3, width=4, num_blocks=9, remat=remat)
        x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
        params = jax.eval_shape(generator.init, jax.random.key(0), x)
        pullback = jax.eval_shape(lambda p, x: jax.vjp(generator.apply, p, x)[1], params, x)
        sizes = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (pullback, params)]
        return sizes[0] - sizes[1]  # the parameters are kept in any case

    assert kept(remat=True) < 0.6 * kept(remat=False)  # the rest is of the layers at full size


def test_a_kind_is_added_by_its_module_and_a_line(tmp_path, monkeypatch):
    """It is built, saved, and translates; that it has no form in PyTorch and ONNX is told."""

    class Shift(networks.Described):
        channels: int
        start: float = 0.5
        dtype: jnp.dtype = jnp.float32

        @nn.compact
        def __call__(self, x, train=False):
            shift = self.param('shift', nn.initializers.constant(self.start), (self.channels,))
            return jnp.tanh(x + shift.reshape(1, 1, 1, -1))

    monkeypatch.setitem(networks.GENERATORS, 'shift', Shift)
    generator = networks.make_networks({'a': 3, 'b': 3}, {'kind': 'shift'}, {}).generators['a2b']
    params = generator.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))['params']
    spec = interop.full_spec('generator', {'kind': 'shift', 'num_downs': 8})
    assert spec == {'kind': 'shift', 'start': 0.5}
    interop.save_pretrained(tmp_path, {'a2b': interop.Network('generator', spec, (3, 3), params)})
    translator = Translator.from_pretrained(tmp_path)
    image = np.zeros((5, 7, 3), np.float32)
    np.testing.assert_allclose(translator(image), np.tanh(image + 0.5), atol=1e-6)
    loaded = interop.load_pretrained(tmp_path)
    for format_ in ('pytorch', 'huggan', 'onnx'):
        with pytest.raises(UserError, match='shift'):
            exporting.export(loaded, tmp_path / format_, format_)
    exporting.export(loaded, tmp_path / 'again', 'safetensors')


def test_a_field_that_no_kind_reads_is_told():
    with pytest.raises(UserError, match="did you mean 'num_blocks'"):
        networks.make_generator(3, num_block=3)


@pytest.mark.parametrize('kind', networks.DISCRIMINATORS)
def test_the_smallest_image_that_a_discriminator_can_judge(kind):
    network = networks.make_discriminator(kind=kind, width=4, num_layers=2)
    smallest = network.smallest
    x = jnp.zeros((1, smallest, smallest, 3))
    outputs = jax.eval_shape(lambda: network.init_with_output(jax.random.key(0), x)[0])
    assert all(0 not in leaf.shape for leaf in jax.tree.leaves(outputs))
    if kind == 'patch':
        assert 0 in output_shape(network, 1, smallest - 1, smallest - 1, 3)
    if kind == 'huggan':  # the last norm averages over more than one pixel
        assert smallest // 2**network.num_layers // 2 == 2


@pytest.mark.parametrize(
    ('make', 'fields', 'convolutions', 'norms', 'floats'),
    [
        (functools.partial(networks.make_generator, 3), {'num_blocks': 2}, 10, 9, 2),
        (networks.make_discriminator, {}, 5, 3, 0),
    ],
)
def test_what_is_kept_for_the_gradient(make, fields, convolutions, norms, floats):
    """The input of each convolution and of each norm, in the compute type, and no copies.

    Float32 are only those of the generator's tanh, of 3 channels. It is what an accelerator's
    memory and time go to, beside convolutions: a copy that creeps back costs up to a tenth of both.
    """
    batch = 5
    network = make(dtype='bfloat16', width=8, **fields)
    x = jax.ShapeDtypeStruct((batch, 64, 64, 3), jnp.float32)
    params = jax.eval_shape(network.init, jax.random.key(0), x)
    kept = jax.eval_shape(lambda *args: jax.vjp(network.apply, *args)[1], params, x)
    images = [leaf for leaf in jax.tree.leaves(kept) if leaf.shape[:1] == (batch,)]
    images = [leaf for leaf in images if leaf.shape[1:3] != (1, 1)]  # statistics of a norm
    by_type = collections.Counter(str(leaf.dtype) for leaf in images)
    assert by_type['bfloat16'] == convolutions + norms
    assert by_type['float32'] == floats
    assert all(leaf.shape[3] == 3 for leaf in images if leaf.dtype == jnp.float32)
