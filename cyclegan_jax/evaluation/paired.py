"""PSNR and SSIM of image pairs, one score per image.

Both want uint8: they depend on the range, and SSIM of images in [-1, 1] is plausible but wrong.
"""

import numpy as np
from scipy.ndimage import gaussian_filter

MAX_PSNR = 100.0  # dB; identical images would score infinity and carry every mean with them

_WINDOW = 11
_SIGMA = 1.5
_C1 = (0.01 * 255) ** 2
_C2 = (0.03 * 255) ** 2


def psnr(x: np.ndarray, y: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Peak signal-to-noise ratio, `10 log10(255^2 / mean squared error)`, at most 100 dB.

    Args:
      x, y: uint8 (n, h, w, c).
      mask: bool (n, h, w), the pixels to score; all of them when None.

    Returns:
      float64 (n,), dB. NaN where an image's mask is empty. Report the mean of these: the dB of a
      mean error is another number, ruled by the worst images.

    Raises:
      ValueError: images that are not uint8, or shapes that differ.
    """
    _check(x, y)
    if mask is None:
        mask = np.ones(x.shape[:3], bool)
    elif mask.dtype != bool or mask.shape != x.shape[:3]:
        raise ValueError(
            f'mask is {mask.dtype} {mask.shape}; psnr wants bool {x.shape[:3]}, one value per pixel'
        )
    return np.array([_psnr(*pair) for pair in zip(x, y, mask, strict=True)])


def ssim(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Structural similarity: 1 for identical images, near 0 for unrelated ones.

    Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity".
    The window is an 11 x 11 Gaussian of sigma 1.5, only where it fits inside the image; k1 = 0.01,
    k2 = 0.03. Windows, then channels, are averaged.

    Args:
      x, y: uint8 (n, h, w, c), no side under 11.

    Returns:
      float64 (n,), in [-1, 1].

    Raises:
      ValueError: images that are not uint8, shapes that differ, or a side under 11.
    """
    _check(x, y)
    if min(x.shape[1:3]) < _WINDOW:
        raise ValueError(
            f'images are {x.shape[1]} x {x.shape[2]}; ssim wants no side under {_WINDOW} pixels'
        )
    return np.array([_ssim(*pair) for pair in zip(x, y, strict=True)])


def _check(x: np.ndarray, y: np.ndarray) -> None:
    for images in (x, y):
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(
                f'images are {images.dtype} {images.shape}; paired scores want uint8 (n, h, w, c): '
                'convert [-1, 1] with train_step.to_uint8'
            )
    if x.shape != y.shape:
        raise ValueError(f'images of a pair differ in shape: {x.shape} and {y.shape}')


def _psnr(x: np.ndarray, y: np.ndarray, mask: np.ndarray) -> float:
    if not mask.any():
        return np.nan
    squared_error = (x[mask].astype(np.float64) - y[mask]) ** 2
    with np.errstate(divide='ignore'):
        return min(MAX_PSNR, 10 * np.log10(255**2 / squared_error.mean()))


def _ssim(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x.astype(np.float64), y.astype(np.float64)
    mean_x, mean_y = _local_mean(x), _local_mean(y)
    var_x = _local_mean(x * x) - mean_x**2
    var_y = _local_mean(y * y) - mean_y**2
    covariance = _local_mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    structure = (2 * covariance + _C2) / (var_x + var_y + _C2)
    return (luminance * structure).mean()


def _local_mean(image: np.ndarray) -> np.ndarray:
    """(h, w, c) -> (h - 10, w - 10, c): the mean under every window that fits."""
    radius = _WINDOW // 2
    blurred = gaussian_filter(image, _SIGMA, radius=radius, axes=(0, 1))
    return blurred[radius:-radius, radius:-radius]
