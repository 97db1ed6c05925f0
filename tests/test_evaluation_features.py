"""Features and distances that need no downloaded weights, and how features are gathered."""

import jax
import numpy as np
import pytest
from inception_state import blocks

from cyclegan_jax.evaluation import distances, measures, randconv
from cyclegan_jax.evaluation.direction import Direction, Extractor
from cyclegan_jax.evaluation.measures import result_of
from cyclegan_jax.evaluation.scores import METRICS, parse


def test_randconv_features_have_not_changed():
    """Scores of randconv_kid_v1 are compared between versions of this package.

    Where these numbers change, the metric needs a new name: randconv_kid_v2.
    """
    features = np.asarray(jax.jit(randconv.features)(randconv.parameters(), blocks(1, 24, 32)))
    assert features.shape == (1, 896)
    expected = [0.25714, 0.449708, 0.272119, 0.470449, 0.00373, 0.159977, 0.266089]
    np.testing.assert_allclose(features[0, [0, 63, 64, 127, 500, 700, 895]], expected, rtol=1e-3)


def patches_of(images: np.ndarray) -> np.ndarray:
    return np.stack([distances.patches(image, i, len(images)) for i, image in enumerate(images)])


def swd(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return distances.sliced_wasserstein(patches_of(x), patches_of(y))


def noise(seed: int, count: int = 24) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (count, 32, 48, 3)).astype(np.uint8)


def test_swd_of_a_set_to_itself_is_zero():
    x = noise(0)
    np.testing.assert_array_equal(swd(x, x), [0, 0])


def test_swd_has_a_level_for_each_halving_down_to_16_pixels():
    assert len(swd(noise(0), noise(1))) == 2
    assert distances.patches(np.zeros((64, 128, 3), np.uint8), 0, 4).shape[0] == 3


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
    found = distances.sliced_wasserstein(x[:, None], y[:, None])
    assert found == pytest.approx([1000 * np.mean(means)], rel=1e-5)


def test_swd_of_unequal_counts_uses_all_images_of_each():
    """Wherever the images stand that one set has more of; and twice the same set is that set."""
    x, y = (patches_of(noise(seed)) for seed in (0, 1))
    few = y[:20]
    far = np.concatenate([few, few * 3])
    assert distances.sliced_wasserstein(x, far)[0] != distances.sliced_wasserstein(x, few)[0]
    turned = distances.sliced_wasserstein(x, far[::-1])
    np.testing.assert_allclose(turned, distances.sliced_wasserstein(x, far), rtol=1e-4)
    twice = distances.sliced_wasserstein(x, np.concatenate([y, y]))
    np.testing.assert_allclose(twice, distances.sliced_wasserstein(x, y), rtol=1e-4)


def test_swd_of_unequal_counts_is_the_distance_that_scipy_computes():
    import scipy.stats  # takes a second, which every process that collects tests would spend

    x, y = np.random.RandomState(0).rand(2, 30, 1, 1, 49, 1).astype(np.float32)
    y = y[:20] ** 2
    points = [distances._normalise(patches[:, 0]) for patches in (x, y)]
    directions, found = np.random.RandomState(0), []
    for _ in range(4):
        for direction in directions.standard_normal((49, 128)).T:
            direction = direction / np.linalg.norm(direction)
            found.append(scipy.stats.wasserstein_distance(*(p @ direction for p in points)))
    assert distances.sliced_wasserstein(x, y) == pytest.approx([1000 * np.mean(found)], rel=1e-4)


def test_the_pyramid_is_complete():
    """Its levels, put together again, are the image."""
    image = blocks(1, 64, 48)[0].astype(np.float32)
    levels = distances._laplacian_pyramid(image)
    assert [level.shape[:2] for level in levels] == [(64, 48), (32, 24)]
    small = levels[-1]
    spread = np.zeros_like(image)
    spread[::2, ::2] = small
    np.testing.assert_allclose(levels[0] + 4 * distances._blur(spread), image, atol=1e-3)


def test_patches_of_a_large_set_are_fewer_of_each_image():
    image = np.zeros((16, 16, 3), np.uint8)
    assert distances.patches(image, 0, 100).shape == (1, 128, 49, 3)
    assert distances.patches(image, 0, 2048).shape == (1, 32, 49, 3)


def test_an_image_smaller_than_a_patch_is_refused():
    with pytest.raises(ValueError, match=r'image is \(6, 40\); swd wants no side under 7'):
        distances.patches(np.zeros((6, 40, 3), np.uint8), 0, 2)


def collector(metric: str, count: int, batch_size: int = 4):
    return Extractor(None, batch_size).collector(METRICS[metric].features, count)


@pytest.mark.parametrize('kind', ['randconv_kid_v1', 'swd'])
def test_features_do_not_depend_on_the_batches(kind):
    images = blocks(5, 16, 24)
    gathered = []
    for batch_size in (2, 8):
        gathered.append(result_of(collector(kind, 5, batch_size), images))
    np.testing.assert_allclose(*gathered, rtol=1e-5, atol=1e-5)
    assert len(gathered[0]) == 5


def test_grey_images_are_three_equal_channels():
    grey = blocks(3, 16, 16)[..., :1]
    one = result_of(collector('randconv_kid_v1', 3), grey)
    three = result_of(collector('randconv_kid_v1', 3), np.repeat(grey, 3, axis=-1))
    np.testing.assert_array_equal(one, three)


def test_scores_grow_with_the_change():
    """From real against other real, over a tint, to inverted colours."""
    metrics = 'randconv_kid_v1', 'swd'
    real, other = blocks(32, 32, 32)[::2], blocks(32, 32, 32)[1::2]
    tinted = np.clip(real * np.array([1.0, 0.9, 0.8]) + 20, 0, 255).astype(np.uint8)

    direction = Direction(Extractor(None, 8), parse(metrics), count=16, real=real)
    scores = [
        direction.score(measures.as_they_are(images))['randconv_kid_v1']
        for images in (other, tinted, 255 - real)
    ]
    assert 10 * max(scores[0], 1e-4) < scores[1] < scores[2]
