"""What makes the work the same on all sides: images, weights, the way operations are counted."""

import time
import zlib
from collections.abc import Callable

import numpy as np


def images(batch: int, size: int) -> np.ndarray:
    """(n, h, w, 3) float32 in [-1, 1]."""
    return np.random.default_rng(0).uniform(-1, 1, (batch, size, size, 3)).astype(np.float32)


def weights(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor of this key in the published code's state dict, from N(0, 0.02)."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    return rng.normal(0, 0.02, shape).astype(np.float32)


def training_flops(generator: float, discriminator: float) -> float:
    """Operations of an update with a pair of images.

    Each generator sees three images, and each discriminator two of its own update's: one pass
    forward and two for the gradients. In the generators' update a discriminator sees one more, and
    needs no gradient of its parameters.

    Args:
      generator, discriminator: operations of one image's pass forward.
    """
    return 2 * (3 * 3 * generator + (2 * 3 + 2) * discriminator)


def matrix_rate(platform: str, make_multiply: Callable[[int], Callable[[int], None]]) -> float:
    """Operations a second in products of square matrices, the best of five turns.

    Args:
      platform: 'cpu', or one that needs larger matrices, and a queue of them, for its full rate.
      make_multiply: from the side of the matrices to a function that does so many products, and
        returns when the last is done.
    """
    side, products = (2048, 1) if platform == 'cpu' else (8192, 20)
    multiply = make_multiply(side)
    multiply(1)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        multiply(products)
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 * products / min(seconds)
