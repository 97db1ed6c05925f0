"""One trained generator, ready for images of any size."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import logging
from PIL import Image

from cyclegan_jax.data.arrays import as_stored
from cyclegan_jax.data.images import resize
from cyclegan_jax.errors import UserError, check_at_least, check_choice
from cyclegan_jax.inference import pictures, runtimes
from cyclegan_jax.inference.runner import SMALLEST, Runner
from cyclegan_jax.inference.runtimes import half_range
from cyclegan_jax.inference.tiling import (
    Read,
    Window,
    beyond_the_sides,
    run_in_tiles,
    small_copy,
)
from cyclegan_jax.interop import Network, load_pretrained

AnyImage = Image.Image | np.ndarray

_SMALLEST_TILE = 16  # pixels; below that the network sees next to nothing of the picture


class Translator:
    """Translates images from one domain to the other, each at its own size.

    An image is extended by reflection, at the right and the bottom, to sides that the network can
    halve often enough, and the translation is cut back. Each padded size is compiled once, and the
    programs of the last few sizes are kept.

    Args:
      network: a generator, for example one of `load_pretrained`.
      pad: False gives images to the network as they are, and returns what comes out: for sides that
        are no multiples of 4, a ResNet's output is larger, as the PyTorch code's is.
      name: what errors call the network.
      runtime: what runs it: 'jax', on all devices of this process; 'onnxruntime' or 'openvino', on
        the CPU, which compile nothing.
      dtype: what convolutions are computed in: 'float32', or 'bfloat16' for speed.

    Raises:
      UserError: the runtime is not installed, or has no such network or type.
    """

    def __init__(
        self,
        network: Network,
        *,
        pad: bool = True,
        name: str = 'the generator',
        runtime: str = 'jax',
        dtype: str = 'float32',
    ):
        check_choice('runtime', runtime, runtimes.RUNTIMES)
        check_choice('dtype', dtype, runtimes.DTYPES)
        self.channels, self.pixels = network.channels, network.pixels
        self.network, self.photographs = network, network.photographs
        self._name = name
        self._runner = Runner(network, pad=pad, name=name, runtime=runtime, dtype=dtype)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        direction: str = 'a2b',
        step: int | str | None = None,
        weights: str | None = None,
        *,
        runtime: str = 'jax',
        dtype: str = 'float32',
    ) -> 'Translator':
        """Loads one generator.

        Args:
          model: a workdir, an exported folder, a .pth, .bin or .safetensors file, or user/name of
            the hub: see `load_pretrained`.
          direction: 'a2b' or 'b2a'. A file with one generator is taken to map that.
          step: which checkpoint of a workdir, or 'best'; the latest by default.
          weights: of a workdir: 'trained', or their 'average', the default where there is one.
          runtime, dtype: see above.

        Raises:
          UserError: there is no such model, or not in this direction, or it is of no use; or as
            above.
        """
        check_choice('direction', direction, ('a2b', 'b2a'))
        networks = load_pretrained(model, direction=direction, step=step, weights=weights)
        if direction not in networks:
            raise UserError(
                f'{model} has no generator {direction}; the direction can be {", ".join(networks)}.'
            )
        name = f'{direction} of {model}'
        return cls(networks[direction], name=name, runtime=runtime, dtype=dtype)

    def __call__(
        self,
        images: AnyImage | Sequence[AnyImage],
        *,
        batch_size: int = 1,
        size: int | tuple[int, int] | None = None,
        tile: int | None = None,
        colour: str = 'keep',
    ) -> AnyImage | list[AnyImage]:
        """Translates an image, or a list of images of any sizes.

        Args:
          images: Pillow images of any 8-bit mode or 16-bit grey; or arrays (h, w, c) of uint8,
            uint16, or float32 in [-1, 1]; c is `channels[0]`. If the generator is not of
            photographs, only arrays, of the type and in the units of `pixels[0]`.
          batch_size: how many of one size go through the network together.
          size: resizes first, bicubic: the shorter side, or (height, width). The translation is
            resized back.
          tile: translates larger images in overlapping tiles with sides of so many pixels, see
            `translate_windows`.
          colour: 'keep' gives a grey Pillow image for a grey one, even if the generator maps
            colours to colours; 'model' what the generator makes of it, as for label maps.

        Returns:
          For each image its translation: a Pillow image (see `pictures`), or an array
          (h, w, channels[1]) of the same type, or of that of `pixels[1]`. A list for a list.

        Raises:
          UserError: an image of a kind or type that is not taken, or the translation of one has
            values that are not finite.
          JaxRuntimeError (RESOURCE_EXHAUSTED), MemoryError: an image is too large for the memory.
        """
        check_at_least('batch_size', batch_size, 1)
        if tile is not None:
            check_at_least('tile', tile, _SMALLEST_TILE)
        check_choice('colour', colour, ('keep', 'model'))
        if isinstance(images, Image.Image | np.ndarray):
            return self([images], batch_size=batch_size, size=size, tile=tile, colour=colour)[0]
        sources = [self._to_source(image, colour) for image in images]
        own_sizes = [source.pixels.shape[:2] for source in sources]
        arrays = [resize(s.pixels, scaled_size(s.pixels.shape, size)) for s in sources]
        results = [None] * len(arrays)
        alike = defaultdict(list)
        for i, array in enumerate(arrays):
            if tile and max(array.shape[:2]) > tile:
                windows = self._in_tiles(
                    array.__getitem__, array.dtype, array.shape, tile, batch_size
                )
                results[i] = np.concatenate([band for _, band in windows])
            else:
                alike[array.shape, array.dtype].append(i)
        for indices in alike.values():
            outputs = self._runner(np.stack([arrays[i] for i in indices]), batch_size)
            for i, pixels in zip(indices, outputs, strict=True):
                results[i] = pixels
        if size is not None:
            results = [resize(r, own) for r, own in zip(results, own_sizes, strict=True)]
        if not self.photographs:
            return [self.pixels[1].to_stored(result) for result in results]
        return [
            pictures.join(pixels, source) if isinstance(image, Image.Image) else pixels
            for image, source, pixels in zip(images, sources, results, strict=True)
        ]

    def _to_source(self, image: AnyImage, colour: str) -> pictures.Picture:
        channels = self.channels[0]
        if isinstance(image, Image.Image) and not self.photographs:
            raise UserError(
                f'{self._name} takes arrays (h, w, {channels}) of {self.pixels[0].describe()}, not '
                'Pillow images.'
            )
        if isinstance(image, Image.Image):
            if min(image.size) < SMALLEST:
                name = pictures.name_of(image)
                logging.warning(
                    '%s: %d x %d pixels are too few to mean much to a network', name, *image.size
                )
            return pictures.split(image, channels, keep_grey=colour == 'keep')
        return pictures.Picture(self._checked(image))

    def _checked(self, image: np.ndarray) -> np.ndarray:
        """An image as it is, or float32 in [-1, 1] of one that is no photograph."""
        channels = self.channels[0]
        if image.ndim != 3 or image.shape[2] != channels or 0 in image.shape:
            raise UserError(f'an image has shape {image.shape}; it must be (h, w, {channels}).')
        if not self.photographs:
            source = self.pixels[0]
            return source.to_float(as_stored(image, source, 'an image'))
        if image.dtype not in (np.uint8, np.uint16, np.float32):
            raise UserError(
                f'an image is of type {image.dtype}; must be uint8, uint16, or float32 in [-1, 1].'
            )
        if not np.isfinite(image).all():
            raise UserError('an image has values that are not finite.')
        return image

    def translate_windows(
        self,
        read: Read,
        write: Callable[[Window, np.ndarray], None],
        shape: tuple[int, ...],
        *,
        tile: int = 512,
        batch_size: int = 1,
    ) -> None:
        """Translates an image that need not fit into memory, window by window.

        With arrays, also numpy.memmap, h5py or zarr: `translate_windows(source.__getitem__,
        target.__setitem__, source.shape)`. It is read twice: first for a small copy, of no more
        pixels than a tile, by whose statistics all tiles are then normalised, so that their colours
        agree. Runtimes other than 'jax' normalise each tile by itself.

        Args:
          read: is given (rows, columns), two slices within the image; returns the pixels, (h, w,
            c), of a type that `__call__` takes.
          write: is given the same and the translation of it, of the type that `__call__` returns:
            bands as wide as the image, from top to bottom, each pixel once.
          shape: (height, width, ...) of the image.
          tile: side of a tile, rounded up to a multiple of `size_multiple`. Memory is taken for
            `batch_size` tiles, and for a band of the result.
          batch_size: tiles at a time.

        Raises:
          UserError: the translation has values that are not finite.
        """
        check_at_least('tile', tile, _SMALLEST_TILE)
        checked = lambda window: self._checked(read(window))
        dtype = checked((slice(0, 1), slice(0, 1))).dtype
        for window, band in self._in_tiles(checked, dtype, shape, tile, batch_size):
            write(window, band if self.photographs else self.pixels[1].to_stored(band))

    def _in_tiles(
        self, read: Read, dtype: np.dtype, shape: tuple[int, ...], tile: int, batch_size: int
    ) -> Iterator[tuple[Window, np.ndarray]]:
        """Windows from top to bottom, and their translations, of the type that is read."""
        height, width = shape[:2]
        tile = self._runner.padded(tile)
        half = half_range(dtype)

        def as_float(window: Window) -> np.ndarray:
            pixels = read(window)
            return pixels if half is None else pixels.astype(np.float32) / np.float32(half) - 1

        variables = self._runner.normalised_by(
            lambda: small_copy(as_float, (height, width), tile)[None]
        )
        bands = run_in_tiles(
            beyond_the_sides(as_float, (height, width)),
            (self._runner.padded(height), self._runner.padded(width)),
            tile,
            lambda tiles: self._runner.run(np.stack(tiles), batch_size, variables),
            multiple=self._runner.size_multiple,
            batch_size=batch_size,
        )
        top = 0
        for band in bands:
            band = band[: height - top, :width]
            if half is not None:
                band = np.round((band + 1) * half).astype(dtype)
            yield (slice(top, top + len(band)), slice(0, width)), band
            top += len(band)


def scaled_size(shape: tuple[int, ...], size: int | tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) for an image of this shape: `size`, or the shorter side scaled to it."""
    height, width = shape[:2]
    if size is None:
        return height, width
    if isinstance(size, tuple):
        return size
    longer = int(size * max(height, width) / min(height, width))
    return (size, longer) if height <= width else (longer, size)
