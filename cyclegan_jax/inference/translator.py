"""One trained generator, ready for images of any size."""

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from PIL import Image

from cyclegan_jax import sharding
from cyclegan_jax.inference import pictures
from cyclegan_jax.inference.tiling import translate_in_tiles
from cyclegan_jax.interop import Network, load_pretrained, make_module

AnyImage = Image.Image | np.ndarray

_SMALLEST = 16  # pixels: below this, instance norm has next to nothing to average over
_SMALLEST_TILE = 16  # pixels; below that the network sees next to nothing of the picture


class Translator:
    """Translates images from one domain to the other, each at its own size.

    An image is extended by reflection, at the right and the bottom, to sides that the network can
    halve often enough, and the translation is cut back. Each padded size is compiled once.

    Args:
      network: a generator, for example one of `load_pretrained`.
      pad: False gives images to the network as they are, and returns what comes out: for sides that
        are no multiples of 4, a ResNet's output is larger, as the PyTorch code's is.
    """

    def __init__(self, network: Network, *, pad: bool = True):
        self.channels = network.channels
        self._module = make_module(network.role, network.spec, network.channels)
        self._pad = pad
        self._params = network.params
        self._params_on = {}  # by number of devices
        self._jitted = jax.jit(self._forward)

    @classmethod
    def from_pretrained(
        cls, model: str | Path, direction: str = 'a2b', step: int | str | None = None
    ) -> 'Translator':
        """Loads one generator.

        Args:
          model: a workdir, an exported folder, a .pth, .bin or .safetensors file, or user/name of
            the hub: see `load_pretrained`.
          direction: 'a2b' or 'b2a'. A file with one generator is taken to map that.
          step: which checkpoint of a workdir, or 'best'; the latest by default.

        Raises:
          ValueError: there is no such model, or not in this direction.
        """
        if direction not in ('a2b', 'b2a'):
            raise ValueError(f"direction is {direction!r}; it must be 'a2b' or 'b2a'.")
        networks = load_pretrained(model, direction=direction, step=step)
        if direction not in networks:
            raise ValueError(
                f'{model} has no generator {direction}; the direction can be {", ".join(networks)}.'
            )
        return cls(networks[direction])

    def __call__(
        self,
        images: AnyImage | Sequence[AnyImage],
        *,
        batch_size: int = 1,
        size: int | tuple[int, int] | None = None,
        tile: int | None = None,
    ) -> AnyImage | list[AnyImage]:
        """Translates an image, or a list of images of any sizes.

        Args:
          images: Pillow images of any 8-bit mode or 16-bit grey; or arrays (h, w, c) of uint8,
            uint16, or float32 in [-1, 1]; c is `channels[0]`.
          batch_size: how many of one size go through the network together.
          size: resizes first, bicubic: the shorter side, or (height, width). The translation is
            resized back.
          tile: translates larger images in overlapping tiles with sides of so many pixels.

        Returns:
          For each image its translation: a Pillow image (see `pictures`), or an array
          (h, w, channels[1]) of the same type. A list for a list.

        Raises:
          ValueError: an image of a kind or type that is not taken.
        """
        if tile is not None and tile < _SMALLEST_TILE:
            raise ValueError(f'tile is {tile}; it must be at least {_SMALLEST_TILE}.')
        if isinstance(images, Image.Image | np.ndarray):
            return self([images], batch_size=batch_size, size=size, tile=tile)[0]
        sources = [self._to_source(image) for image in images]
        own_sizes = [source.pixels.shape[:2] for source in sources]
        arrays = [pictures.resize(s.pixels, scaled_size(s.pixels.shape, size)) for s in sources]
        results = [None] * len(arrays)
        alike = defaultdict(list)
        for i, array in enumerate(arrays):
            if tile and max(array.shape[:2]) > tile:
                results[i] = self._translate_in_tiles(array, tile, batch_size)
            else:
                alike[array.shape, array.dtype].append(i)
        for indices in alike.values():
            translated = self._translate([arrays[i] for i in indices], batch_size)
            for i, pixels in zip(indices, translated, strict=True):
                results[i] = pixels
        if size is not None:
            results = [pictures.resize(r, own) for r, own in zip(results, own_sizes, strict=True)]
        return [
            pictures.join(pixels, source) if isinstance(image, Image.Image) else pixels
            for image, source, pixels in zip(images, sources, results, strict=True)
        ]

    def _to_source(self, image: AnyImage) -> pictures.Picture:
        if isinstance(image, Image.Image):
            return pictures.split(image, self.channels[0])
        channels = self.channels[0]
        if image.ndim != 3 or image.shape[2] != channels or 0 in image.shape:
            raise ValueError(f'an image has shape {image.shape}; it must be (h, w, {channels}).')
        if image.dtype not in (np.uint8, np.uint16, np.float32):
            raise ValueError(
                f'an image is of type {image.dtype}; must be uint8, uint16, or float32 in [-1, 1].'
            )
        return pictures.Picture(image, None, grey=False)

    def _translate_in_tiles(self, image: np.ndarray, tile: int, batch_size: int) -> np.ndarray:
        half = _half_range(image.dtype)
        as_float = image if half is None else image.astype(np.float32) / np.float32(half) - 1
        result = translate_in_tiles(
            as_float, tile, lambda tiles: self._translate(tiles, batch_size)
        )
        return result if half is None else np.round((result + 1) * half).astype(image.dtype)

    def _translate(self, images: list[np.ndarray], batch_size: int) -> list[np.ndarray]:
        """Images of one shape and type, in batches."""
        results = []
        for start in range(0, len(images), batch_size):
            batch = np.stack(images[start : start + batch_size])
            results += list(self._translate_batch(batch, batch_size))
        return results

    def _translate_batch(self, batch: np.ndarray, batch_size: int) -> np.ndarray:
        number, height, width, _ = batch.shape
        # Filled up to a power of two, so that each size is compiled for a few batch sizes at most.
        filled = min(batch_size, 1 << (number - 1).bit_length())
        bottom, right = self._padding(height), self._padding(width)
        batch = np.pad(batch, ((0, filled - number), (0, 0), (0, 0), (0, 0)), 'edge')
        batch = np.pad(batch, ((0, 0), (0, bottom), (0, right), (0, 0)), 'reflect')
        params, place = self._placed(math.gcd(filled, jax.local_device_count()))
        result = np.asarray(self._jitted(params, jax.device_put(batch, place)))
        return result[:number, :height, :width] if self._pad else result[:number]

    def _padding(self, side: int) -> int:
        multiple = self._module.size_multiple
        return -(-max(side, _SMALLEST) // multiple) * multiple - side if self._pad else 0

    def _placed(self, num_devices: int):
        """Parameters on so many devices, and where a batch goes."""
        if num_devices not in self._params_on:
            devices = jax.local_devices()[:num_devices]
            mesh = jax.make_mesh(
                (num_devices,), ('data',), axis_types=(AxisType.Auto,), devices=devices
            )
            params = jax.device_put(self._params, sharding.replicated(mesh))
            self._params_on[num_devices] = params, sharding.split(mesh)
        return self._params_on[num_devices]

    def _forward(self, params, batch):
        half = _half_range(batch.dtype)
        x = batch if half is None else batch.astype(jnp.float32) / half - 1
        y = self._module.apply({'params': params}, x)
        return y if half is None else jnp.round((y + 1) * half).astype(batch.dtype)


def scaled_size(shape: tuple[int, ...], size: int | tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) for an image of this shape: `size`, or the shorter side scaled to it."""
    height, width = shape[:2]
    if size is None:
        return height, width
    if isinstance(size, tuple):
        return size
    longer = int(size * max(height, width) / min(height, width))
    return (size, longer) if height <= width else (longer, size)


def _half_range(dtype: np.dtype) -> float | None:
    """Half of the largest value of an integer type; None for floating point, already in [-1, 1]."""
    return np.iinfo(dtype).max / 2 if np.issubdtype(dtype, np.integer) else None
