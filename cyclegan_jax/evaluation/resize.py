"""Three ways to give an image to the FID network, each with its own published numbers.

They disagree by several points of FID, so that a score without its protocol means nothing.
"""

import numpy as np
from PIL import Image

from cyclegan_jax.evaluation.inception import SIZE

PROTOCOLS = {
    # pytorch-fid; what the tables of CycleGAN's and CUT's successors use
    'pytorch': '299 x 299 bilinear at pixel centres, not antialiased; 2 x / 255 - 1',
    # clean-fid
    'clean': '299 x 299 bicubic, antialiased (Pillow), not rounded; (x - 128) / 128',
    # the graph of TTUR, torch-fidelity
    'tensorflow': '299 x 299 bilinear at pixel corners, not antialiased; (x - 128) / 128',
}


def prepare(image: np.ndarray, protocol: str) -> np.ndarray:
    """Resizes and scales one image as `protocol` does.

    Args:
      image: uint8 (h, w, 3), of any size.
      protocol: one of PROTOCOLS.

    Returns:
      float32 (299, 299, 3), in [-1, 1].
    """
    image = image.astype(np.float32)
    if protocol == 'pytorch':
        y, x = (_centres(side) for side in image.shape[:2])
        return 2 * _bilinear(image / 255, y, x) - 1
    if protocol == 'tensorflow':
        y, x = (np.arange(SIZE, dtype=np.float32) * np.float32(n / SIZE) for n in image.shape[:2])
        resized = _bilinear(image, y, x)
    else:
        resized = np.stack([_bicubic(channel) for channel in np.moveaxis(image, -1, 0)], axis=-1)
    return (resized - 128) / 128


def _centres(side: int) -> np.ndarray:
    """Where the centres of the resized pixels fall among those of the original ones."""
    # torch scales in float32, but multiplies and subtracts with one rounding.
    scale = np.float64(np.float32(side / SIZE))
    return np.maximum(scale * (np.arange(SIZE) + 0.5) - 0.5, 0).astype(np.float32)


def _bilinear(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Samples (h, w, c) at rows y and columns x; the last row and column continue outwards."""
    left, right, share = _neighbours(x, image.shape[1])
    rows = image[:, left] + (image[:, right] - image[:, left]) * share[:, None]
    top, bottom, share = _neighbours(y, image.shape[0])
    return rows[top] + (rows[bottom] - rows[top]) * share[:, None, None]


def _neighbours(positions: np.ndarray, side: int) -> tuple[np.ndarray, ...]:
    below = np.floor(positions)  # float32, as every number of the reference
    first = below.astype(int)
    return first, np.minimum(first + 1, side - 1), positions - below


def _bicubic(channel: np.ndarray) -> np.ndarray:
    resized = Image.fromarray(channel).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return np.asarray(resized).clip(0, 255)
