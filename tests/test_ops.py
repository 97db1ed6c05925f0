"""Every special form equals the plain operation that it stands for, gradients included."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from cyclegan_jax import ops
from cyclegan_jax.networks import make_generator
from cyclegan_jax.ops import cpu, lanes, norm, padding, winograd

LAYOUT = ('NHWC', 'HWIO', 'NHWC')


def arrays(*shapes):
    return [
        jax.random.normal(key, shape)
        for key, shape in zip(jax.random.split(jax.random.key(0), len(shapes)), shapes, strict=True)
    ]


def with_gradients(function, *args):
    def call(*args):
        output, pullback = jax.vjp(function, *args)
        gradient = jax.random.normal(jax.random.key(9), output.shape).astype(output.dtype)
        return output, *pullback(gradient)

    return jax.jit(call)(*args)


def assert_same_with_gradients(function, plain, *args):
    assert_same(with_gradients(function, *args), with_gradients(plain, *args))


def assert_same(found, expected):
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=3e-5 * np.abs(wanted).max())


CONVOLUTIONS = [  # window, stride, padding, input and output channels
    (1, 1, (0, 0), 3, 5),
    (3, 1, (0, 0), 3, 5),
    (4, 1, (0, 0), 5, 3),
    (7, 1, (0, 0), 5, 3),  # on a TPU by tiles, which do not fit; so are the gradients of the next
    (7, 1, (0, 0), 3, 5),
    (3, 1, (1, 1), 3, 5),
    (4, 1, (2, 1), 3, 5),
    (3, 2, (1, 1), 3, 5),
    (4, 2, (1, 1), 5, 3),
    (3, 1, (0, 0), 64, 65),  # by Winograd's algorithm, on tiles that do not fit
]


def reference(x, kernel, stride, padding):
    with jax.default_matmul_precision('highest'):
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=LAYOUT
        )


@functools.cache
def expected(form, size, stride, padding, inputs, outputs):
    """Of the convolution and its gradients, in whatever form the other is."""
    plain = functools.partial(reference, stride=stride, padding=(padding, padding))
    return with_gradients(plain, *arrays((*form, 12, inputs), (size, size, inputs, outputs)))


@pytest.fixture(
    scope='module',
    params=[
        'cpu',
        'cpu, arrays beyond its cache',
        'another',
        'gpu',
        'tpu, many images',
        'tpu, half of the lanes',
        'tpu',
    ],
)
def form(request):
    """The forms of a convolution, and of its gradients, that a platform can get.

    Of how many images they are tried, and how high: one is cut into eight strips on a TPU, three
    have bands enough on a GPU.
    """
    platform, _, special = request.param.partition(', ')
    jax.clear_caches()  # of what was traced with other constants
    with pytest.MonkeyPatch.context() as patch, ops.target(platform):
        if special == 'arrays beyond its cache':
            patch.setattr(cpu, '_QUICK_VALUES', 0)
        elif special == 'many images':
            patch.setattr(lanes, 'ROWS', 1)
        if platform == 'tpu' and special:
            patch.setattr(lanes, '_LANES', 10)  # so that images of 5 channels are folded
        cut = platform == 'tpu' and special != 'many images'
        yield (1, 64) if cut else (3, 9) if platform == 'gpu' else (2, 9)
    jax.clear_caches()


@pytest.mark.parametrize(('size', 'stride', 'padding', 'inputs', 'outputs'), CONVOLUTIONS)
def test_conv_is_the_convolution(form, size, stride, padding, inputs, outputs):
    x, kernel = arrays((*form, 12, inputs), (size, size, inputs, outputs))
    pads = (padding, padding)

    def conv(x, kernel):
        return ops.conv(x, kernel, stride, pads)

    wanted = expected(form, size, stride, padding, inputs, outputs)
    assert_same(with_gradients(conv, x, kernel), wanted)


@pytest.mark.parametrize(('size', 'stride', 'padding', 'inputs', 'outputs'), CONVOLUTIONS[3::2])
def test_conv_in_bfloat16_is_near(form, size, stride, padding, inputs, outputs):
    """Products of eight bits, sums of more: within the rounding of the type."""
    x, kernel = arrays((*form, 12, inputs), (size, size, inputs, outputs))
    pads = (padding, padding)

    conv = lambda x, kernel: ops.conv(x, kernel, stride, pads)
    got = with_gradients(conv, x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    wanted = expected(form, size, stride, padding, inputs, outputs)
    for ours, theirs in zip(got, wanted, strict=True):
        assert ours.dtype == jnp.bfloat16
        error = np.abs(np.asarray(ours, np.float32) - theirs).max()
        assert error < 0.03 * np.abs(theirs).max()


@pytest.mark.parametrize('channels', [(3, 5), (5, 3)])
@pytest.mark.parametrize('height', range(58, 68))
def test_a_tpu_has_strips_of_any_height_in_7x7_layers(height, channels):
    """Its gradient is as high as the image, which may be beyond the next multiple of eight."""
    x, kernel = arrays((1, height, 8, channels[0]), (7, 7, *channels))
    plain = functools.partial(reference, stride=1, padding='VALID')
    with ops.target('tpu'):
        conv = lambda x, kernel: ops.conv(x, kernel, 1, ((0, 0), (0, 0)))
        assert re.findall('tensor<(8)x', jax.jit(conv).lower(x, kernel).as_text())
        assert_same_with_gradients(conv, plain, x, kernel)


@pytest.mark.parametrize(('height', 'width'), [(1, 1), (4, 8), (5, 11)])
def test_winograd_is_the_unpadded_convolution(height, width):
    x, kernel = arrays((2, height + 2, width + 2, 3), (3, 3, 3, 5))
    plain = lambda x, kernel: reference(x, kernel, 1, 'VALID')
    by_winograd = jax.custom_vjp(winograd.convolve)
    by_winograd.defvjp(
        lambda x, kernel: (winograd.convolve(x, kernel), (x, kernel)),
        lambda residuals, gradient: winograd.gradients(*residuals, gradient),
    )
    assert_same_with_gradients(by_winograd, plain, x, kernel)


def test_winograd_can_be_switched_off(monkeypatch):
    x, kernel = arrays((1, 6, 6, 256), (3, 3, 256, 256))
    exact = reference(x, kernel, 1, ((0, 0), (0, 0)))
    error = lambda: np.abs(cpu.convolve(x, kernel, 1, ((0, 0), (0, 0))) - exact).max()
    with_winograd = error()
    monkeypatch.setenv('CYCLEGAN_JAX_WINOGRAD', '0')
    assert error() < with_winograd / 4


@pytest.mark.parametrize('size', [3, 4])
def test_up_conv_spreads_each_pixel_over_its_window(form, size):
    """The definition: every input pixel adds itself times the kernel at twice its position."""
    x, kernel = arrays((*form, 4, 3), (size, size, 3, 5))

    def plain(x, kernel):
        n, h, w, _ = x.shape
        y = jnp.zeros((n, 2 * h + 2, 2 * w + 2, kernel.shape[-1]))
        spread = jnp.einsum('nhwi,kmio->nhwkmo', x, jnp.flip(kernel, (0, 1)))
        for k in range(size):
            for m in range(size):
                y = y.at[:, k : k + 2 * h : 2, m : m + 2 * w : 2].add(spread[:, :, :, k, m])
        return y[:, 1 : 2 * h + 1, 1 : 2 * w + 1]  # padding 1 cuts the rim

    assert_same_with_gradients(ops.up_conv, plain, x, kernel)


def test_up_conv_can_be_the_convolution_of_repeated_pixels(form):
    x, kernel = arrays((2, 5, 4, 3), (3, 3, 3, 5))

    def plain(x, kernel):
        return reference(jnp.repeat(jnp.repeat(x, 2, 1), 2, 2), kernel, 1, ((1, 1), (1, 1)))

    assert_same_with_gradients(
        lambda x, kernel: ops.up_conv(x, ops.of_repeated_pixels(kernel)), plain, x, kernel
    )


@pytest.mark.parametrize(
    ('size', 'inputs', 'outputs'), [(3, 5, 5), (7, 5, 3), (7, 3, 5), (1, 5, 5)]
)
def test_reflect_conv_is_the_convolution_behind_a_reflection_pad(form, size, inputs, outputs):
    x, kernel = arrays((*form, 12, inputs), (size, size, inputs, outputs))
    rim = ((0, 0), (size // 2, size // 2), (size // 2, size // 2), (0, 0))

    def plain(x, kernel):
        return reference(jnp.pad(x, rim, mode='reflect'), kernel, 1, ((0, 0), (0, 0)))

    assert_same_with_gradients(ops.reflect_conv, plain, x, kernel)


def test_reflect_pad_mirrors_without_repeating_the_edge():
    row = jnp.arange(4.0).reshape(1, 1, 4, 1).repeat(4, axis=1)
    np.testing.assert_array_equal(ops.reflect_pad(row, 2)[0, 0, :, 0], [2, 1, 0, 1, 2, 3, 2, 1])


def test_instance_norm_normalises_each_image_and_channel():
    [x] = arrays((2, 8, 8, 3))
    y = ops.instance_norm(5 * x + 100)
    np.testing.assert_allclose(y.mean((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((1, 2)), 1, atol=1e-4)
    np.testing.assert_allclose(y[:1], ops.instance_norm(5 * x[:1] + 100), atol=1e-5)


def test_instance_norm_is_exact_on_almost_flat_images():
    """E[x^2] - E[x]^2 has no correct digit here; pytorch-CycleGAN's issue 20 is such a case."""
    [noise] = arrays((1, 16, 16, 1))
    x = 1000 + 0.01 * noise
    x64 = np.asarray(x, np.float64)
    expected = (x64 - x64.mean()) / np.sqrt(x64.var() + 1e-5)
    np.testing.assert_allclose(ops.instance_norm(x), expected, atol=1e-2)
    np.testing.assert_array_equal(ops.instance_norm(jnp.full((1, 4, 4, 1), 7.0)), 0)


def test_instance_norm_keeps_its_statistics_in_float32():
    [x] = arrays((1, 64, 64, 1))
    y = ops.instance_norm((x + 3).astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    assert abs(float(y.astype(jnp.float32).mean())) < 2e-3


def norm_and_pad(x, slope, pad):
    return ops.reflect_pad(ops.instance_norm(x, slope), pad)


def plain_norm(x, slope, pad):
    """The definition, with the gradient that jax derives."""
    y = x.astype(jnp.float32)
    y = y - jnp.mean(y, axis=(1, 2), keepdims=True)
    variance = jnp.mean(jnp.square(y), axis=(1, 2), keepdims=True)
    y = (y * lax.rsqrt(variance + 1e-5)).astype(x.dtype)
    y = y if slope == 1 else nn.leaky_relu(y, slope) if slope else nn.relu(y)
    return jnp.pad(y, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode='reflect')


@pytest.mark.parametrize(('slope', 'pad'), [(1.0, 0), (0.0, 1), (0.2, 3)])
@pytest.mark.parametrize(('dtype', 'tolerance'), [('float32', 1e-6), ('bfloat16', 8e-3)])
def test_instance_norm_and_its_gradient_are_those_of_the_definition(slope, pad, dtype, tolerance):
    [x] = arrays((2, 7, 4, 3))
    x = (3 * x + 10).astype(dtype)

    def results(function):
        y, pullback = jax.vjp(jax.jit(function), x)
        return y, *pullback(jax.random.normal(jax.random.key(9), y.shape).astype(dtype))

    got = results(lambda x: norm_and_pad(x, slope, pad))
    for ours, theirs in zip(got, results(lambda x: plain_norm(x, slope, pad)), strict=True):
        assert ours.dtype == theirs.dtype
        ours, theirs = np.float32(ours), np.float32(theirs)
        np.testing.assert_allclose(ours, theirs, atol=tolerance * np.abs(theirs).max())


@pytest.mark.parametrize('slope', [0.0, 0.2])
def test_the_gradient_of_a_flat_image_is_the_definitions(slope):
    """All of it lies where the activation has its corner."""
    x = jnp.full((1, 4, 4, 2), 7.0)
    wanted = jax.grad(lambda x: jnp.sum(plain_norm(x, slope, 1)[:, 0]))(x)
    got = jax.grad(lambda x: jnp.sum(norm_and_pad(x, slope, 1)[:, 0]))(x)
    np.testing.assert_allclose(got, wanted, atol=1e-3 * max(np.abs(wanted).max(), 1))


def worst_images():
    """Where sums of squares cancel: some pixels far off all, even those that are measured from."""
    noise = np.random.default_rng(0).normal(size=(64, 48))
    corner, row, measured = (0.01 * noise for _ in range(3))
    corner[0, 0], row[0] = 1000, 1000
    measured[32, 24] = 1000
    images = {'one corner': corner, 'one row': row, 'what is measured from': measured}
    return {'flat': 1000 + 0.01 * noise, **images}


@pytest.mark.parametrize(
    ('platform', 'columns', 'strips', 'is_known'),
    [
        ('gpu', 1, 1, False),
        ('tpu', 1, 1, False),
        ('tpu', 2, 1, False),
        ('tpu', 1, 1, True),
        ('tpu', 2, 1, True),
        ('tpu', 1, 4, True),
        ('tpu', 2, 8, False),
    ],
)
@pytest.mark.parametrize('name', worst_images())
def test_the_variance_is_exact_in_the_worst_case(name, platform, columns, strips, is_known):
    x = worst_images()[name].astype(np.float32)
    folds = lanes.Folds(columns, strips)
    near = jnp.full((1, 1, 1, 1), x[32, 24]) if is_known else None
    count = 2 if platform == 'gpu' else 1  # two have bands enough
    images = lanes.fold(np.stack([x] * count)[..., None], *folds)
    statistics = jax.jit(functools.partial(norm._in_one_pass, folds=folds))
    with ops.target(platform):
        mean, variance = statistics(images, near)
    assert mean.shape == variance.shape == (count * strips, 1, 1, columns)
    lost = columns * x.size * 2**-22 if name == 'what is measured from' else 2**-19
    np.testing.assert_allclose(variance, np.var(x, dtype=np.float64), rtol=lost)
    rounding = 2**-22 * np.abs(x).max()
    np.testing.assert_allclose(mean, x.mean(dtype=np.float64), atol=rounding, rtol=0)


LAYERS = [
    {'kernel': 7, 'reflect': True},
    {'kernel': 3, 'reflect': True},
    {'kernel': 3, 'stride': 2, 'padding': 1},
    {'kernel': 4, 'padding': (2, 1)},
    {'kernel': 4, 'stride': 2, 'padding': 1},
    {'kernel': 1},
    {'kernel': 3, 'up': 'transpose'},
    {'kernel': 4, 'up': 'transpose'},
    {'kernel': 3, 'up': 'nearest'},
]


def a_layers(fields, images, parts=8):
    """Its images, so many windows a side and two columns more; and its kernel."""
    size = fields['kernel']
    return arrays((images, parts * size, parts * size + 2, 5), (size, size, 5, 5))


@pytest.mark.parametrize('fields', LAYERS, ids=str)
def test_a_norm_follows_its_convolution(form, fields):
    x, kernel = a_layers(fields, 2)

    def plain(x, kernel):
        with ops.target('cpu'):
            y = ops.Conv(5, **fields).apply({'params': {'kernel': kernel}}, x)
        return plain_norm(y, 0.2, 0)

    def layer(x, kernel):
        return ops.Conv(5, norm=0.2, **fields).apply({'params': {'kernel': kernel}}, x)

    assert_same_with_gradients(layer, plain, 3 + x, kernel)


def given_to_the_norm(monkeypatch, fields, images, parts=12):
    """What the norm of a layer on a TPU gets: the image, and what it measures from."""
    given = []
    monkeypatch.setattr(norm, 'instance_norm', lambda y, slope, near: given.extend((y, near)))
    x, kernel = a_layers(fields, images, parts)
    with ops.target('tpu'):
        ops.Conv(5, norm=0.2, **fields).apply({'params': {'kernel': kernel}}, x)
    return given


@pytest.mark.parametrize('fields', LAYERS, ids=str)
@pytest.mark.parametrize('lanes_filled', [5, 10])
def test_a_tpu_computes_a_pixel_in_advance(monkeypatch, fields, lanes_filled):
    """One near the middle, whether two columns are one, as with 10, or not."""
    monkeypatch.setattr(lanes, '_LANES', lanes_filled)
    y, near = given_to_the_norm(monkeypatch, fields, images=8)
    row, column = (side // 2 for side in y.shape[1:3])
    around = y[:, row - 3 : row + 4, column - 3 : column + 4]
    np.testing.assert_allclose(np.abs(around - near).max((0, 3)).min(), 0, atol=1e-4)


@pytest.mark.parametrize('fields', LAYERS[:5:2], ids=str)
@pytest.mark.parametrize(('images', 'parts'), [(7, 12), (8, 6)])
def test_few_and_small_images_do_without_a_pixel_in_advance(monkeypatch, fields, images, parts):
    assert given_to_the_norm(monkeypatch, fields, images, parts)[1] is None


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'kernel': 3, 'bias': True, 'norm': 0}, 'bias is True, but the norm'),
        ({'kernel': 4, 'up': 'nearest'}, r'kernel is \(4, 4, 5, 5\); it must be 3x3'),
    ],
)
def test_layers_that_cannot_be(fields, message):
    with pytest.raises(ValueError, match=message):
        ops.Conv(5, **fields).init(jax.random.key(0), jnp.zeros((1, 8, 8, 5)))


def test_repeated_pixels_are_as_exact_in_bfloat16(form):
    """Entries are summed before they are rounded."""
    x, kernel = arrays((2, 8, 8, 64), (3, 3, 64, 5))
    repeated = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
    exact, rounded = (
        reference(repeated.astype(dtype), kernel.astype(dtype), 1, ((1, 1), (1, 1)))
        for dtype in ('float32', 'bfloat16')
    )
    conv = ops.Conv(5, 3, up='nearest', dtype=jnp.bfloat16)
    error = lambda y: float(jnp.std(y.astype(jnp.float32) - exact))
    assert error(conv.apply({'params': {'kernel': kernel}}, x)) < 1.1 * error(rounded)


@pytest.mark.parametrize('platform', ['cpu', 'gpu', 'tpu', 'every'])
def test_gradients_brought_into_order_are_the_same(platform):
    gradients = dict(zip(('kernel', 'bias'), arrays((3, 3, 4, 5), (5,)), strict=True))
    with ops.target(platform):
        found = jax.jit(ops.in_own_layout)(gradients)
    jax.tree.map(np.testing.assert_array_equal, found, gradients)


@pytest.mark.parametrize('slope', [0.0, 0.2])
def test_each_platforms_norm_is_the_same(form, slope):
    norm = functools.partial(norm_and_pad, slope=slope, pad=2)
    [x] = arrays((*form, 4, 5))
    with ops.target('cpu'):
        wanted = with_gradients(norm, x)
    for ours, theirs in zip(with_gradients(norm, x), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_one_platforms_form_is_traced_or_a_choice_for_every_one():
    """The choice falls where the program is compiled."""
    x, kernel = arrays((2, 9, 12, 64), (3, 3, 64, 64))
    conv = lambda x, kernel: ops.conv(x, kernel, 1, ((0, 0), (0, 0)))
    texts = {}
    for platform in ('', 'cpu', 'gpu', 'every'):
        with ops.target(platform):
            texts[platform] = str(jax.make_jaxpr(conv)(x, kernel))
            lowered = jax.jit(conv).lower(x, kernel)
            np.testing.assert_allclose(
                lowered.compile()(x, kernel), reference(x, kernel, 1, 'VALID'), atol=1e-3
            )
    assert texts[''] == texts['cpu'] != texts['gpu']
    assert [p for p, text in texts.items() if 'platform_index' in text] == ['every']


@pytest.mark.parametrize('width', [0, 1, 3])
def test_reflect_pad_has_a_form_and_a_gradient_for_each_platform(width):
    [x] = arrays((2, 7, 4, 3))
    wanted, pullback = jax.vjp(lambda x: padding._mirror(x, width, width), x)
    np.testing.assert_array_equal(padding._mirror_by_index(x, width, width), wanted)
    got, own_pullback = jax.vjp(lambda x: ops.reflect_pad(x, width), x)
    np.testing.assert_array_equal(got, wanted)
    [gradient] = arrays(wanted.shape)
    np.testing.assert_allclose(own_pullback(gradient)[0], pullback(gradient)[0], atol=1e-6)


def test_winograd_serves_bfloat16_too():
    x, kernel = (y.astype(jnp.bfloat16) for y in arrays((1, 6, 6, 64), (3, 3, 64, 64)))

    def loss(x, kernel):
        y = ops.conv(x, kernel, 1, ((0, 0), (0, 0)))
        assert y.dtype == jnp.bfloat16
        return jnp.sum(y.astype(jnp.float32) ** 2), y

    gradients, y = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(x, kernel)
    expected = reference(x.astype(jnp.float32), kernel.astype(jnp.float32), 1, ((0, 0), (0, 0)))
    np.testing.assert_allclose(y.astype(jnp.float32), expected, atol=0.01 * expected.max())
    assert {gradient.dtype for gradient in gradients} == {jnp.dtype('bfloat16')}


def test_conv_computes_in_its_dtype_and_keeps_float32_parameters():
    conv = ops.Conv(4, 3, bias=True, dtype=jnp.bfloat16)
    output, variables = conv.init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 3)))
    assert output.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


def test_initial_weights_have_the_references_spread():
    variables = ops.Conv(64, 7, bias=True).init(jax.random.key(0), jnp.ones((1, 8, 8, 64)))
    kernel = variables['params']['kernel']
    assert abs(float(kernel.std()) - 0.02) < 2e-4 and abs(float(kernel.mean())) < 2e-4
    assert not variables['params']['bias'].any()


@pytest.mark.parametrize(
    ('images', 'devices', 'size', 'seen'),
    [(1, 1, 64, 8), (3, 1, 64, 24), (8, 8, 64, 64), (8, 1, 32, 8), (1, 1, 36, 1)],
)
def test_a_tpu_sees_eight_images_or_strips_of_fewer(images, devices, size, seen):
    """All layers do; two columns of 64 channels are one of 128; each device has its own strips."""
    generator = make_generator(3, num_blocks=1)
    x = jnp.zeros((images, size, size, 3))
    params = jax.eval_shape(generator.init, jax.random.key(0), x)
    split = NamedSharding(jax.make_mesh((devices,), ('batch',)), PartitionSpec('batch'))
    forward = jax.jit(lambda params, x: generator.apply(params, x), in_shardings=(None, split))
    with ops.target('tpu'), ops.devices(devices):
        lowered = forward.lower(params, x)
    shapes = re.findall(
        r'stablehlo.convolution.*: \(tensor<(\d+)x(\S+)xf32>, .*-> tensor<(\S+)xf32>',
        lowered.as_text(),
    )
    assert len(shapes) >= 7  # those that are alike are written once
    assert {int(batch) for batch, *_ in shapes} == {seen}
    halves = any(shape.endswith('x64') for _, *pair in shapes for shape in pair)
    assert halves == (seen < 8)
    if devices > 1:
        assert not re.search('all-|collective-', lowered.compile().as_text())


@pytest.mark.parametrize('platform', ['cpu', 'cuda', 'tpu', 'every'])
def test_what_comes_after_is_the_same_and_waits(platform):
    x, earlier = jnp.arange(6.0).reshape(2, 3), {'k': jnp.ones((2, 2)), 'b': jnp.zeros(3)}
    with ops.target(platform):
        traced = jax.jit(lambda x, earlier: ops.after(earlier, x)).trace(x, earlier)
    if platform != 'cpu':
        assert 'optimization_barrier' in str(traced.jaxpr)
    if platform in ('cpu', 'every'):
        after = traced.lower().compile()
        np.testing.assert_array_equal(after(x, earlier), x)
        # XLA has kept what makes it wait: it can be seen where a number is none.
        assert np.isnan(after(x, earlier | {'b': jnp.full(3, jnp.nan)})).all()
