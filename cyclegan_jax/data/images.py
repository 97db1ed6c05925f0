"""Reading image files: one decoder with explicit rules, and the resize modes of the reference.

Plain `Image.open(path).convert('RGB')` turns a 16-bit PNG white and a float TIFF black, shows the
hidden colours under full transparency and ignores the camera's orientation, all without a word.
"""

import contextvars
import io
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from absl import logging
from PIL import Image, ImageOps, UnidentifiedImageError

from cyclegan_jax.errors import UserError

MAX_PIXELS = 89_000_000  # where Pillow begins to warn of decompression bombs
# The content decides, not the extension. Formats outside this list may run programs (EPS).
Image.init()
FORMATS = tuple(
    name
    for name in ('JPEG', 'PNG', 'WEBP', 'TIFF', 'BMP', 'PPM', 'GIF', 'JPEG2000', 'AVIF')
    if name in Image.OPEN  # AVIF came to Pillow with 11.3
)
MODES = {1: 'L', 3: 'RGB', 4: 'RGBA'}
RESIZE_MODES = ('resize_and_crop', 'crop', 'scale_width', 'scale_width_and_crop', 'none')
EXIF_ORIENTATION = 0x0112

PathOrBytes = str | os.PathLike | bytes

_noted = set()
_reading = contextvars.ContextVar('_reading', default='')  # what a warning is about


class ImageError(UserError):
    """An image that can't be used. The message is one line, 'file: reason'."""

    def __init__(self, name: str, reason: str):
        super().__init__(f'{name}: {reason}')
        self.name, self.reason = name, reason


def decode(
    source: PathOrBytes, channels: int = 3, max_pixels: int = MAX_PIXELS, name: str = ''
) -> np.ndarray:
    """Decodes a file, or the bytes of one, whatever its extension says.

    Grey becomes colour by repetition, colour becomes grey by luma. Transparency is composited on
    white, unless `channels` is 4. EXIF orientation is applied. Of an animation the first frame is
    taken. 16-bit grey becomes 8-bit by rounding x / 257; of 16-bit colour Pillow itself keeps the
    high byte, at most one level off. Rules that lose something are logged once.

    Args:
      source: a path or the encoded bytes.
      channels: 1 (luma), 3 (RGB) or 4 (RGBA).
      max_pixels: larger images are refused from their header, before decoding.
      name: what errors call the image; the path where there is one.

    Returns:
      uint8 (height, width, channels).

    Raises:
      ImageError: not a readable image, or of a kind that has no agreed range (int32, float).
    """
    check_channels(channels)
    name = name or _name(source)
    with open_image(source, name, max_pixels) as image:
        if getattr(image, 'is_animated', False):
            note('of several frames or pages only the first is used', name)
        return to_array(ImageOps.exif_transpose(image), channels, name)


def read_size(source: PathOrBytes, max_pixels: int = MAX_PIXELS, name: str = '') -> tuple[int, int]:
    """The (height, width) that `decode` would return, read from the header alone.

    Raises:
      ImageError: as `decode`, for what a header can tell.
    """
    with open_image(source, name, max_pixels) as image:
        width, height = image.size
        # Pillow would decode a whole PNG in search of EXIF that follows the pixels.
        exif = {} if image.format == 'PNG' and 'exif' not in image.info else image.getexif()
        sideways = exif.get(EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
        return (width, height) if sideways else (height, width)


def check_channels(channels: int, name: str = 'channels') -> None:
    """Raises UserError unless `decode` knows this number of channels."""
    if channels not in MODES:
        raise UserError(f'{name} is {channels}; it must be 1 (grey), 3 (RGB) or 4 (RGBA).')


def check_range(image: Image.Image, name: str) -> None:
    """Raises ImageError if nothing says what black and white are."""
    if image.mode in ('I', 'F'):
        kind = {'I': '32-bit integer', 'F': 'floating point'}[image.mode]
        raise ImageError(name, f'{kind} pixels have no agreed range, convert to 8 or 16 bits')


def to_array(image: Image.Image, channels: int, name: str = 'image') -> np.ndarray:
    """A Pillow image as uint8 (height, width, channels), by the rules of `decode`."""
    check_range(image, name)
    if image.mode.startswith('I;16'):
        note('16 bits are rounded to 8', name)
        wide = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    elif image.mode == 'CMYK':
        note('CMYK is converted to RGB without a colour profile', name)
        image = image.convert('RGB')
    elif image.has_transparency_data:
        image = image.convert('RGBA')
        if channels != 4:
            note('transparency is composited on white', name)
            image = Image.fromarray(on_white(np.asarray(image)))
    array = np.array(image.convert(MODES[channels]))
    return array.reshape(*array.shape[:2], channels)


def on_white(image: np.ndarray) -> np.ndarray:
    """What shows of RGBA before a white wall: uint8 (..., 4) to (..., 3), rounded."""
    alpha = image[..., 3:].astype(np.uint16)
    return ((image[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def as_rgb(images: np.ndarray) -> np.ndarray:
    """uint8 (..., c) to (..., 3): the first of one or two as grey, RGBA on white."""
    channels = images.shape[-1]
    if channels < 3:
        return np.repeat(images[..., :1], 3, axis=-1)
    return on_white(images) if channels == 4 else images[..., :3]


def centre_crop(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle (height, width) of an image (h, w, ...), which is at least as large."""
    top, left = (image.shape[0] - size[0]) // 2, (image.shape[1] - size[1]) // 2
    return image[top : top + size[0], left : left + size[1]]


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bicubic and antialiased, as Pillow and hence the reference do it.

    Floats may come out a little beyond the extremes of the image.

    Args:
      image: uint8, uint16 or float32 (height, width, channels), of any number of channels.
      size: the new (height, width).
    """
    if image.shape[:2] == tuple(size):
        return image
    channels = image.shape[2]

    def resized(array: np.ndarray) -> np.ndarray:
        pillow = Image.fromarray(array)
        return np.array(pillow.resize((size[1], size[0]), Image.Resampling.BICUBIC))

    if image.dtype == np.uint8 and channels in MODES:
        return resized(image[:, :, 0] if channels == 1 else image).reshape(*size, channels)
    # Beside bytes Pillow knows floats, which hold 16 bits exactly.
    planes = image if image.dtype == np.uint8 else image.astype(np.float32)
    result = np.stack([resized(planes[:, :, i]) for i in range(channels)], axis=2)
    if image.dtype == np.uint16:
        result = np.round(np.clip(result, 0, 65535))
    return result.astype(image.dtype)


def resized_size(
    mode: str, size: tuple[int, int], load_size: tuple[int, int], crop_size: tuple[int, int]
) -> tuple[int, int]:
    """The size that an image is resized to before any crop: `get_transform` of the reference.

    Args:
      mode: one of RESIZE_MODES. 'scale_width' keeps the aspect, but never gets lower than the
        crop; 'none' rounds the sides to multiples of 4, which the generators need.
      size, load_size, crop_size: (height, width); `size` is the image's own.
    """
    height, width = size
    if mode == 'resize_and_crop':
        return load_size
    if mode in ('scale_width', 'scale_width_and_crop'):
        return int(max(load_size[1] * height / width, crop_size[0])), load_size[1]
    if mode == 'none':
        return max(4, 4 * round(height / 4)), max(4, 4 * round(width / 4))
    return size


def crops(mode: str) -> bool:
    """Whether a random crop of `crop_size` follows the resize."""
    return mode.endswith('crop')


def as_size(name: str, size: int | Sequence[int]) -> tuple[int, int]:
    """A size given as int or (height, width) as the latter.

    Raises:
      UserError: a side is not positive, or there are not two of them.
    """
    sides = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise UserError(f'{name} is {size}; it must be a positive int or (height, width).')
    return sides


@contextmanager
def open_image(source: PathOrBytes, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """The image with only its header read; every failure inside becomes an ImageError.

    Args:
      name: what errors call the image; '' for its path.
      max_pixels: larger ones are refused.
    """
    name = name or _name(source)
    with open_file(source, name) as file:
        yield open_header(file, name, max_pixels)


def open_header(file: BinaryIO, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image in a file, not decoded; raises ImageError if there is none, or one too large."""
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError as error:
        file.seek(0)
        raise ImageError(name, _not_an_image(file.read(16))) from error
    check_pixels(image.height, image.width, name, max_pixels)
    return image


def check_pixels(height: int, width: int, name: str, max_pixels: int = MAX_PIXELS) -> None:
    """Raises ImageError for an image that is too large to be decoded."""
    if width * height > max_pixels:
        raise ImageError(name, f'{width} x {height} pixels, over the limit of {max_pixels}')


@contextmanager
def open_file(source: PathOrBytes, name: str) -> Iterator[BinaryIO]:
    """A file, or the bytes of one; every failure to read it becomes an ImageError.

    Args:
      name: what errors call it.
    """
    token = _reading.set(name)
    try:
        # Opening a named pipe would wait forever.
        if not isinstance(source, bytes) and not stat.S_ISREG(Path(source).stat().st_mode):
            raise ImageError(name, 'not a regular file')
        with io.BytesIO(source) if isinstance(source, bytes) else Path(source).open('rb') as file:
            yield file
    except UserError:
        raise
    except Exception as error:  # on broken input decoders raise nearly anything
        if isinstance(error, OSError) and error.strerror:
            raise ImageError(name, error.strerror) from error
        message = str(error).partition('\n')[0] or type(error).__name__
        raise ImageError(name, f"can't be decoded ({message})") from error
    finally:
        _reading.reset(token)


def _not_an_image(start: bytes) -> str:
    if not start:
        return 'empty file'
    text = ' '.join(start.decode('ascii', 'backslashreplace').split())
    return f'not an image (starts with "{text}")'


def _show_warning(message, *args, **kwargs) -> None:
    """Of what it reads, Pillow warns without saying what it is."""
    if name := _reading.get():
        logging.warning('%s: %s', name, message)
    else:
        _show_other(message, *args, **kwargs)


_show_other, warnings.showwarning = warnings.showwarning, _show_warning


def note(rule: str, name: str) -> None:
    """Warns of what reading a picture loses, once for each rule."""
    if rule not in _noted:
        _noted.add(rule)
        logging.warning('%s: %s (said once)', name, rule)


def _name(source: PathOrBytes) -> str:
    return '<bytes>' if isinstance(source, bytes) else os.fspath(source)
