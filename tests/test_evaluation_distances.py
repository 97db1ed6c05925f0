"""Frechet and kernel distances: exact cases, and agreement with the packages that others use."""

import numpy as np
import pytest
from oracles import oracle

from cyclegan_jax.evaluation import distances


def sets(n: int, m: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Two correlated, shifted sets of float32 features, as positive as a ReLU's."""
    random = np.random.RandomState(0)
    mix = random.standard_normal((d, d)) / np.sqrt(d)
    x = np.maximum(random.standard_normal((n, d)) @ mix, 0)
    y = np.maximum(random.standard_normal((m, d)) @ mix * 1.2 + 0.1, 0)
    return x.astype(np.float32), y.astype(np.float32)


def test_frechet_distance_of_known_gaussians():
    """In one dimension it is (mean - mean)^2 + (deviation - deviation)^2."""
    x, y = np.array([[0.0], [2.0], [4.0]]), np.array([[10.0], [14.0], [18.0]])
    assert distances.frechet(x, y) == pytest.approx((14 - 2) ** 2 + (4 - 2) ** 2)


def test_frechet_distance_of_a_set_to_itself_is_zero():
    x, _ = sets(30, 30, 64)
    assert abs(distances.frechet(x, x)) < 1e-9
    x, _ = sets(300, 30, 16)
    assert abs(distances.frechet(x, x)) < 1e-9


def test_few_and_many_images_use_one_formula():
    """Both ways of taking the trace agree where both are exact: zeros add no distance."""
    x, y = sets(60, 50, 16)
    wide = [np.pad(features, ((0, 0), (0, 100))) for features in (x, y)]
    assert distances.frechet(*wide) == pytest.approx(distances.frechet(x, y), rel=1e-9)


def test_float32_features_are_compared_in_float64():
    x, y = sets(140, 120, 512)
    shifted = distances.frechet(x + np.float32(64), y + np.float32(64))
    assert shifted == pytest.approx(distances.frechet(x, y), rel=1e-3)


def test_kid_is_the_mean_over_pairs():
    x, y = sets(9, 7, 5)

    def kernel(u, v):
        return (np.dot(u.astype(float), v.astype(float)) / 5 + 1) ** 3

    def mean_of_pairs(z):
        return np.mean([kernel(u, v) for i, u in enumerate(z) for j, v in enumerate(z) if i != j])

    across = np.mean([kernel(u, v) for u in x for v in y])
    assert distances.kid(x, y) == pytest.approx(mean_of_pairs(x) + mean_of_pairs(y) - 2 * across)


def test_kid_is_unbiased_at_any_count():
    """Means over many small samples of one distribution: KID's is zero, FID's far from it."""
    random = np.random.RandomState(0)
    draws = [random.standard_normal((2, 8, 4)) for _ in range(400)]
    kids = [distances.kid(x, y) for x, y in draws]
    assert abs(np.mean(kids)) < 3 * np.std(kids) / np.sqrt(len(kids))
    assert np.mean([distances.frechet(x, y) for x, y in draws]) > 0.5


def test_kid_in_blocks_equals_kid_at_once(monkeypatch):
    x, y = sets(50, 33, 8)
    whole = distances.kid(x, y)
    monkeypatch.setattr(distances, '_BLOCK', 7)
    assert distances.kid(x, y) == pytest.approx(whole, rel=1e-12)


def test_kid_spread_takes_subsets_that_are_not_the_whole_set():
    x, y = sets(12, 9, 8)
    spread, size = distances.kid_spread(x, y)
    assert size == 4
    assert spread > 0
    assert (spread, size) == distances.kid_spread(x, y)


@pytest.mark.parametrize('distance', [distances.frechet, distances.kid])
def test_one_image_has_no_distribution(distance):
    x, y = sets(1, 5, 4)
    with pytest.raises(ValueError, match='at least 2 images in each, not 1'):
        distance(x, y)


def statistics(x):
    x = x.astype(np.float64)
    return x.mean(axis=0), np.cov(x, rowvar=False)


@pytest.mark.parametrize(('n', 'm', 'd'), [(500, 400, 64), (70, 60, 128)])
@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_frechet_distance_agrees_with_pytorch_fid(n, m, d):
    fid_score = oracle('pytorch_fid.fid_score')
    x, y = sets(n, m, d)
    theirs = fid_score.calculate_frechet_distance(*statistics(x), *statistics(y))
    # With fewer images than features theirs has the noise of square roots of rounding errors.
    assert distances.frechet(x, y) == pytest.approx(theirs, abs=1e-3)


def test_kid_agrees_with_torch_fidelity():
    metric_kid = oracle('torch_fidelity.metric_kid')
    x, y = (features.astype(np.float64) for features in sets(60, 60, 32))
    theirs = metric_kid.kernel_mmd(
        x,
        y,
        kid_kernel='poly',
        kid_kernel_poly_degree=3,
        kid_kernel_poly_gamma=None,
        kid_kernel_poly_coef0=1,
    )
    assert distances.kid(x, y) == pytest.approx(theirs, rel=1e-12)


def test_kid_agrees_with_clean_fid():
    """Its subsets are the whole set here, in one draw; it names the sets the other way round."""
    fid = oracle('cleanfid.fid')
    x, y = (features.astype(np.float64) for features in sets(60, 60, 32))
    theirs = fid.kernel_distance(x, y, num_subsets=1)
    assert distances.kid(x, y) == pytest.approx(theirs, rel=1e-9)
