"""Sliced Wasserstein distance between the patches of two sets of images.

Karras et al. 2018, "Progressive growing of GANs", section 5. Patches of 7 x 7 pixels are taken from
each level of a Laplacian pyramid, each channel is normalised, and the sets' projections on random
directions are sorted and compared. It needs no network, and tells the scale at which sets differ.
"""

import numpy as np
from scipy.ndimage import correlate1d

_PATCH = 7
_PATCHES_PER_IMAGE = 128
_MAX_PATCHES = 2**16  # of a set: beyond, fewer are taken from each image, to bound the memory
_SMALLEST = 16  # pixels: the side at which the pyramid ends
_DIRECTIONS = 4, 128
_BINOMIAL = np.array([1, 4, 6, 4, 1], np.float32) / 16


def patches(image: np.ndarray, index: int, count: int) -> np.ndarray:
    """Random patches from each level of the image's pyramid, the finest first.

    Args:
      image: uint8 (h, w, c), no side under 7.
      index: the image's number in its set, which decides where the patches lie.
      count: images in the set.

    Returns:
      float32 (levels, patches, 7 * 7, c).

    Raises:
      ValueError: a side under 7.
    """
    if min(image.shape[:2]) < _PATCH:
        raise ValueError(f'image is {image.shape[:2]}; swd wants no side under {_PATCH} pixels')
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


def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance at each level of the pyramid, times 1000 as usual; the score is their mean.

    Args:
      x, y: what `patches` returned for two sets, (images, levels, patches, 49, c). Of the images
        and of their patches only as many are used as both sets have.

    Returns:
      float64 (levels,), the finest first.
    """
    images, number = min(len(x), len(y)), min(x.shape[2], y.shape[2])
    per_level = (np.moveaxis(patches[:images, :, :number], 1, 0) for patches in (x, y))
    return np.array([_level_distance(*level) for level in zip(*per_level, strict=True)])


def _level_distance(x: np.ndarray, y: np.ndarray) -> float:
    x, y = _normalise(x), _normalise(y)
    random = np.random.RandomState(0)
    repeats, number = _DIRECTIONS
    means = []
    for _ in range(repeats):
        directions = random.standard_normal((x.shape[1], number))
        directions = (directions / np.linalg.norm(directions, axis=0)).astype(np.float32)
        sorted_x, sorted_y = np.sort(x @ directions, axis=0), np.sort(y @ directions, axis=0)
        means.append(np.abs(sorted_x - sorted_y).mean(dtype=np.float64))
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
    return correlate1d(
        correlate1d(image, _BINOMIAL, axis=0, mode='mirror'), _BINOMIAL, axis=1, mode='mirror'
    )
