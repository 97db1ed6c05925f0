"""What a source of images is."""

import hashlib
import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from cyclegan_jax.data import images
from cyclegan_jax.errors import UserError, describe


class MissingSplit(UserError):
    """There is no such split. Fatal for training images; test images are optional."""


class Source:
    """Images of one split of one domain, as they are stored. Reading raises `ImageError`.

    A kind of source names, as arguments of its class, the fields of config.data that it reads (see
    `open_source`); it checks that the split exists and has images. It gives `__len__`, `name`,
    `fingerprint` and `stored`, or `__getitem__` and `size` if its images are not encoded.

    channels: of the images that it gives.
    files: sizes in bytes by path, if each image is a file of its own.
    scenes: images of one number show one scene in all sources where this is equal, and not None.
    """

    channels: int
    files: Mapping[Path, int] = MappingProxyType({})
    scenes: Hashable = None

    def __len__(self) -> int:
        raise NotImplementedError

    def name(self, index: int) -> str:
        """Tells the user which image this is: its path where it has one."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """The same only for the same set of images, judged by names and stored sizes."""
        raise NotImplementedError

    def stored(self, index: int) -> images.PathOrBytes:
        """The encoded image. It is decoded here, by rules that the libraries' own decoders lack."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> np.ndarray:
        """The decoded image, uint8 (height, width, channels), not resized."""
        return images.decode(self._stored(index), self.channels, name=self.name(index))

    def size(self, index: int) -> tuple[int, int]:
        """Its (height, width), without decoding it."""
        return images.read_size(self._stored(index), name=self.name(index))

    def _stored(self, index: int) -> images.PathOrBytes:
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
