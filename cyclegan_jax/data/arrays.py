"""Reading pictures that are not photographs: any type, any number of channels, nothing rounded.

A file is a stack of pictures: TIFF, NumPy's .npy and .npz, NIfTI, DICOM, and what Pillow reads. Its
content decides, not its name. Libraries are imported as they are needed: `pip install
'cyclegan_jax[science]'`.
"""

import gzip
import io
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import ImageOps

from cyclegan_jax.data import images
from cyclegan_jax.data.images import ImageError, PathOrBytes
from cyclegan_jax.errors import UserError, shortlist
from cyclegan_jax.pixels import Pixels

Stored = PathOrBytes | np.ndarray  # a file, its bytes, or the values themselves

SUFFIXES = ('.npy', '.npz', '.nii', '.nii.gz', '.dcm')  # that no program shows as a picture
_EXACT = 2**24  # up to here float32 has every whole number
_SAMPLED = 4096  # pixels of a picture that percentiles are taken of
_PERCENTILES = (0.5, 99.5)
_GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737, 42112)  # of GeoTIFF: where on Earth
RESOLUTION_TAGS = (282, 283, 296)  # pixels of a unit, to the right and down; the unit
_CENTIMETRE = 3


class Contents(NamedTuple):
    """What is in a file.

    shape: as it is stored.
    read: gives the values, of any type of number and of that shape.
    tags: by which it is placed in space, for a file of the same format.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    tags: Any = None


@contextmanager
def open_contents(source: Stored, name: str) -> Iterator[Contents]:
    """The contents of a file, of which only the header is read yet; values are as they are.

    Raises:
      ImageError: it is not a file of values, or cannot be read.
      UserError: a library is not installed.
    """
    if isinstance(source, np.ndarray):
        yield Contents(source.shape, lambda: source)
        return
    with images.open_file(source, name) as file:
        start = file.read(348)
        file.seek(0)
        for is_this, opened in _FORMATS:
            if is_this(start):
                yield opened(file, name)
                return
        yield _pillow(file, name, start)


def read_stack(source: Stored, pixels: Pixels, name: str) -> np.ndarray:
    """All pictures of a file, (n, height, width, channels), of the file's own type.

    Raises:
      ImageError: as `open_contents`; or the shape is not that of such pictures.
    """
    with open_contents(source, name) as contents:
        return stack_of(contents, pixels, name)


def stack_of(contents: Contents, pixels: Pixels, name: str) -> np.ndarray:
    """What `read_stack` returns, of a file that is open."""
    _checked(contents.shape, pixels, name)
    values = contents.read()
    if values.dtype.kind not in 'buif':
        raise ImageError(name, f'holds values of type {values.dtype}, not real numbers')
    values = values.astype(values.dtype.newbyteorder('='), copy=False)
    return _arranged(values, pixels, name)


def stack_shape(source: Stored, pixels: Pixels, name: str) -> tuple[int, int, int]:
    """(n, height, width) of what `read_stack` returns, from the header alone."""
    with open_contents(source, name) as contents:
        return _checked(contents.shape, pixels, name)[:3]


def as_stored(image: np.ndarray, pixels: Pixels, name: str) -> np.ndarray:
    """An image as it is kept: of the type of `pixels`, every value finite and in the range.

    Args:
      image: (height, width, channels), of any type of number.

    Raises:
      ImageError: its type cannot be kept as that of `pixels`, or values are refused by it.
    """
    if image.dtype != pixels.dtype:
        if pixels.dtype != 'float32':
            raise ImageError(
                name,
                f'holds {image.dtype}, not {pixels.dtype}; set {pixels.flag("dtype")}='
                f'{image.dtype.name if image.dtype.name in ("uint8", "uint16") else "float32"}',
            )
        if image.dtype.kind in 'iu' and image.dtype.itemsize > 2 and np.abs(image).max() > _EXACT:
            images.note('whole numbers beyond 2^24 are rounded to those of float32', name)
        image = image.astype(np.float32)
    if pixels.dtype == 'float32' and not (finite := np.isfinite(image)).all():
        if pixels.not_finite == 'refuse':
            raise ImageError(
                name,
                f'{image.size - finite.sum()} of {image.size} values are NaN or infinite; '
                '--config.data.not_finite=low puts the low end of the range in their place',
            )
        image = np.where(finite, image, np.array(pixels.low, np.float32))
    inside = clipped(image, pixels)
    if pixels.outside == 'refuse' and (inside != image).any():
        raise ImageError(
            name,
            f'values from {image.min():g} to {image.max():g} go out of the range ('
            f'{pixels.describe()}); --config.data.outside=clip clips them',
        )
    return inside


def clipped(image: np.ndarray, pixels: Pixels) -> np.ndarray:
    """An image with all its values in the range."""
    if pixels.whole_type:
        return image
    low, high = np.array(pixels.low), np.array(pixels.high)
    if pixels.dtype != 'float32':
        low, high = np.ceil(low), np.floor(high)
    return np.clip(image, low.astype(image.dtype), high.astype(image.dtype))


def measure(image: np.ndarray, measured: str) -> np.ndarray:
    """The values of an image that a range is measured by, (n, channels): few, or a sample."""
    values = image.reshape(-1, image.shape[-1]).astype(np.float32)
    values = values[np.isfinite(values).all(axis=1)]
    if not len(values):
        return values
    if measured == 'minmax':
        return np.stack([values.min(axis=0), values.max(axis=0)])
    return values[:: max(1, len(values) // _SAMPLED)]


def range_of(values: np.ndarray, measured: str) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) of each channel, from what `measure` returned of all images, joined."""
    if measured == 'minmax':
        low, high = values.min(axis=0), values.max(axis=0)
    else:
        low, high = np.percentile(values, _PERCENTILES, axis=0)
    return low, np.where(high > low, high, low + 1)  # of a channel that is the same everywhere


def _checked(shape: tuple[int, ...], pixels: Pixels, name: str) -> tuple[int, ...]:
    """The shape that values of this one are arranged to."""
    if len(shape) < 2 or 0 in shape:
        raise ImageError(name, f'holds values of shape {shape}, which are no pictures')
    stand_in = np.broadcast_to(np.uint8(0), shape)  # a view, which takes no memory
    found = _arranged(stand_in, pixels, name).shape
    images.check_pixels(*found[1:3], name)
    return found


def _arranged(values: np.ndarray, pixels: Pixels, name: str) -> np.ndarray:
    """Values as (n, height, width, channels), by their shape and what is expected."""
    channels, shape = pixels.channels, values.shape
    while values.ndim > 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim == 3:
        if values.shape[2] == channels:
            return values[None]
        if pixels.pages == 'pictures' and channels == 1:
            return values[..., None]
        if values.shape[0] == channels:
            return np.moveaxis(values, 0, 2)[None]
    if values.ndim == 4 and pixels.pages == 'pictures':
        if values.shape[3] == channels:
            return values
        if values.shape[1] == channels:
            return np.moveaxis(values, 1, 3)
    wanted = '(height, width)' if channels == 1 else f'(height, width, {channels})'
    slices = '' if pixels.pages == 'pictures' else ', or --config.data.pages=pictures for slices'
    raise ImageError(
        name,
        f'has values of shape {shape}, where {wanted} is wanted; set {pixels.flag("channels")}'
        f'{slices}',
    )


def _pillow(file: BinaryIO, name: str, start: bytes) -> Contents:
    """A picture of a format that Pillow reads, in its own colours and depth."""
    image = images.open_header(file, name)
    # Of 16-bit colours Pillow gives the high bytes: header bytes 24 and 25 are depth and colours.
    deep = image.format == 'PNG' and start[24] == 16 and start[25] != 0
    mode = {'1': 'L', 'P': 'RGB', 'PA': 'RGBA', 'CMYK': 'RGB', 'YCbCr': 'RGB'}.get(image.mode)
    bands = len(image.getbands()) if mode is None else len(mode)
    image.info.pop('transparency', None)
    shape = image.height, image.width, bands
    sideways = image.format != 'PNG' and image.getexif().get(images.EXIF_ORIENTATION, 1) > 4

    def read():
        if deep:
            file.seek(0)
            return library('imagecodecs', name).png_decode(file.read())
        return np.asarray(ImageOps.exif_transpose(image.convert(mode) if mode else image))

    return Contents((shape[1], shape[0], bands) if sideways else shape, read)


def _tiff(file: BinaryIO, name: str) -> Contents:
    tifffile = library('tifffile', name)
    tiff = tifffile.TiffFile(file)
    series, page = tiff.series[0], tiff.pages.first
    if len(tiff.series) > 1:
        images.note('of several series of pages only the first is used', name)
    # Samples and channels last; pages, slices and times stay in front.
    order = [i for i, axis in enumerate(series.axes) if axis not in 'YXCS']
    order += [i for wanted in 'YXCS' for i, axis in enumerate(series.axes) if axis == wanted]
    tags = {
        code: (tag.dtype, tag.count, tag.value)
        for code in (*_GEO_TAGS, *RESOLUTION_TAGS)
        if (tag := page.tags.get(code)) is not None
    }
    shape = tuple(series.shape[i] for i in order)
    return Contents(shape, lambda: series.asarray().transpose(order), {'tiff': tags})


def _npy(file: BinaryIO, name: str) -> Contents:
    version = np.lib.format.read_magic(file)
    if version > (2, 0):
        raise ImageError(name, 'holds named fields, not numbers')
    read_header = getattr(np.lib.format, f'read_array_header_{version[0]}_0')
    shape, _, _ = read_header(file)

    def read():
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)

    return Contents(shape, read)


def _npz(file: BinaryIO, name: str) -> Contents:
    with zipfile.ZipFile(file) as archive:
        names = [each for each in archive.namelist() if each.endswith('.npy')]
        if len(names) != 1:
            raise ImageError(name, f'must hold one array, not {len(names)} ({shortlist(names)})')
        return _npy(io.BytesIO(archive.read(names[0])), name)


def _nifti(file: BinaryIO, name: str) -> Contents:
    nibabel = library('nibabel', name)
    if file.read(2) == b'\x1f\x8b':
        file.seek(0)
        file = io.BytesIO(gzip.GzipFile(fileobj=file).read())
    file.seek(0)
    size = file.read(4)
    file.seek(0)
    is_second = 540 in (int.from_bytes(size, order) for order in ('little', 'big'))
    kind = nibabel.Nifti2Image if is_second else nibabel.Nifti1Image
    volume = kind.from_stream(file)
    # x, y, z, ... to slices (z) of rows (y): as viewers show them, but for mirroring.
    return Contents(
        volume.shape[::-1], lambda: np.asarray(volume.dataobj).T, {'nifti': volume.header.copy()}
    )


def _dicom(file: BinaryIO, name: str) -> Contents:
    pydicom = library('pydicom', name)
    from pydicom.pixels import apply_rescale

    dataset = pydicom.dcmread(file)
    shape = [int(dataset.Rows), int(dataset.Columns)]
    if (frames := int(dataset.get('NumberOfFrames', 1) or 1)) > 1:
        shape.insert(0, frames)
    if (samples := int(dataset.SamplesPerPixel)) > 1:
        shape.append(samples)
    tags = {}
    if spacing := dataset.get('PixelSpacing'):  # mm from row to row, from column to column
        down, right = (10 / float(x) for x in spacing)
        tags = {282: (5, 1, right), 283: (5, 1, down), 296: (3, 1, _CENTIMETRE)}
    return Contents(
        tuple(shape),
        # In Hounsfield units, where the file says how.
        lambda: apply_rescale(dataset.pixel_array, dataset),
        {'tiff': tags},
    )


def library(package: str, name: str):
    """A package that reads or writes; raises UserError where it is not installed."""
    try:
        return __import__(package)
    except ImportError as error:
        raise UserError(
            f"{name} needs the package {package}: pip install 'cyclegan_jax[science]'"
        ) from error


def _is_nifti(start: bytes) -> bool:
    if start[:2] == b'\x1f\x8b':  # nothing else is compressed so
        return True
    return start[344:347] in (b'n+1',) or start[4:7] == b'n+2'


_FORMATS = (
    (lambda start: start[:4] in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'), _tiff),
    (lambda start: start[:6] == b'\x93NUMPY', _npy),
    (lambda start: start[:4] == b'PK\3\4', _npz),
    (_is_nifti, _nifti),
    (lambda start: start[128:132] == b'DICM', _dicom),
)
