"""Features and distances that need no downloaded weights, and how features are gathered."""

import jax
import numpy as np
import pytest
from inception_state import blocks

from cyclegan_jax.evaluation import measures, randconv, sliced_wasserstein
from cyclegan_jax.evaluation.features import Features, Sharded


def test_randconv_features_have_not_changed():
    """Scores of randconv_kid_v1 are compared between versions of this package.

    Where these numbers change, the metric needs a new name: randconv_kid_v2.
    """
    features = np.asarray(jax.jit(randconv.features)(randconv.parameters(), blocks(1, 24, 32)))
    assert features.shape == (1, 896)
    expected = [0.25714, 0.449708, 0.272119, 0.470449, 0.00373, 0.159977, 0.266089]
    np.testing.assert_allclose(features[0, [0, 63, 64, 127, 500, 700, 895]], expected, rtol=1e-3)


def swd(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    descriptors = (
        np.stack(
            [sliced_wasserstein.patches(image, i, len(images)) for i, image in enumerate(images)]
        )
        for images in (x, y)
    )
    return sliced_wasserstein.distance(*descriptors)


def noise(seed: int, count: int = 24) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (count, 32, 48, 3)).astype(np.uint8)


def test_swd_of_a_set_to_itself_is_zero():
    x = noise(0)
    np.testing.assert_array_equal(swd(x, x), [0, 0])


def test_swd_has_a_level_for_each_halving_down_to_16_pixels():
    assert len(swd(noise(0), noise(1))) == 2
    assert sliced_wasserstein.patches(np.zeros((64, 128, 3), np.uint8), 0, 4).shape[0] == 3


def test_swd_tells_at_which_scale_sets_differ():
    """A texture of one pixel that one set has on top of blocks is seen at the finest level."""
    smooth = blocks(24, 32, 48) // 2
    textured = smooth + (np.indices((32, 48)).sum(axis=0) % 2 * 40)[..., None]
    fine, coarse = swd(smooth, textured.astype(np.uint8))
    assert fine > 5 * coarse


def test_swd_does_not_see_brightness_or_contrast():
    """Each set is normalised by its own statistics."""
    x = noise(0) // 2
    np.testing.assert_allclose(swd(x, x + 100), 0, atol=1e-3)


def test_swd_is_the_mean_distance_of_sorted_projections():
    """Restated from the paper for one level, a projection at a time."""
    random = np.random.RandomState(5)
    x, y = random.rand(3, 4, 49, 3), random.rand(3, 4, 49, 3) ** 2

    def points(patches):
        normal = (patches - patches.mean(axis=(0, 1, 2))) / patches.std(axis=(0, 1, 2))
        return normal.reshape(12, 147)

    directions, means = np.random.RandomState(0), []
    for _ in range(4):
        for direction in directions.standard_normal((147, 128)).T:
            direction = direction / np.linalg.norm(direction)
            a, b = sorted(points(x) @ direction), sorted(points(y) @ direction)
            means.append(np.mean([abs(u - v) for u, v in zip(a, b, strict=True)]))
    found = sliced_wasserstein.distance(x[:, None], y[:, None])
    assert found == pytest.approx([1000 * np.mean(means)], rel=1e-5)


def test_swd_of_unequal_counts_uses_as_many_images_of_each():
    x, y = noise(0), noise(1)
    per_image = [
        np.stack([sliced_wasserstein.patches(image, i, 24) for i, image in enumerate(images)])
        for images in (x, y)
    ]
    cut = sliced_wasserstein.distance(per_image[0], per_image[1][:10])
    np.testing.assert_array_equal(
        cut, sliced_wasserstein.distance(*(patches[:10] for patches in per_image))
    )


def test_swd_of_large_sets_uses_as_many_patches_of_each():
    x, y = np.random.RandomState(0).rand(2, 4, 1, 10, 49, 3)
    np.testing.assert_array_equal(
        sliced_wasserstein.distance(x, y[:, :, :6]),
        sliced_wasserstein.distance(x[:, :, :6], y[:, :, :6]),
    )


def test_the_pyramid_is_complete():
    """Its levels, put together again, are the image."""
    image = blocks(1, 64, 48)[0].astype(np.float32)
    levels = sliced_wasserstein._laplacian_pyramid(image)
    assert [level.shape[:2] for level in levels] == [(64, 48), (32, 24)]
    small = levels[-1]
    spread = np.zeros_like(image)
    spread[::2, ::2] = small
    np.testing.assert_allclose(levels[0] + 4 * sliced_wasserstein._blur(spread), image, atol=1e-3)


def test_patches_of_a_large_set_are_fewer_of_each_image():
    image = np.zeros((16, 16, 3), np.uint8)
    assert sliced_wasserstein.patches(image, 0, 100).shape == (1, 128, 49, 3)
    assert sliced_wasserstein.patches(image, 0, 2048).shape == (1, 32, 49, 3)


def test_an_image_smaller_than_a_patch_is_refused():
    with pytest.raises(ValueError, match=r'image is \(6, 40\); swd wants no side under 7'):
        sliced_wasserstein.patches(np.zeros((6, 40, 3), np.uint8), 0, 2)


def test_batches_are_split_over_devices_and_filled_up():
    """Neither the batch size nor what fills the last batch shows in the result."""
    seen = []

    def function(params, batch):
        seen.append(batch.shape)
        return batch.astype(np.float32).mean(axis=(1, 2, 3)) * params

    images = blocks(5, 8, 8)
    apply = Sharded(function, batch_size=6).with_params(np.float32(2))
    np.testing.assert_allclose(apply(images), images.mean(axis=(1, 2, 3)) * 2, rtol=1e-5)
    apply(images[:2])
    assert seen == [(8, 8, 8, 3)]  # compiled once, for a multiple of the 8 devices


@pytest.mark.parametrize('kind', ['randconv', 'patches'])
def test_features_do_not_depend_on_the_batches(kind):
    images = blocks(5, 16, 24)
    gathered = []
    for batch_size, split in ((2, 5), (8, 3)):
        collector = Features(None, batch_size).collector(kind, 5)
        collector.add(images[:split])
        collector.add(images[split:])
        gathered.append(collector.result())
    np.testing.assert_allclose(*gathered, rtol=1e-5, atol=1e-5)
    assert len(gathered[0]) == 5


def test_grey_images_are_three_equal_channels():
    grey = blocks(3, 16, 16)[..., :1]
    features = Features(None, 4)
    one, three = features.collector('randconv', 3), features.collector('randconv', 3)
    one.add(grey)
    three.add(np.repeat(grey, 3, axis=-1))
    np.testing.assert_array_equal(one.result(), three.result())


def test_scores_grow_with_the_change():
    """From real against other real, over a tint, to inverted colours."""
    metrics = 'randconv_kid_v1', 'swd'
    real, other = blocks(32, 32, 32)[::2], blocks(32, 32, 32)[1::2]
    tinted = np.clip(real * np.array([1.0, 0.9, 0.8]) + 20, 0, 255).astype(np.uint8)

    def gathered(images):
        gather = measures.Gather(Features(None, 8), metrics, len(images))
        return measures.run([gather], measures.as_they_are(images), len(images), '')

    reference = gathered(real)
    scores = [
        measures.distribution(metrics, gathered(images), reference)['randconv_kid_v1']
        for images in (other, tinted, 255 - real)
    ]
    assert 10 * max(scores[0], 1e-4) < scores[1] < scores[2]
