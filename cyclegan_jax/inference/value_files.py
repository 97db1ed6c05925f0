"""Files of other than photographs, to and from the arrays that a generator takes.

A file comes back in its own format, with the type, range and channels of the domain that the
generator maps to; what places it in space (GeoTIFF, resolution, the affine of NIfTI) is kept.
"""

import gzip
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from cyclegan_jax import storage
from cyclegan_jax.data import arrays, images
from cyclegan_jax.data.images import ImageError
from cyclegan_jax.errors import UserError
from cyclegan_jax.inference import pictures
from cyclegan_jax.pixels import Pixels

SUFFIXES = (*pictures.SUFFIXES, *arrays.SUFFIXES)  # that are read
_TIFF = ('.tif', '.tiff')
_NIFTI = ('.nii', '.nii.gz')


class Values(NamedTuple):
    """What is in a file: images (n, h, w, c) of the source domain, and their place in space.

    gaps: where a value was not finite, (n, h, w), if anywhere.
    """

    images: np.ndarray
    tags: Any = None
    gaps: np.ndarray | None = None


def suffix_of(path: Path) -> str:
    """The suffix in small letters; '.nii.gz' is one."""
    name = path.name.lower()
    return '.nii.gz' if name.endswith('.nii.gz') else path.suffix.lower()


def read(path: Path, pixels: Pixels) -> Values:
    """All images of a file, as training reads them.

    Raises:
      ImageError: it cannot be read, or does not hold what `pixels` describes.
      UserError: a library is not installed.
    """
    name = str(path)
    if pixels.as_pillow and suffix_of(path) in pictures.SUFFIXES:
        image = images.to_array(pictures.read(path), pixels.channels, name)
        return Values(arrays.as_stored(image, pixels, name)[None])
    with arrays.open_contents(path, name) as contents:
        stack = arrays.stack_of(contents, pixels, name)
    stored = [arrays.as_stored(image, pixels, name) for image in stack]
    gaps = ~np.isfinite(stack).all(axis=-1)
    return Values(np.stack(stored), contents.tags, gaps if gaps.any() else None)


def check_target(path: Path, pixels: Pixels) -> None:
    """Raises UserError if the format of `path` cannot hold images of such pixels."""
    suffix = suffix_of(path)
    in_png = (pixels.channels, pixels.dtype) in ((1, 'uint8'), (3, 'uint8'), (4, 'uint8')) or (
        (pixels.channels, pixels.dtype) == (1, 'uint16')
    )
    if suffix in (*_TIFF, *_NIFTI, '.npy') or (suffix == '.png' and in_png):
        return
    raise UserError(
        f'{path} cannot hold {pixels.describe()}, or is not written here; choose --format=tif or '
        '--format=npy.'
    )


def write(translated: np.ndarray, source: Values, path: Path) -> None:
    """Writes images (n, h, w, c); the file appears whole, or not at all.

    What was a gap in the source is one here: NaN, or 0 where values are whole numbers.

    Raises:
      ImageError: the format cannot hold them.
      UserError: a library is not installed.
      OSError: it cannot be written.
    """
    suffix, name, tags = suffix_of(path), str(path), source.tags or {}
    many, _, _, channels = translated.shape
    if source.gaps is not None:
        empty = np.array(np.nan if translated.dtype.kind == 'f' else 0, translated.dtype)
        translated = np.where(source.gaps[..., None], empty, translated)
    path.parent.mkdir(parents=True, exist_ok=True)
    if suffix == '.png':
        if many > 1:
            raise ImageError(name, f'cannot hold {many} images; choose --format=tif')
        image = translated[0, :, :, 0] if channels == 1 else translated[0]
        pictures.write(Image.fromarray(image), path)
    elif suffix == '.npy':
        with storage.whole(path) as temporary, Path(temporary).open('wb') as file:
            np.save(file, translated if many > 1 else translated[0])
    elif suffix in _TIFF:
        _write_tiff(translated, tags.get('tiff', {}), path)
    else:
        if 'nifti' not in tags:
            raise ImageError(name, 'needs the affine of a NIfTI file; choose --format=tif')
        if many > 1 and channels > 1:
            raise ImageError(name, f'cannot hold {many} slices of {channels}; choose --format=tif')
        nibabel = arrays.library('nibabel', name)
        volume = translated[..., 0] if channels == 1 else np.moveaxis(translated[0], 2, 0)
        image = nibabel.Nifti1Image(volume.T, tags['nifti'].get_best_affine())
        image.header['descrip'] = pictures.MARK
        data = image.to_bytes()
        with storage.whole(path) as temporary:
            Path(temporary).write_bytes(gzip.compress(data) if suffix[-1] == 'z' else data)


def _write_tiff(translated: np.ndarray, tags: dict, path: Path) -> None:
    tifffile = arrays.library('tifffile', str(path))
    kept = {}
    if 282 in tags and 283 in tags:  # pixels per unit, and the unit
        kept['resolution'] = (tags[282][2], tags[283][2])
        kept['resolutionunit'] = int(tags[296][2]) if 296 in tags else None
    extra = [
        (code, int(dtype), None if isinstance(value, str) else count, value, True)
        for code, (dtype, count, value) in tags.items()
        if code not in arrays.RESOLUTION_TAGS
    ]
    values = translated[..., 0] if translated.shape[3] == 1 else translated
    with storage.whole(path) as temporary, Path(temporary).open('wb') as file:
        tifffile.imwrite(
            file,
            values[0] if len(values) == 1 else values,
            photometric='minisblack',
            planarconfig='contig' if translated.shape[3] > 1 else None,
            software=pictures.MARK,
            metadata=None,
            extratags=extra,
            **kept,
        )


def is_ours(path: Path) -> bool:
    """Whether `write` made a file, as far as it can say so; .npy cannot."""
    suffix = suffix_of(path)
    try:
        if suffix in _TIFF:
            with arrays.library('tifffile', str(path)).TiffFile(path) as tiff:
                return tiff.pages.first.software == pictures.MARK
        if suffix in _NIFTI:
            header = arrays.library('nibabel', str(path)).load(path).header
            return bytes(header['descrip']).rstrip(b'\0') == pictures.MARK.encode()
    except Exception:  # readers raise nearly anything on broken files
        return False
    return suffix == '.png' and pictures.is_ours(path)
