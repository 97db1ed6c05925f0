"""Pictures as people have them, to and from the arrays that a generator takes.

A picture comes back as it was given: grey stays grey if the generator maps colours to colours, 16
bits of grey stay 16 bits; transparency, colour profile and resolution are carried over.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from absl import logging
from PIL import Image, ImageOps

from cyclegan_jax import storage
from cyclegan_jax.data import images
from cyclegan_jax.errors import UserError
from cyclegan_jax.interop import Network

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601, as Pillow's own conversion to grey


# What we write says so, in a tag of EXIF, so that another's files are told from ours.
_SOFTWARE = 0x0131
MARK = 'cyclegan_jax'  # in what is written, to tell another's files from ours
_EXIF = Image.Exif()
_EXIF[_SOFTWARE] = MARK


class _Format(NamedTuple):
    """How a format is written; `largest`: pixels of a side."""

    name: str
    alpha: bool = False
    deep: bool = False  # 16 bits of grey
    largest: int = 2**31 - 1
    options: Mapping = MappingProxyType({'exif': _EXIF})


_JPEG = _Format('JPEG', largest=65500, options={'quality': 95, 'subsampling': 0, 'exif': _EXIF})
_FORMATS = {
    '.png': _Format('PNG', alpha=True, deep=True),
    '.tif': _Format('TIFF', alpha=True, deep=True),
    '.tiff': _Format('TIFF', alpha=True, deep=True),
    '.jpg': _JPEG,
    '.jpeg': _JPEG,
    '.jpe': _JPEG,
    '.jfif': _JPEG,
    '.webp': _Format('WEBP', alpha=True, largest=16383, options={'quality': 95, 'exif': _EXIF}),
    '.ppm': _Format('PPM', options={}),
    '.pgm': _Format('PPM', options={}),
    '.pbm': _Format('PPM', options={}),
    '.pnm': _Format('PPM', options={}),
    '.bmp': _Format('BMP', options={}),
    '.gif': _Format('GIF', largest=65535, options={'comment': MARK}),
    '.avif': _Format('AVIF', alpha=True, largest=65536, options={'quality': 90, 'exif': _EXIF}),
    '.jp2': _Format('JPEG2000', alpha=True, deep=True, options={'comment': MARK}),
    '.j2k': _Format('JPEG2000', alpha=True, deep=True, options={'comment': MARK, 'no_jp2': True}),
}
_FORMATS = {suffix: kind for suffix, kind in _FORMATS.items() if kind.name in images.FORMATS}
SUFFIXES = tuple(_FORMATS)


class Picture(NamedTuple):
    """What a generator takes, and what it takes to give the same kind of picture back.

    pixels: (h, w, c) uint8 or uint16. alpha: (h, w) uint8, or None. grey: is to stay without
    colour. info: colour profile and resolution, as Pillow has them.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    grey: bool = False
    info: Mapping = MappingProxyType({})


def read(path: Path, max_pixels: int = images.MAX_PIXELS) -> Image.Image:
    """A file's picture, decoded, turned as its EXIF says; of several, the first.

    Raises:
      ImageError: it cannot be read, is larger (which its header tells), or has pixels without an
        agreed range.
    """
    with images.open_image(path, str(path), max_pixels) as file:
        # A photo of a telephone (MPO) is one picture, with previews.
        if getattr(file, 'is_animated', False) and file.format != 'MPO':
            logging.warning('%s: of several frames or pages the first is translated', path)
        deep = any(';16' in str(tile.args) for tile in file.tile)
        if deep and not file.mode.startswith('I'):
            logging.warning('%s: 16 bits are kept of grey; colours are translated as 8', path)
        image = ImageOps.exif_transpose(file)
    image.filename = str(path)  # as of a picture that Pillow has opened: it is how errors call it
    images.check_range(image, name_of(image))
    return image


def check_photographs(name: str, network: Network, instead: str) -> None:
    """Raises UserError unless a browser can show what a generator takes and gives.

    Args:
      name: of the generator.
      instead: what to do with another one.
    """
    if not network.photographs:
        source, target = (pixels.describe() for pixels in network.pixels)
        raise UserError(
            f'{name} maps {source}, to {target}; a browser shows 8 bits of photographs: {instead}.'
        )
    if not {*network.channels} <= {*images.MODES}:
        raise UserError(
            f'{name} maps {network.channels[0]} channels to {network.channels[1]}; a browser shows '
            '1 (grey), 3 (RGB) or 4 (RGBA).'
        )


def name_of(image: Image.Image) -> str:
    return getattr(image, 'filename', '') or 'image'


def split(image: Image.Image, channels: int, *, keep_grey: bool = True) -> Picture:
    """A Pillow image as the array that a generator of so many input channels takes.

    What full transparency hides is made white: the generator never sees it, as in training.

    Raises:
      ImageError: pixels without an agreed range (32-bit integers, floating point).
    """
    name = name_of(image)
    info = {key: image.info[key] for key in ('icc_profile', 'dpi') if image.info.get(key)}
    grey = image.mode in ('1', 'L', 'LA', 'La') or image.mode.startswith('I;16')
    grey = grey and keep_grey
    if image.mode.startswith('I;16'):
        pixels = np.asarray(image).astype(np.uint16)[:, :, None]
        pixels = np.repeat(pixels, channels, axis=2)
        if channels == 4:
            pixels[:, :, 3] = 65535
        return Picture(pixels, None, grey, info)
    if not image.has_transparency_data or channels == 4:
        return Picture(images.to_array(image, channels, name), None, grey, info)
    colours = np.array(image.convert('RGBA'))
    alpha = colours[:, :, 3].copy()
    colours[alpha == 0] = 255
    opaque = Image.fromarray(colours).convert('RGB')
    return Picture(images.to_array(opaque, channels, name), alpha, grey, info)


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
    image.info.update(source.info)
    return image


def write(image: Image.Image, path: Path) -> None:
    """Writes in the format that the suffix names; the file appears whole, or not at all.

    What a format cannot hold is converted: transparency is put on white, 16 bits become 8.

    Raises:
      UserError: the suffix names no format that is written here.
      ImageError: the format cannot hold the picture.
      OSError: it cannot be written.
    """
    kind, info = format_of(path), image.info
    check_size(image.size, path)
    if image.mode.startswith('I;16') and not kind.deep:
        logging.warning('%s: 16 bits become 8, as %s holds no more', path, kind.name)
        image = Image.fromarray(_to_8_bits(np.asarray(image)))
    if image.has_transparency_data and not kind.alpha:
        logging.warning('%s: transparency is put on white, as %s has none', path, kind.name)
        opaque = Image.fromarray(images.on_white(np.asarray(image.convert('RGBA'))))
        image = opaque.convert('L') if image.mode == 'LA' else opaque
    path.parent.mkdir(parents=True, exist_ok=True)
    with storage.whole(path) as temporary:
        image.save(temporary, kind.name, **kind.options, **_carried(info, image.mode))


def _carried(info: Mapping, mode: str) -> dict:
    """Colour profile and resolution of a picture, where a file of this mode can have them."""
    profile, dpi = info.get('icc_profile', b''), info.get('dpi', ())
    # Bytes 16 to 20 of a profile name the kind of colours that it is for.
    fits = profile[16:20] == (b'RGB ' if mode.startswith('RGB') else b'GRAY')
    options = {'icc_profile': profile if fits else None}
    if len(dpi) == 2 and all(0 < x < 2**16 for x in dpi):
        options['dpi'] = dpi
    return options


def check_size(size: tuple[int, int], path: Path) -> None:
    """Raises ImageError if the format of `path` cannot hold a picture of (width, height)."""
    kind = format_of(path)
    if max(size) > kind.largest:
        raise images.ImageError(
            str(path),
            f'{size[0]} x {size[1]} pixels, but {kind.name} has at most {kind.largest} a side; '
            'choose --format=png',
        )


def is_ours(path: Path) -> bool:
    """Whether `write` may have made a file: it says so, or its format cannot (BMP, PPM)."""
    try:
        with Image.open(path, formats=images.FORMATS) as image:
            return (
                image.format in ('BMP', 'PPM')
                or image.getexif().get(_SOFTWARE) == MARK
                or image.info.get('comment') in (MARK, MARK.encode())
            )
    except Exception:  # on broken files Pillow raises nearly anything
        return False


def format_of(path: Path) -> _Format:
    """Raises UserError if the path's suffix is none of SUFFIXES."""
    if path.suffix.lower() not in _FORMATS:
        raise UserError(
            f'{path} has no suffix that says how to write it: choose --format, one of '
            f'{", ".join(suffix[1:] for suffix in _FORMATS)}.'
        )
    return _FORMATS[path.suffix.lower()]


def _to_8_bits(pixels: np.ndarray) -> np.ndarray:
    return np.round(pixels / 257).astype(np.uint8)
