"""What the page of `cyclegan_jax.demo` does: from files that were sent to it to translations."""

import argparse
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from cyclegan_jax.arguments import image_size
from cyclegan_jax.data.images import ImageError, check_pixels
from cyclegan_jax.errors import UserError
from cyclegan_jax.inference import pictures
from cyclegan_jax.inference.translator import Translator, scaled_size

MAX_FILES = 100  # translated in one go
_PREFIX = 'translated_'  # of folders in the cache


class Offer(NamedTuple):
    """A translation that the page offers: 'a2b' or 'b2a', by what, and pictures to try it on."""

    name: str
    translator: Translator
    examples: Sequence[Path] = ()


class Done(NamedTuple):
    """A picture before and after, as files that every browser shows."""

    before: Path
    after: Path


class Work:
    """What the page does: from uploaded files to translated ones.

    Args:
      offers: by title.
      cache: where uploads are, and results go.
      size, tile: of `Translator.__call__`; a visitor may say another size.
      max_pixels: larger pictures are refused, before they are decoded.
    """

    def __init__(
        self,
        offers: Mapping[str, Offer],
        cache: Path,
        *,
        size: int | tuple[int, int] | None = None,
        tile: int | None = None,
        max_pixels: int,
    ):
        self.offers, self.cache = offers, cache
        self._size, self._tile, self._max_pixels = size, tile, max_pixels

    def translate(self, path: Path, title: str, size: str | None = None) -> Done:
        """Translates one picture.

        Args:
          title: of one of `offers`.
          size: as the visitor wrote it; nothing for the default.

        Raises:
          UserError: it cannot be read, is too large, or the size is none.
        """
        offer, size = self._chosen(title, size)
        return self._translate(path, offer, size, self._folder())

    def translate_all(
        self, paths: Sequence[Path], title: str, size: str | None = None
    ) -> Iterator[tuple[list[Done], list[str], Path | None]]:
        """Translates pictures; one that cannot be is named, and the others are done.

        Yields:
          After each: what is done, one line for each that cannot be, and at last a ZIP file.
        """
        offer, size = self._chosen(title, size)
        if len(paths) > MAX_FILES:
            raise UserError(f'{len(paths)} pictures are more than the {MAX_FILES} of one go.')
        folder, done, refused = self._folder(), [], []
        for path in paths:
            try:
                done.append(self._translate(path, offer, size, folder))
            except UserError as error:
                refused.append(str(error))
            yield done, refused, None
        archive = folder / f'{offer.name}.zip'
        if done:
            with zipfile.ZipFile(archive, 'w') as file:  # PNG is compressed already
                for _, after in done:
                    file.write(after, after.name)
        yield done, refused, archive if done else None

    def _chosen(self, title: str, size: str | None) -> tuple[Offer, int | tuple[int, int] | None]:
        if title not in self.offers:
            raise UserError('choose one of the translations.')
        size = (size or '').strip()
        try:
            return self.offers[title], image_size(size) if size else self._size
        except argparse.ArgumentTypeError as error:
            raise UserError(f'the size {error}.') from error

    def _translate(
        self, path: Path, offer: Offer, size: int | tuple[int, int] | None, folder: Path
    ) -> Done:
        try:
            image = pictures.read(path, self._max_pixels)
            height, width = scaled_size((image.height, image.width), size)
            check_pixels(height, width, str(path), self._max_pixels)
            result = offer.translator(image, size=size, tile=self._tile)
        except ImageError as error:
            raise UserError(f'{path.name}: {error.reason}') from error
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if 'RESOURCE_EXHAUSTED' not in str(error) and not isinstance(error, MemoryError):
                raise
            raise UserError(
                f'{path.name}: too large for the memory of this machine; say a smaller size.'
            ) from error
        stem = _free(folder, path.stem[:100], f'_{offer.name}.png')
        done = Done(folder / f'{stem}.png', folder / f'{stem}_{offer.name}.png')
        # As the translation: TIFF is shown by no browser, and turned photographs not by all.
        source = pictures.split(image, 4 if offer.translator.channels[0] == 4 else 3)
        pictures.write(pictures.join(source.pixels, source), done.before)
        pictures.write(result, done.after)
        return done

    def sweep(self, age: float) -> None:
        """Deletes what was written here `age` seconds ago or before, whoever still knows of it."""
        for folder in self.cache.glob(f'{_PREFIX}*'):
            if time.time() - folder.stat().st_mtime >= age:
                shutil.rmtree(folder, ignore_errors=True)

    def _folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.cache, prefix=_PREFIX))


def _free(folder: Path, stem: str, end: str) -> str:
    """The stem, or with a number where there is such a result already."""
    names = (stem, *(f'{stem}_{number}' for number in range(2, MAX_FILES + 1)))
    return next(n for n in names if not (folder / f'{n}{end}').exists())
