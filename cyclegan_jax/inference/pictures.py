"""Pictures as people have them, to and from the arrays that a generator takes.

A picture comes back as it was given: grey stays grey if the generator maps colours to colours, 16
bits stay 16 bits, and transparency is carried over.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from cyclegan_jax.data import images

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601, as Pillow's own conversion to grey


class _Format(NamedTuple):
    name: str
    alpha: bool = False
    deep: bool = False  # 16 bits of grey
    options: Mapping = MappingProxyType({})


_FORMATS = {
    '.png': _Format('PNG', alpha=True, deep=True),
    '.tif': _Format('TIFF', alpha=True, deep=True),
    '.tiff': _Format('TIFF', alpha=True, deep=True),
    '.jpg': _Format('JPEG', options={'quality': 95, 'subsampling': 0}),
    '.jpeg': _Format('JPEG', options={'quality': 95, 'subsampling': 0}),
    '.webp': _Format('WEBP', alpha=True, options={'quality': 95}),
    '.ppm': _Format('PPM'),
    '.bmp': _Format('BMP'),
    '.gif': _Format('GIF'),
}
SUFFIXES = tuple(_FORMATS)


class Picture(NamedTuple):
    """What a generator takes, and what it takes to give the same kind of picture back.

    pixels: (h, w, c) uint8 or uint16. alpha: (h, w) uint8, or None. grey: was given without colour.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    grey: bool


def read(path: Path) -> Image.Image:
    """A file's picture, decoded, turned as its EXIF says.

    Raises:
      ImageError: it cannot be read, or has pixels without an agreed range.
    """
    with images.open_image(path, str(path), images.MAX_PIXELS) as image:
        image = ImageOps.exif_transpose(image)
    images.check_range(image, str(path))  # here, where the file's name is known
    return image


def split(image: Image.Image, channels: int, name: str = 'image') -> Picture:
    """A Pillow image as the array that a generator of so many input channels takes.

    What full transparency hides is made white: the generator never sees it, as in training.

    Raises:
      ImageError: pixels without an agreed range (32-bit integers, floating point).
    """
    grey = image.mode in ('1', 'L', 'LA', 'La') or image.mode.startswith('I;16')
    if image.mode.startswith('I;16'):
        pixels = np.asarray(image).astype(np.uint16)[:, :, None]
        pixels = np.repeat(pixels, channels, axis=2)
        if channels == 4:
            pixels[:, :, 3] = 65535
        return Picture(pixels, None, grey)
    if not image.has_transparency_data or channels == 4:
        return Picture(images.to_array(image, channels, name), None, grey)
    colours = np.array(image.convert('RGBA'))
    alpha = colours[:, :, 3].copy()
    colours[alpha == 0] = 255
    opaque = Image.fromarray(colours).convert('RGB')
    return Picture(images.to_array(opaque, channels, name), alpha, grey)


def join(pixels: np.ndarray, source: Picture) -> Image.Image:
    """The translation of `source`, (h, w, c), as a Pillow image."""
    if source.grey and source.pixels.shape[2] == pixels.shape[2] == 3:
        luma = pixels @ _LUMA
        pixels = np.round(luma).astype(pixels.dtype)[:, :, None]
    if pixels.dtype == np.uint16 and pixels.shape[2] > 1:
        pixels = _to_8_bits(pixels)  # Pillow has no 16-bit colour
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    if source.alpha is not None:
        image.putalpha(Image.fromarray(source.alpha))
    return image


def write(image: Image.Image, path: Path) -> None:
    """Writes in the format that the suffix names; the file appears whole, or not at all.

    What a format cannot hold is converted: transparency is put on white, 16 bits become 8.

    Raises:
      ValueError: the suffix names no format that is written here.
      OSError: it cannot be written.
    """
    kind = format_of(path)
    if image.mode.startswith('I;16') and not kind.deep:
        image = Image.fromarray(_to_8_bits(np.asarray(image)))
    if image.has_transparency_data and not kind.alpha:
        opaque = image.convert('RGBA')
        white = Image.new('RGBA', image.size, 'white')
        image = Image.alpha_composite(white, opaque).convert('L' if image.mode == 'LA' else 'RGB')
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        image.save(temporary, kind.name, **kind.options)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def format_of(path: Path) -> _Format:
    """Raises ValueError if the path's suffix is none of SUFFIXES."""
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(
            f'{path} has no suffix that says how to write it: choose --format, one of '
            f'{", ".join(suffix[1:] for suffix in _FORMATS)}.'
        )
    return _FORMATS[path.suffix.lower()]


def resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bicubic and antialiased, for (h, w, c) of uint8, uint16 or float32 in [-1, 1]."""
    if pixels.shape[:2] == size or pixels.dtype == np.uint8:
        return images.resize(pixels, size)
    resized = np.stack(
        [
            Image.fromarray(channel).resize(size[::-1], Image.Resampling.BICUBIC)
            for channel in np.moveaxis(pixels.astype(np.float32), 2, 0)
        ],
        axis=2,
    )
    if pixels.dtype == np.uint16:
        resized = np.round(np.clip(resized, 0, 65535))
    return resized.astype(pixels.dtype)


def _to_8_bits(pixels: np.ndarray) -> np.ndarray:
    return np.round(pixels / 257).astype(np.uint8)
