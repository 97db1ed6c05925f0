"""One split of one domain as the networks see it: usable images, of the right size."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from absl import logging
from tqdm import tqdm

from cyclegan_jax.data import arrays, images
from cyclegan_jax.data.images import ImageError
from cyclegan_jax.data.sources import Source
from cyclegan_jax.errors import UserError
from cyclegan_jax.pixels import Pixels

NEIGHBOURS = 10  # images tried in place of one; if none can be read, it is not the image's fault
Size = tuple[int, int]
Gather = Callable[[list], list[list]]  # the lists of all processes, in their order


def alone(mine: list) -> list[list]:
    """`Gather`, of a process that is the only one."""
    return [mine]


@dataclasses.dataclass(kw_only=True)
class Split:
    """The usable images of a source, resized.

    Attributes:
      indices: their numbers in the source.
      resized_size: the (height, width) here of an image, given its own.
      min_size: smaller ones are unusable, since the crop would not fit.
      only_size: others are unusable, since nothing is cropped; None if it is.
      replace: an image that can't be read (any more) gives way to the next one that can.
      fixed: the indices are those of a run that goes on: what is found unusable stays among them,
        so that the order of the others stays what it was.
      kept: the images, where memory holds them; None in place of one that is unusable, or is read
        when it is shown first: it is rendered, or another process has checked it.
      unusable: what was found wrong with images of the source, by index.
    """

    source: Source
    indices: list[int]
    resized_size: Callable[[Size], Size]
    min_size: Size
    replace: bool
    only_size: Size | None = None
    fixed: bool = False
    kept: list[np.ndarray | None] | None = None
    unusable: dict[int, ImageError] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def pixels(self) -> Pixels:
        return self.source.pixels

    def __getitem__(self, position: int) -> np.ndarray:
        """(height, width, channels) of the type of `pixels`.

        Raises:
          ImageError: it can't be read; with `replace`, nor can any of the next ones.
        """
        try:
            return self._get(position)
        except ImageError as error:
            if not self.replace:
                raise
            first = error
        self._warn(position, first)
        for neighbour in range(position + 1, position + min(NEIGHBOURS, len(self))):
            with contextlib.suppress(ImageError):
                return self._get(neighbour % len(self))
        raise first

    def _warn(self, position: int, error: ImageError) -> None:
        if (index := self.indices[position]) not in self.unusable:
            self.unusable[index] = error
            logging.warning('%s (the next image takes its place; said once)', error)

    def _get(self, position: int) -> np.ndarray:
        index = self.indices[position]
        if not self.kept:
            return self.read(index)
        if self.kept[position] is None:
            if index in self.unusable:
                raise self.unusable[index].with_traceback(None)  # which grows with each raise
            self.kept[position] = self.read(index)
        return self.kept[position]

    @property
    def in_memory(self) -> bool:
        """Whether none has to be decoded any more."""
        read = self.source.rendered or all(image is not None for image in self.kept or ())
        return bool(self.kept) and read

    def fix(self, left_out: Sequence[int]) -> None:
        """Uses again what a run was started with: all images but for those of these numbers."""
        self.indices = sorted({*self.indices}.difference(left_out))
        self.fixed = True

    def read(self, index: int) -> np.ndarray:
        """Decodes and resizes image `index` of the source."""
        image = arrays.as_stored(self.source[index], self.pixels, self.source.name(index))
        resized = images.resize(image, self._resized_size(index, image.shape[:2]))
        return arrays.clipped(resized, self.pixels)

    def measure_range(self, num_threads: int) -> Pixels:
        """The pixels of these images, with the range that their values have.

        Raises:
          UserError: there are no values to measure.
        """
        pixels = self.pixels

        def measure(index: int) -> np.ndarray:
            try:
                return arrays.measure(self.source[index], pixels.measured)
            except ImageError:
                return np.empty((0, pixels.channels))  # told when all are read

        with ThreadPoolExecutor(max(num_threads, 1)) as pool:
            values = np.concatenate(list(pool.map(measure, self.indices)))
        if not len(values):
            raise UserError(
                f'data.range is {pixels.measured!r}, but domain {pixels.domain} has no image with '
                f'values to measure; set {pixels.flag("range")}="(low, high)".'
            )
        found = pixels.with_range(*arrays.range_of(values, pixels.measured))
        logging.info('domain %s, measured: %s', pixels.domain, found.describe())
        return found

    def measure(self, index: int) -> tuple[Size, Size]:
        """The sizes of an image as it is stored and as `read` would return it, from its header."""
        stored = self.source.size(index)
        return stored, self._resized_size(index, stored)

    def _resized_size(self, index: int, stored: Size) -> Size:
        size = self.resized_size(stored)
        if size[0] * size[1] > images.MAX_PIXELS:
            raise ImageError(self.source.name(index), 'would be resized to {} x {}'.format(*size))
        if size[0] < self.min_size[0] or size[1] < self.min_size[1]:
            raise ImageError(
                self.source.name(index),
                '{} x {} is smaller than data.crop_size {} x {}'.format(*size, *self.min_size),
            )
        if self.only_size and size != self.only_size:
            raise ImageError(
                self.source.name(index), '{} x {}, not {} x {}'.format(*size, *self.only_size)
            )
        return size

    def decode_all(self, keep: bool, num_threads: int, share: slice, gather: Gather) -> None:
        """Decodes the images, so that the unusable are known, and keeps them if asked to.

        Args:
          share: which of them are for this process to decode; `gather` tells the others of those
            that it found unusable, and this one of theirs. Nobody looks at those that are rendered.
        """
        if self.source.rendered:
            share = slice(0)

        def decode(index):
            image = self.read(index)
            return image if keep else ()

        decoded = self.sift(decode, num_threads, 'decoding images', share, gather)
        self.kept = decoded if keep else None

    def sift(
        self,
        function: Callable,
        num_threads: int,
        what: str,
        share: slice = slice(None),
        gather: Gather = alone,
    ) -> list:
        """Applies `function` to every index in threads; images for which it raises are unusable.

        Returns:
          The results, in the order of the indices that stay; None for an unusable image that does,
          and for one that is not in this process's share.
        """
        mine = self.indices[share]

        def attempt(index):
            try:
                return function(index)
            except ImageError as error:
                return error

        with ThreadPoolExecutor(max(num_threads, 1)) as pool:
            outcomes = pool.map(attempt, mine)
            # disable=None: only on a terminal.
            bar = tqdm(
                outcomes, what, len(mine), leave=False, disable=None, delay=2, unit=' images'
            )
            results = dict(zip(mine, bar, strict=True))
        found = {i: result for i, result in results.items() if isinstance(result, ImageError)}
        told = gather([[i, error.name, error.reason] for i, error in found.items()])
        everyones = sorted(itertools.chain.from_iterable(told))  # in one order for all
        errors = {i: ImageError(name, reason) for i, name, reason in everyones}
        self.unusable |= errors
        if not self.fixed:
            self.indices = [i for i in self.indices if i not in errors]
        return [None if i in errors else results.get(i) for i in self.indices]
