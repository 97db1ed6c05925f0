"""PSNR and SSIM against hand values and against the formulas written out pixel by pixel."""

import numpy as np
import pytest

from cyclegan_jax.evaluation.paired import psnr, ssim


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def plain(value, size=16):
    return np.full((1, size, size, 3), value, np.uint8)


def ssim_by_definition(x, y):
    """SSIM of (h, w): weighted moments of every 11 x 11 window, one window at a time."""
    axis = np.arange(11) - 5
    weights = np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    scores = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            p, q = (image[top : top + 11, left : left + 11].astype(np.float64) for image in (x, y))
            mp, mq = (weights * p).sum(), (weights * q).sum()
            vp, vq = (weights * (p - mp) ** 2).sum(), (weights * (q - mq) ** 2).sum()
            vpq = (weights * (p - mp) * (q - mq)).sum()
            c1, c2 = 2.55**2, 7.65**2
            scores.append(
                (2 * mp * mq + c1) * (2 * vpq + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2))
            )
    return np.mean(scores)


def test_psnr_hand_values():
    # An error of 5 everywhere: 20 log10(255 / 5). Of 255 everywhere: 0 dB.
    assert psnr(plain(100), plain(105)) == pytest.approx(34.1514, abs=1e-4)
    assert psnr(plain(105), plain(100)) == pytest.approx(34.1514, abs=1e-4)
    assert psnr(plain(0), plain(255)) == pytest.approx(0)


def test_psnr_of_identical_images_is_capped():
    assert psnr(plain(7), plain(7)) == 100


def test_psnr_scores_each_image_alone():
    x = np.concatenate([plain(100), plain(100)])
    y = np.concatenate([plain(105), plain(100)])
    np.testing.assert_allclose(psnr(x, y), [34.1514, 100], atol=1e-4)


def test_psnr_mask_leaves_out_the_rest():
    x, y = plain(100), plain(105)
    y[:, :8] = 255
    mask = np.zeros((1, 16, 16), bool)
    mask[:, 8:] = True
    assert psnr(x, y, mask) == pytest.approx(34.1514, abs=1e-4)
    assert psnr(x, y, ~mask) == pytest.approx(20 * np.log10(255 / 155))


def test_psnr_of_an_empty_mask_is_nan():
    mask = np.zeros((2, 16, 16), bool)
    mask[0] = True
    scores = psnr(noise(2, 16, 16, 3), noise(2, 16, 16, 3), mask)
    np.testing.assert_array_equal(scores, [100, np.nan])


def test_ssim_of_constant_images_is_the_luminance_term():
    c1 = 2.55**2
    expected = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
    assert ssim(plain(100), plain(150)) == pytest.approx(expected)


def test_ssim_of_identical_images_is_one():
    image = noise(1, 12, 20, 3)
    assert ssim(image, image) == pytest.approx(1)


def test_ssim_equals_its_definition():
    x = noise(2, 13, 17, 3)
    y = np.clip(x * 0.7 + noise(2, 13, 17, 3, seed=1) * 0.3, 0, 255).astype(np.uint8)
    y[1] = 255 - y[1]
    expected = [
        np.mean([ssim_by_definition(x[i, ..., c], y[i, ..., c]) for c in range(3)])
        for i in range(2)
    ]
    assert expected[0] > 0.5 > 0 > expected[1]  # the negative image has negative structure
    np.testing.assert_allclose(ssim(x, y), expected, rtol=1e-9)


def test_ssim_is_that_of_scikit_image():
    metrics = pytest.importorskip('skimage.metrics')
    x, y = noise(1, 40, 56, 3), noise(1, 40, 56, 3, seed=1) // 2
    theirs = metrics.structural_similarity(
        x[0],
        y[0],
        data_range=255,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert ssim(x, y) == pytest.approx(theirs, rel=1e-9)
    theirs = metrics.peak_signal_noise_ratio(x[0], y[0], data_range=255)
    assert psnr(x, y) == pytest.approx(theirs, rel=1e-12)


def test_ssim_has_one_window_at_side_11():
    x, y = noise(1, 11, 11, 1), noise(1, 11, 11, 1, seed=1)
    assert ssim(x, y) == pytest.approx(ssim_by_definition(x[0, ..., 0], y[0, ..., 0]))


@pytest.mark.parametrize('score', [psnr, ssim])
def test_floats_are_refused(score):
    image = np.zeros((1, 16, 16, 3), np.float32)
    with pytest.raises(ValueError, match=r'float32 .* want uint8'):
        score(image, image)


@pytest.mark.parametrize('score', [psnr, ssim])
def test_differing_shapes_are_refused(score):
    # (1, ...) against (2, ...) would broadcast.
    with pytest.raises(ValueError, match=r'\(1, 16, 16, 3\) and \(2, 16, 16, 3\)'):
        score(noise(1, 16, 16, 3), noise(2, 16, 16, 3))


def test_ssim_refuses_a_side_under_11():
    with pytest.raises(ValueError, match=r'10 x 40; ssim wants no side under 11'):
        ssim(noise(1, 10, 40, 3), noise(1, 10, 40, 3))


@pytest.mark.parametrize('mask', [np.ones((1, 16, 16), np.uint8), np.ones((1, 16, 15), bool)])
def test_a_mask_that_is_not_a_bool_per_pixel_is_refused(mask):
    with pytest.raises(ValueError, match=r'wants bool \(1, 16, 16\)'):
        psnr(noise(1, 16, 16, 3), noise(1, 16, 16, 3), mask)
