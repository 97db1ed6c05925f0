"""Image pairs: which belong together by their names, and how alike they are.

PSNR and SSIM depend on the range, and SSIM of images in [-1, 1] as if they were uint8 is plausible
but wrong: other types than uint8 are refused, unless `peak` says what their range is. They are
scikit-image's to the last digits (a test compares), but that comes with four other packages and 56
MB, for the few lines here.
"""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np

from cyclegan_jax.errors import UserError, shortlist

MAX_PSNR = 100.0  # dB; identical images would score infinity and carry every mean with them

_WINDOW = 11
_SIGMA = 1.5
_K1, _K2 = 0.01, 0.03
# What is added to the names of pictures by facades and maps, pix2pix, Cityscapes.
_SUFFIX = re.compile(
    r'_(?:(?:real_|fake_|rec_)?[AB]|leftImg8bit|gtFine_(?:labelIds|labelTrainIds|color))$'
)


def psnr(
    x: np.ndarray, y: np.ndarray, mask: np.ndarray | None = None, *, peak: float | None = None
) -> np.ndarray:
    """Peak signal-to-noise ratio, `10 log10(peak^2 / mean squared error)`, at most 100 dB.

    Args:
      x, y: uint8 (n, h, w, c); of any type with `peak`.
      mask: bool (n, h, w), the pixels to score; all of them when None.
      peak: by how much two values can differ: 255 of uint8.

    Returns:
      float64 (n,), dB. NaN where an image's mask is empty. Report the mean of these: the dB of a
      mean error is another number, ruled by the worst images.

    Raises:
      ValueError: images that are not uint8, or shapes that differ.
    """
    peak = _peak(x, y, peak)
    if mask is None:
        mask = np.ones(x.shape[:3], bool)
    elif mask.dtype != bool or mask.shape != x.shape[:3]:
        raise ValueError(
            f'mask is {mask.dtype} {mask.shape}; psnr wants bool {x.shape[:3]}, one value per pixel'
        )
    return np.array([_psnr(*pair, peak) for pair in zip(x, y, mask, strict=True)])


def ssim(x: np.ndarray, y: np.ndarray, *, peak: float | None = None) -> np.ndarray:
    """Structural similarity: 1 for identical images, near 0 for unrelated ones.

    Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity".
    The window is an 11 x 11 Gaussian of sigma 1.5, only where it fits inside the image; k1 = 0.01,
    k2 = 0.03. Windows, then channels, are averaged.

    Args:
      x, y: uint8 (n, h, w, c), no side under 11; of any type with `peak`.
      peak: by how much two values can differ: 255 of uint8.

    Returns:
      float64 (n,), in [-1, 1].

    Raises:
      ValueError: images that are not uint8, or shapes that differ.
      UserError: a side under 11.
    """
    peak = _peak(x, y, peak)
    if min(x.shape[1:3]) < _WINDOW:
        raise UserError(
            f'images are {x.shape[1]} x {x.shape[2]}; ssim wants no side under {_WINDOW} pixels'
        )
    return np.array([_ssim(*pair, peak) for pair in zip(x, y, strict=True)])


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson correlation of brightness, over the pixels of an image and its translation.

    Args:
      x, y: uint8 (h, w, c), of one size; the channels may differ.

    Returns:
      In [-1, 1]; 0 where one of them has the same brightness everywhere.
    """
    x, y = (image.mean(axis=-1) for image in (x, y))
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x**2).sum() * (y**2).sum())
    return float((x * y).sum() / scale) if scale else 0.0


def key(name: str) -> str:
    """What names that belong together have in common: the stem, less the usual suffixes."""
    return _SUFFIX.sub('', unicodedata.normalize('NFC', PurePath(name).stem))


def match(names: Sequence[str], others: Sequence[str], what: str) -> list[int]:
    """For each name the number of its partner among `others`; each must have exactly one.

    Args:
      what: how an error calls the two sides, such as '--fake and --truth'.

    Raises:
      UserError: names without a partner, or two of one key.
    """
    places = {key(name): place for place, name in enumerate(others)}
    keys = [key(name) for name in names]
    if len(places) < len(others) or len(set(keys)) < len(keys):
        raise UserError(f'{what}: files of one name, but for suffix or folder, cannot be paired')
    alone = sorted(set(keys) ^ set(places))
    if alone:
        raise UserError(
            f'{what} do not hold the same names: {len(names)} and {len(others)} files, on one side '
            f'only {shortlist(alone, 5)}; are there files left over from an older run?'
        )
    return [places[k] for k in keys]


def _peak(x: np.ndarray, y: np.ndarray, peak: float | None) -> float:
    """`peak`, or that of uint8; checks that the images can be compared."""
    for images in (x, y):
        if (peak is None and images.dtype != np.uint8) or images.ndim != 4:
            raise ValueError(
                f'images are {images.dtype} {images.shape}; paired scores want uint8 (n, h, w, c): '
                'convert them with Pixels.to_stored, or say what their peak is'
            )
    if x.shape != y.shape:
        raise ValueError(f'images of a pair differ in shape: {x.shape} and {y.shape}')
    return 255.0 if peak is None else peak


def _psnr(x: np.ndarray, y: np.ndarray, mask: np.ndarray, peak: float) -> float:
    if not mask.any():
        return np.nan
    squared_error = (x[mask].astype(np.float64) - y[mask]) ** 2
    with np.errstate(divide='ignore'):
        return min(MAX_PSNR, 10 * np.log10(peak**2 / squared_error.mean()))


def _ssim(x: np.ndarray, y: np.ndarray, peak: float) -> float:
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    x, y = x.astype(np.float64), y.astype(np.float64)
    mean_x, mean_y = _local_mean(x), _local_mean(y)
    var_x = _local_mean(x * x) - mean_x**2
    var_y = _local_mean(y * y) - mean_y**2
    covariance = _local_mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return (luminance * structure).mean()


def _local_mean(image: np.ndarray) -> np.ndarray:
    """(h, w, c) -> (h - 10, w - 10, c): the mean under every window that fits."""
    from scipy.ndimage import gaussian_filter  # its import is a sixth of a training's imports

    radius = _WINDOW // 2
    blurred = gaussian_filter(image, _SIGMA, radius=radius, axes=(0, 1))
    return blurred[radius:-radius, radius:-radius]
