"""The network behind FID and KID: Google's Inception graph of 2015-12-05, as a function of images.

It is not torchvision's Inception v3. Its average pools leave padding out of the mean, the last
block's pool takes the maximum, and its batch norm has an epsilon of 1e-3 (`inception_weights`).
Layer names are those of pytorch-fid's state dict.

There are three ways to give it an image, each with its own published numbers. They disagree by
several points of FID, so that a score without its protocol means nothing.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from PIL import Image

Array = jax.Array
# (name, x, features, kernel, stride, padding) -> convolution, batch norm and ReLU.
Unit = Callable[..., Array]
Params = Mapping[str, tuple[Array, Array]]

SIZE = 299
PROTOCOLS = {
    # pytorch-fid; what the tables of CycleGAN's and CUT's successors use
    'pytorch': '299 x 299 bilinear at pixel centres, not antialiased; 2 x / 255 - 1',
    # clean-fid
    'clean': '299 x 299 bicubic, antialiased (Pillow), not rounded; (x - 128) / 128',
    # the graph of TTUR, torch-fidelity
    'tensorflow': '299 x 299 bilinear at pixel corners, not antialiased; (x - 128) / 128',
}


def features(params: Params, images: Array) -> Array:
    """The features that FID and KID compare ("pool3").

    Args:
      params: for each unit its kernel (h, w, in, out) and bias (out), batch norm folded in.
      images: float32 (n, 299, 299, 3), in [-1, 1] as `prepare` makes them.

    Returns:
      float32 (n, 2048).
    """

    def unit(name, x, features, kernel=1, stride=1, padding='SAME'):
        weights, bias = params[name]
        return jax.nn.relu(convolve(x, weights, stride, padding) + bias.reshape(1, 1, 1, -1))

    return _network(unit, images)


@functools.cache
def kernel_shapes() -> dict[str, tuple[int, int, int, int]]:
    """Name of each unit and the shape of its kernel, in torch's order (out, in, h, w)."""
    shapes = {}

    def unit(name, x, features, kernel=1, stride=1, padding='SAME'):
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        shapes[name] = (features, x.shape[-1], height, width)
        return convolve(x, jnp.zeros((height, width, x.shape[-1], features)), stride, padding)

    jax.eval_shape(functools.partial(_network, unit), jnp.zeros((1, SIZE, SIZE, 3)))
    return shapes


def _network(unit: Unit, x: Array) -> Array:
    def block(name: str) -> Unit:
        return lambda layer, *args: unit(f'{name}.{layer}', *args)

    x = unit('Conv2d_1a_3x3', x, 32, 3, 2, 'VALID')
    x = unit('Conv2d_2a_3x3', x, 32, 3, 1, 'VALID')
    x = unit('Conv2d_2b_3x3', x, 64, 3)
    x = _max_pool(x, 2, 'VALID')
    x = unit('Conv2d_3b_1x1', x, 80)
    x = unit('Conv2d_4a_3x3', x, 192, 3, 1, 'VALID')
    x = _max_pool(x, 2, 'VALID')
    x = _mixed_5(block('Mixed_5b'), x, 32)  # from here 35 x 35
    x = _mixed_5(block('Mixed_5c'), x, 64)
    x = _mixed_5(block('Mixed_5d'), x, 64)
    x = _mixed_6a(block('Mixed_6a'), x)  # 17 x 17
    x = _mixed_6(block('Mixed_6b'), x, 128)
    x = _mixed_6(block('Mixed_6c'), x, 160)
    x = _mixed_6(block('Mixed_6d'), x, 160)
    x = _mixed_6(block('Mixed_6e'), x, 192)
    x = _mixed_7a(block('Mixed_7a'), x)  # 8 x 8
    x = _mixed_7(block('Mixed_7b'), x, _average_pool)
    x = _mixed_7(block('Mixed_7c'), x, lambda x: _max_pool(x, 1, 'SAME'))
    return x.mean(axis=(1, 2))


def _mixed_5(unit: Unit, x: Array, pool_features: int) -> Array:
    return _concatenate(
        unit('branch1x1', x, 64),
        _chain(unit, x, 'branch5x5', (48,), (64, 5)),
        _chain(unit, x, 'branch3x3dbl', (64,), (96, 3), (96, 3)),
        unit('branch_pool', _average_pool(x), pool_features),
    )


def _mixed_6a(unit: Unit, x: Array) -> Array:
    return _concatenate(
        unit('branch3x3', x, 384, 3, 2, 'VALID'),
        _chain(unit, x, 'branch3x3dbl', (64,), (96, 3), (96, 3, 2, 'VALID')),
        _max_pool(x, 2, 'VALID'),
    )


def _mixed_6(unit: Unit, x: Array, width: int) -> Array:
    row, column = (width, (1, 7)), (width, (7, 1))
    return _concatenate(
        unit('branch1x1', x, 192),
        _chain(unit, x, 'branch7x7', (width,), row, (192, (7, 1))),
        _chain(unit, x, 'branch7x7dbl', (width,), column, row, column, (192, (1, 7))),
        unit('branch_pool', _average_pool(x), 192),
    )


def _mixed_7a(unit: Unit, x: Array) -> Array:
    last = (192, 3, 2, 'VALID')
    return _concatenate(
        _chain(unit, x, 'branch3x3', (192,), (320, 3, 2, 'VALID')),
        _chain(unit, x, 'branch7x7x3', (192,), (192, (1, 7)), (192, (7, 1)), last),
        _max_pool(x, 2, 'VALID'),
    )


def _mixed_7(unit: Unit, x: Array, pool: Callable[[Array], Array]) -> Array:
    row, column = (1, 3), (3, 1)
    wide = unit('branch3x3_1', x, 384)
    deep = _chain(unit, x, 'branch3x3dbl', (448,), (384, 3))
    return _concatenate(
        unit('branch1x1', x, 320),
        unit('branch3x3_2a', wide, 384, row),
        unit('branch3x3_2b', wide, 384, column),
        unit('branch3x3dbl_3a', deep, 384, row),
        unit('branch3x3dbl_3b', deep, 384, column),
        unit('branch_pool', pool(x), 192),
    )


def _chain(unit: Unit, x: Array, name: str, *layers: tuple) -> Array:
    for number, args in enumerate(layers, 1):
        x = unit(f'{name}_{number}', x, *args)
    return x


def convolve(x: Array, kernel: Array, stride: int, padding: str | Sequence) -> Array:
    """x (n, h, w, in) with a kernel (h, w, in, out), in float32 on any device."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        # Some GPUs would compute float32 convolutions in TF32, and the score would change.
        precision=lax.Precision.HIGHEST,
    )


def _concatenate(*branches: Array) -> Array:
    return jnp.concatenate(branches, axis=-1)


def _max_pool(x: Array, stride: int, padding: str) -> Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, stride, stride, 1), padding)


def _average_pool(x: Array) -> Array:
    """3 x 3, stride 1. At the border the mean is over the pixels inside the image."""

    def window_sum(x):
        return lax.reduce_window(x, 0.0, lax.add, (1, 3, 3, 1), (1, 1, 1, 1), 'SAME')

    return window_sum(x) / window_sum(jnp.ones((1, *x.shape[1:3], 1), x.dtype))


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
