"""`randconv_kid_v1`: the kernel distance between features of a fixed random network.

A regression metric of this package, for want of downloaded weights. It ranks checkpoints of a run;
it can be compared with no paper. Any change here that changes a value needs a new version name.
"""

import jax
import jax.numpy as jnp
import numpy as np

from cyclegan_jax.evaluation.inception import convolve

Array = jax.Array

_WIDTHS = 64, 128, 256


def parameters() -> list[np.ndarray]:
    """Kernels (3, 3, in, out), He-normal. RandomState's streams never change."""
    random = np.random.RandomState(0)
    sizes = zip((3, *_WIDTHS), _WIDTHS, strict=False)
    return [
        (random.standard_normal((3, 3, n, m)) * np.sqrt(2 / (9 * n))).astype(np.float32)
        for n, m in sizes
    ]


def features(params: list[Array], images: Array) -> Array:
    """Mean and standard deviation of each channel after each of three strided convolutions.

    Args:
      params: as `parameters` returns them.
      images: uint8 (n, h, w, 3).

    Returns:
      float32 (n, 896).
    """
    x = images.astype(jnp.float32) / 127.5 - 1
    moments = []
    for kernel in params:
        x = jax.nn.relu(convolve(x, kernel, 2, ((1, 1), (1, 1))))
        moments += [x.mean(axis=(1, 2)), x.std(axis=(1, 2))]
    return jnp.concatenate(moments, axis=-1)
