"""Distances between two sets of images: Frechet (FID), kernel (KID), sliced Wasserstein (SWD).

The first two, of features, compute in float64: float32 statistics of 140 against 120 images are off
by several points. The third, of patches, needs no network, and tells the scale at which sets differ
(Karras et al. 2018, "Progressive growing of GANs", section 5): patches of 7 x 7 pixels are taken
from each level of a Laplacian pyramid, each channel is normalised, and the sets' projections on
random directions are sorted and compared.
"""

import numpy as np

from cyclegan_jax.errors import UserError

_BLOCK = 1024  # rows of the kernel matrix at a time
_SUBSETS = 100
_MAX_SUBSET = 1000

_PATCH = 7
_PATCHES_PER_IMAGE = 128
_MAX_PATCHES = 2**16  # of a set: beyond, fewer are taken from each image, to bound the memory
_SMALLEST = 16  # pixels: the side at which the pyramid ends
_DIRECTIONS = 4, 128
_BINOMIAL = np.array([1, 4, 6, 4, 1], np.float32) / 16


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    """Frechet distance of two Gaussians fitted to x (n, d) and y (m, d).

    |mean_x - mean_y|^2 + tr(Sx + Sy - 2 (Sx Sy)^1/2), Heusel et al. 2017, "GANs trained by a two
    time-scale update rule". The root's trace is the sum of the singular values of X Y^T, where
    Sx = X^T X and Sy = Y^T Y. With fewer images than features that is exact and fast, while the
    usual matrix root takes roots of the rounding noise in zero eigenvalues.

    Biased: grows as n and m shrink. Compare only scores of equal counts.

    Raises:
      UserError: fewer than two images in a set.
    """
    (mean_x, x), (mean_y, y) = _centred(x), _centred(y)
    if min(len(x), len(y)) < x.shape[1]:
        root = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    else:
        values, vectors = np.linalg.eigh(x.T @ x)
        half = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
        values = np.linalg.eigvalsh(half @ (y.T @ y) @ half)
        root = np.sqrt(np.maximum(values, 0)).sum()
    difference = mean_x - mean_y
    return float(difference @ difference + (x**2).sum() + (y**2).sum() - 2 * root)


def kid(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy of x (n, d) and y (m, d), kernel (x.y/d + 1)^3.

    Binkowski et al. 2018, "Demystifying MMD GANs". Over all images; zero in the mean for two sets
    of one distribution, at any count. Hence a small negative value is possible, and right.

    Raises:
      UserError: fewer than two images in a set.
    """
    x, y = _float64(x), _float64(y)
    n, m = len(x), len(y)
    within_x = (_kernel_sum(x, x) - _kernel_trace(x)) / (n * (n - 1))
    within_y = (_kernel_sum(y, y) - _kernel_trace(y)) / (m * (m - 1))
    return float(within_x + within_y - 2 * _kernel_sum(x, y) / (n * m))


def kid_spread(x: np.ndarray, y: np.ndarray) -> tuple[float, int]:
    """Standard deviation of `kid` over 100 random subsets, and the size of a subset.

    The subsets overlap: it is a spread, not a standard error.

    Raises:
      UserError: fewer than four images in a set.
    """
    size = min(_MAX_SUBSET, min(len(x), len(y)) // 2)
    random = np.random.RandomState(0)
    draws = [
        kid(*(features[random.choice(len(features), size, replace=False)] for features in (x, y)))
        for _ in range(_SUBSETS)
    ]
    return float(np.std(draws)), size


def kid_and_spread(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """`kid` as '', and of four images or more also its '_std' and '_subset_size'."""
    found = {'': kid(x, y)}
    if min(len(x), len(y)) >= 4:
        found['_std'], found['_subset_size'] = kid_spread(x, y)
    return found


def _centred(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean, and the deviations scaled so that their product is the covariance."""
    x = _float64(x)
    mean = x.mean(axis=0)
    return mean, (x - mean) / np.sqrt(len(x) - 1)


def _float64(x: np.ndarray) -> np.ndarray:
    if len(x) < 2:
        raise UserError(f'a distance between sets wants at least 2 images in each, not {len(x)}')
    return x.astype(np.float64)


def _kernel_sum(x: np.ndarray, y: np.ndarray) -> float:
    """Sum over all pairs, without the whole matrix in memory."""
    blocks = range(0, len(x), _BLOCK)
    return sum(((x[i : i + _BLOCK] @ y.T / x.shape[1] + 1) ** 3).sum() for i in blocks)


def _kernel_trace(x: np.ndarray) -> float:
    return (((x**2).sum(axis=1) / x.shape[1] + 1) ** 3).sum()


def patches(image: np.ndarray, index: int, count: int) -> np.ndarray:
    """Random patches from each level of the image's pyramid, the finest first.

    Args:
      image: uint8 (h, w, c), no side under 7.
      index: the image's number in its set, which decides where the patches lie.
      count: images in the set.

    Returns:
      float32 (levels, patches, 7 * 7, c).

    Raises:
      UserError: a side under 7.
    """
    if min(image.shape[:2]) < _PATCH:
        raise UserError(f'image is {image.shape[:2]}; swd wants no side under {_PATCH} pixels')
    random = np.random.RandomState(index)
    number = min(_PATCHES_PER_IMAGE, max(1, _MAX_PATCHES // count))
    offsets = np.arange(_PATCH)
    levels = []
    for level in _laplacian_pyramid(image.astype(np.float32)):
        height, width, channels = level.shape
        y = random.randint(height - _PATCH + 1, size=number)[:, None, None] + offsets[:, None]
        x = random.randint(width - _PATCH + 1, size=number)[:, None, None] + offsets
        levels.append(level[y, x].reshape(number, _PATCH**2, channels))
    return np.stack(levels)


def sliced_wasserstein(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance at each level of the pyramid, times 1000 as usual; the score is their mean.

    Args:
      x, y: what `patches` returned for two sets, (images, levels, patches, 49, c).

    Returns:
      float64 (levels,), the finest first.
    """
    levels = zip(np.moveaxis(x, 1, 0), np.moveaxis(y, 1, 0), strict=True)
    return np.array([_level_distance(*level) for level in levels])


def sliced_wasserstein_by_level(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """The mean of `sliced_wasserstein` as '', and each level as '_level_0' and so on."""
    levels = sliced_wasserstein(x, y)
    return {'': float(levels.mean())} | {f'_level_{i}': float(v) for i, v in enumerate(levels)}


def _level_distance(x: np.ndarray, y: np.ndarray) -> float:
    x, y = _normalise(x), _normalise(y)
    # The inverse distributions are steps at multiples of 1/n and of 1/m, here in units of 1/(n m).
    # The distance is the area between them; for sets of one size the mean of sorted pairs.
    n, m = len(x), len(y)
    edges = np.union1d(np.arange(n) * m, np.arange(m) * n)
    widths = np.diff(edges, append=n * m)[:, None] / (n * m)
    random = np.random.RandomState(0)
    repeats, number = _DIRECTIONS
    means = []
    for _ in range(repeats):
        directions = random.standard_normal((x.shape[1], number))
        directions = (directions / np.linalg.norm(directions, axis=0)).astype(np.float32)
        sorted_x, sorted_y = np.sort(x @ directions, axis=0), np.sort(y @ directions, axis=0)
        gaps = np.abs(sorted_x[edges // m] - sorted_y[edges // n])
        means.append((gaps * widths).sum(axis=0).mean())
    return 1000 * np.mean(means)


def _normalise(patches: np.ndarray) -> np.ndarray:
    """(images, patches, 49, c) to (images * patches, 49 * c), channels of mean 0, deviation 1."""
    channels = patches.reshape(-1, patches.shape[-1])
    mean = channels.mean(axis=0, dtype=np.float64)
    deviation = channels.std(axis=0, dtype=np.float64)
    normal = (patches - mean) / np.maximum(deviation, 1e-8)
    return normal.reshape(-1, normal.shape[-2] * normal.shape[-1]).astype(np.float32)


def _laplacian_pyramid(image: np.ndarray) -> list[np.ndarray]:
    """Bands of detail, halving in size, and at the end what is left of the image."""
    levels = []
    while min(image.shape[:2]) // 2 >= _SMALLEST:
        smaller = _blur(image)[::2, ::2]
        spread = np.zeros_like(image)
        spread[::2, ::2] = smaller
        levels.append(image - 4 * _blur(spread))
        image = smaller
    return [*levels, image]


def _blur(image: np.ndarray) -> np.ndarray:
    from scipy.ndimage import correlate1d  # slow to import, and seldom needed

    return correlate1d(
        correlate1d(image, _BINOMIAL, axis=0, mode='mirror'), _BINOMIAL, axis=1, mode='mirror'
    )
