"""What a source of images is."""

import hashlib
import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from cyclegan_jax.data import arrays, images
from cyclegan_jax.errors import UserError, describe
from cyclegan_jax.pixels import PHOTOGRAPHS, Pixels


class MissingSplit(UserError):
    """There is no such split. Fatal for training images; test images are optional."""


class Source:
    """Images of one split of one domain, as they are stored. Reading raises `ImageError`.

    A kind of source names, as arguments of its class, the fields of config.data that it reads (see
    `open_source`); it checks that the split exists and has images. It gives `__len__`, `name`,
    `fingerprint` and `stored`, or `__getitem__` and `size` if its images are not encoded.

    channels: of the images that it gives.
    encoded: each is a file of some format, or its bytes; else `stored` gives an array.
    pixels: of the domain, set by `open_source`.
    files: sizes in bytes by path, if each image is a file of its own.
    rendered: each is drawn in milliseconds when it is wanted, and none can be unusable.
    scenes: images of one number show one scene in all sources where this is equal, and not None.
    """

    channels: int
    encoded: bool = True
    pixels: Pixels = PHOTOGRAPHS
    files: Mapping[Path, int] = MappingProxyType({})
    rendered: bool = False
    scenes: Hashable = None

    def __len__(self) -> int:
        raise NotImplementedError

    def name(self, index: int) -> str:
        """Tells the user which image this is: its path where it has one."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """The same only for the same set of images, judged by names and stored sizes."""
        raise NotImplementedError

    def stored(self, index: int) -> arrays.Stored:
        """The encoded image. It is decoded here, by rules that the libraries' own decoders lack."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> np.ndarray:
        """The decoded image (height, width, channels), not resized.

        Photographs are uint8; the values of others are as they are stored.
        """
        if self._is_photograph(index):
            return images.decode(self._stored(index), self.channels, name=self.name(index))
        return self.stack(index)[0]

    def size(self, index: int) -> tuple[int, int]:
        """Its (height, width), without decoding it."""
        if self._is_photograph(index):
            return images.read_size(self._stored(index), name=self.name(index))
        return self.stack_shape(index)[1:]

    def stack(self, index: int) -> np.ndarray:
        """All pictures of a file of `data.pages=pictures`, (n, height, width, channels)."""
        return arrays.read_stack(self._stored(index), self.pixels, self.name(index))

    def stack_shape(self, index: int) -> tuple[int, int, int]:
        """Its (n, height, width), without decoding it."""
        return arrays.stack_shape(self._stored(index), self.pixels, self.name(index))

    def _is_photograph(self, index: int) -> bool:
        is_array = not self.encoded or self.name(index).lower().endswith(arrays.SUFFIXES)
        return self.pixels.as_pillow and not is_array

    def _stored(self, index: int) -> arrays.Stored:
        try:
            return self.stored(index)
        except (UserError, MemoryError):
            raise
        except Exception as error:  # of a damaged file, the libraries raise nearly anything
            raise images.ImageError(
                self.name(index), f"can't be read ({describe(error)})"
            ) from error


def digest(*parts) -> str:
    """A short hash of anything that JSON can write."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
