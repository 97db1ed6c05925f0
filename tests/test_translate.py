"""The Translator: every image comes back at its own size, as the kind of image that it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from translate_fixtures import RESNET, picture, random_network

from cyclegan_jax import interop
from cyclegan_jax.errors import UserError
from cyclegan_jax.inference import Translator
from cyclegan_jax.inference import translator as translating
from cyclegan_jax.inference.runner import Runner
from cyclegan_jax.inference.tiling import run_in_tiles


@pytest.fixture(scope='module')
def network():
    return random_network()


@pytest.fixture(scope='module')
def translator(network):
    return Translator(network)


def apply(network, image):
    module = network.module()
    return np.asarray(module.apply({'params': network.params}, jnp.asarray(image[None])))[0]


def floats(height, width, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (height, width, 3)).astype(np.float32)


def test_is_the_network_where_no_padding_is_needed(network, translator):
    image = floats(24, 32)
    np.testing.assert_allclose(translator(image), apply(network, image), atol=1e-5)


@pytest.mark.parametrize('size', [(21, 34), (1, 1), (2, 70), (17, 16)])
def test_other_sizes_are_reflected_and_cut_back(network, translator, size):
    image = floats(*size)
    padded = [-(-max(side, 16) // 4) * 4 for side in size]
    pads = [(0, p - side) for p, side in zip(padded, size, strict=True)]
    expected = apply(network, np.pad(image, [*pads, (0, 0)], 'reflect'))[: size[0], : size[1]]
    result = translator(image)
    assert result.shape == (*size, 3)
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_without_padding_the_output_is_as_large_as_that_of_the_reference(network):
    assert Translator(network, pad=False)(floats(256, 314)).shape == (256, 316, 3)


def test_unet_sizes():
    spec = interop.full_spec('generator', {'kind': 'unet', 'width': 2, 'num_downs': 5})
    assert Translator(random_network(spec=spec))(floats(33, 20)).shape == (33, 20, 3)


def test_8_bits_are_rounded(translator):
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    result = translator(image)
    assert result.dtype == np.uint8
    exact = (translator(image.astype(np.float32) / 127.5 - 1) + 1) * 127.5
    assert np.abs(result - exact).max() <= 0.501
    assert np.abs(np.mean(result - exact)) < 0.05  # cutting off would make this 0.5


def test_16_bits_stay_16_bits(translator):
    levels = np.random.default_rng(0).integers(0, 65536, (32, 32, 3)).astype(np.uint16)
    result = translator(levels)
    assert result.dtype == np.uint16
    exact = (translator(levels.astype(np.float32) / 32767.5 - 1) + 1) * 32767.5
    assert np.abs(result - exact).max() < 2
    assert len(np.unique(result)) > 1000


def test_a_list_of_any_sizes_gives_what_each_gives_alone(translator):
    images = [floats(16, 20, seed) for seed in range(5)] + [floats(24, 24), floats(16, 20, 9)]
    for result, image in zip(translator(images, batch_size=4), images, strict=True):
        np.testing.assert_allclose(result, translator(image), atol=1e-5)


def test_a_batch_is_shared_by_all_devices_and_unchanged(translator):
    images = [floats(16, 16, seed) for seed in range(8)]
    results = translator(images, batch_size=8)
    assert translator._runner._batched(8)._mesh.size == 8  # conftest gives 8 devices
    for result, image in zip(results, images, strict=True):
        np.testing.assert_allclose(result, translator(image), atol=1e-5)


def test_parameters_are_put_on_the_devices_once(network, monkeypatch):
    """Not for each picture, or tile; tiles need them once more, with statistics."""
    placed, device_put = [], jax.device_put
    monkeypatch.setattr(jax, 'device_put', lambda *args: placed.append(1) or device_put(*args))
    translator, image = Translator(network), floats(16, 48, 0)
    for _ in range(2):
        translator(image)
    assert len(placed) == 1
    translator(image, tile=20)
    assert len(placed) == 3, 'to take the statistics, and for all tiles'


def test_each_padded_size_is_compiled_once(network, monkeypatch):
    compiled, forward = [], Runner._forward
    monkeypatch.setattr(
        Runner, '_forward', lambda *args: compiled.append(args[2].shape) or forward(*args)
    )
    translator = Translator(network)
    for height, width in [(16, 20), (15, 19), (14, 17), (16, 20)]:
        translator(floats(height, width))
    assert len(compiled) == 1
    translator([floats(16, 20, seed) for seed in range(7)], batch_size=4)  # 4, and 3 filled to 4
    assert len(compiled) == 2


@pytest.mark.parametrize('mode', ['RGB', 'L', 'I;16', 'RGBA', 'LA'])
def test_pictures_keep_their_mode_and_size(translator, mode):
    given = picture(mode)
    result = translator(given)
    assert (result.mode, result.size) == (given.mode, given.size)
    assert np.asarray(result).std() > 5  # a picture, not a plane


@pytest.mark.parametrize(('mode', 'expected'), [('P', 'RGB'), ('CMYK', 'RGB'), ('1', 'L')])
def test_modes_that_no_translation_can_have_become_the_nearest_that_can(translator, mode, expected):
    assert translator(picture('RGB').convert(mode)).mode == expected


def test_a_palette_may_have_transparency(translator):
    assert translator(picture('RGBA').convert('P')).mode == 'RGBA'


@pytest.mark.parametrize('mode', ['RGBA', 'LA'])
def test_transparency_is_carried_over_and_hides_colours_from_the_generator(translator, mode):
    given = picture(mode)
    alpha = np.asarray(given.getchannel('A'))
    assert 0 < np.mean(alpha == 0) < 1
    result = translator(given)
    np.testing.assert_array_equal(result.getchannel('A'), alpha)

    other = np.array(given)
    other[alpha == 0, :-1] = 77
    np.testing.assert_array_equal(result, translator(Image.fromarray(other, mode)))


def test_the_generator_decides_about_colour():
    to_colour = Translator(random_network(channels=(1, 3)))
    to_grey = Translator(random_network(channels=(3, 1)))
    assert to_colour(picture('L')).mode == 'RGB'
    assert to_grey(picture('RGB')).mode == 'L'
    assert to_colour(picture('LA')).mode == 'RGBA'
    assert Translator(random_network(channels=(4, 4)))(picture('RGBA')).mode == 'RGBA'


def test_grey_through_colours_is_the_luma_of_the_translation(translator):
    grey = picture('L')
    colours = translator(grey.convert('RGB'))
    difference = np.asarray(translator(grey), int) - np.asarray(colours.convert('L'), int)
    assert np.abs(difference).max() <= 1


def test_grey_may_become_what_the_model_makes_of_it(translator):
    for mode, expected in [('L', 'RGB'), ('LA', 'RGBA'), ('1', 'RGB'), ('I;16', 'RGB')]:
        given = picture('L').convert(mode) if mode == '1' else picture(mode)
        result = translator(given, colour='model')
        assert result.mode == expected
        assert np.ptp(np.asarray(result)[..., :3].astype(int), axis=2).max() > 5  # in colour
    with pytest.raises(UserError, match="colour is 'grey'; choose one of 'keep', 'model'"):
        translator(picture('L'), colour='grey')


def test_a_network_that_gives_no_numbers_is_an_error(network):
    broken = jax.tree.map(np.copy, network.params)
    jax.tree.leaves(broken)[0].flat[3] = np.nan
    huge = jax.tree.map(lambda leaf: np.full_like(leaf, 1e38), network.params)
    for params in (broken, huge):
        translator = Translator(network._replace(params=params), name='a2b of runs/x')
        for image in (picture(), floats(16, 16)):
            with pytest.raises(UserError, match=r'^a2b of runs/x gives values that are not finite'):
                translator(image)
        with pytest.raises(UserError, match=r'^a2b of runs/x gives'):
            translator(picture(), tile=16)
    with pytest.raises(UserError, match=r'^an image has values that are not finite'):
        Translator(network)(floats(16, 16) * np.float32(np.nan))


def test_size_resizes_first_and_comes_back(translator):
    given = picture(size=(60, 40))
    small = given.resize((36, 24), Image.Resampling.BICUBIC)
    expected = translator(small).resize((60, 40), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(translator(given, size=24), expected)
    square = given.resize((32, 16), Image.Resampling.BICUBIC)
    expected = translator(square).resize((60, 40), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(translator(given, size=(16, 32)), expected)
    assert translator(picture('I;16', (60, 40)), size=24).size == (60, 40)


@pytest.mark.parametrize(
    ('image', 'words'),
    [
        (np.zeros((16, 16), np.uint8), r'\(16, 16\); it must be \(h, w, 3\)'),
        (np.zeros((16, 16, 1), np.uint8), r'must be \(h, w, 3\)'),
        (np.zeros((0, 16, 3), np.uint8), r'must be \(h, w, 3\)'),
        (np.zeros((16, 16, 3)), 'float64; must be uint8, uint16, or float32'),
        (Image.new('F', (16, 16)), 'floating point'),
    ],
)
def test_what_is_no_image_is_refused(translator, image, words):
    with pytest.raises(ValueError, match=words):
        translator(image)


def test_options_out_of_range_are_refused(translator):
    for options in ({'batch_size': 0}, {'tile': 15}):
        with pytest.raises(UserError, match=r'(batch_size|tile) is \d+; it must be at least 1'):
            translator(picture(), **options)


def test_from_pretrained(tmp_path):
    networks = {'a2b': random_network(seed=1), 'b2a': random_network(seed=2)}
    interop.save_pretrained(tmp_path, networks)
    image = floats(16, 16)
    for direction, network in networks.items():
        result = Translator.from_pretrained(tmp_path, direction)(image)
        np.testing.assert_allclose(result, apply(network, image), atol=1e-5)
    with pytest.raises(ValueError, match="direction is 'AtoB'; choose one of 'a2b', 'b2a'"):
        Translator.from_pretrained(tmp_path, 'AtoB')
    interop.save_pretrained(tmp_path, {'b2a': networks['b2a']})
    with pytest.raises(ValueError, match='has no generator a2b; the direction can be b2a'):
        Translator.from_pretrained(tmp_path)


@pytest.mark.parametrize('size', [(40, 40), (41, 97), (16, 200), (7, 5)])
def test_tiles_weigh_one_in_sum_and_cover_all(size):
    image = floats(*size)
    sizes = set()

    def same(tiles):
        sizes.update(tile.shape for tile in tiles)
        return tiles

    bands = run_in_tiles(image.__getitem__, size, 16, same)
    np.testing.assert_allclose(np.concatenate(list(bands)), image, atol=1e-6)
    assert sizes == {(min(16, size[0]), min(16, size[1]), 3)}  # all that the device ever sees


def smooth_generator():
    """Blurs and up-samples smoothly: steps between columns then tell of seams, not of texture."""
    spec = interop.full_spec('generator', RESNET | {'upsample': 'nearest'})
    network = random_network(spec=spec, seed=2)

    def blur(leaf):
        return np.full_like(leaf, 1) * leaf.mean((0, 1), keepdims=True) if leaf.ndim == 4 else leaf

    return Translator(network._replace(params=jax.tree.map(blur, network.params)))


def steps_between_columns(image):
    return np.abs(np.diff(image, axis=1)).mean(axis=(0, 2))[4:-4]  # without the image's border


def test_no_seam_shows_between_tiles():
    """Instance norm gives a dark and a light tile the same mean, so that hard edges would show."""
    translator = smooth_generator()
    gradient = np.linspace(-0.9, 0.9, 192)[None, :, None]
    texture = np.random.default_rng(0).normal(0, 0.05, (64, 192, 3))
    image = (gradient + texture).clip(-1, 1).astype(np.float32)

    # Tiles side by side: the steps at the two seams stand out.
    parts = [translator(np.ascontiguousarray(part)) for part in np.split(image, 3, axis=1)]
    steps = steps_between_columns(np.concatenate(parts, axis=1))
    seams = [59, 123]
    inside = np.delete(steps, seams).max()
    assert steps[seams].min() > 5 * inside

    # Blended: no step anywhere is more than 1.5 times the largest within a tile.
    assert steps_between_columns(translator(image, tile=64)).max() < 1.5 * inside


def test_with_statistics_of_the_whole_tiles_agree_with_it(translator, monkeypatch):
    """Each tile is normalised as the picture is, not by itself: a dark tile stays dark."""
    image = floats(128, 128) * np.linspace(0, 1, 128, dtype=np.float32)[None, :, None]
    whole = translator(image)
    everything = lambda read, shape, tile: read(tuple(map(slice, (0, 0), shape)))
    monkeypatch.setattr(translating, 'small_copy', everything)
    apart = np.abs(translator(image, tile=64) - whole)  # not 0 near the sides of tiles
    assert np.mean(apart < 1e-4) > 0.3 and apart.mean() < 0.05
    assert np.abs(translator(image[:, :64]) - whole[:, :64]).mean() > 0.1  # by itself


def test_windows_are_read_and_written_once_a_pixel_and_no_larger_than_a_tile(translator):
    source = np.random.default_rng(0).integers(0, 256, (50, 71, 3)).astype(np.uint8)
    target, written = np.zeros_like(source), np.zeros(source.shape[:2], int)
    sizes = []

    def read(window):
        sizes.append(source[window].shape[:2])
        return source[window]

    def write(window, pixels):
        target[window] = pixels
        written[window] += 1

    translator.translate_windows(read, write, source.shape, tile=30)
    assert np.max(sizes) == 32  # a multiple of 4
    np.testing.assert_array_equal(written, 1)
    np.testing.assert_array_equal(target, translator(source, tile=30))


def test_tiles_keep_type_and_size(translator):
    for mode in ('RGB', 'RGBA', 'I;16'):
        given = picture(mode, (70, 50))
        result = translator(given, tile=32, batch_size=2)
        assert (result.mode, result.size) == (mode, given.size)
    # An image that is no larger than a tile is not touched by tiling.
    small = picture(size=(32, 20))
    np.testing.assert_array_equal(translator(small, tile=32), translator(small))
