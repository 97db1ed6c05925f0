"""Distances between two sets of feature vectors: Frechet (FID) and kernel (KID).

Both compute in float64: float32 statistics of 140 against 120 images are off by several points.
"""

import numpy as np

_BLOCK = 1024  # rows of the kernel matrix at a time
_SUBSETS = 100
_MAX_SUBSET = 1000


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    """Frechet distance of two Gaussians fitted to x (n, d) and y (m, d).

    |mean_x - mean_y|^2 + tr(Sx + Sy - 2 (Sx Sy)^1/2), Heusel et al. 2017, "GANs trained by a two
    time-scale update rule". The root's trace is the sum of the singular values of X Y^T, where
    Sx = X^T X and Sy = Y^T Y. With fewer images than features that is exact and fast, while the
    usual matrix root takes roots of the rounding noise in zero eigenvalues.

    Biased: grows as n and m shrink. Compare only scores of equal counts.

    Raises:
      ValueError: fewer than two images in a set.
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
      ValueError: fewer than two images in a set.
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
      ValueError: fewer than four images in a set.
    """
    size = min(_MAX_SUBSET, min(len(x), len(y)) // 2)
    random = np.random.RandomState(0)
    draws = [
        kid(*(features[random.choice(len(features), size, replace=False)] for features in (x, y)))
        for _ in range(_SUBSETS)
    ]
    return float(np.std(draws)), size


def _centred(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean, and the deviations scaled so that their product is the covariance."""
    x = _float64(x)
    mean = x.mean(axis=0)
    return mean, (x - mean) / np.sqrt(len(x) - 1)


def _float64(x: np.ndarray) -> np.ndarray:
    if len(x) < 2:
        raise ValueError(f'a distance between sets wants at least 2 images in each, not {len(x)}')
    return x.astype(np.float64)


def _kernel_sum(x: np.ndarray, y: np.ndarray) -> float:
    """Sum over all pairs, without the whole matrix in memory."""
    blocks = range(0, len(x), _BLOCK)
    return sum(((x[i : i + _BLOCK] @ y.T / x.shape[1] + 1) ** 3).sum() for i in blocks)


def _kernel_trace(x: np.ndarray) -> float:
    return (((x**2).sum(axis=1) / x.shape[1] + 1) ** 3).sum()
