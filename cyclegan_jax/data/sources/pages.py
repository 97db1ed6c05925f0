"""Files of many pictures: pages, slices of a volume."""

import functools
from bisect import bisect_right
from itertools import accumulate

import numpy as np

from cyclegan_jax.data.arrays import Stored
from cyclegan_jax.data.images import ImageError
from cyclegan_jax.data.sources.source import Source, digest

_KEPT = 4  # decoded files: threads read the pages of one after the other


class Pages(Source):
    """Each page of each file of another source, as an image of its own."""

    def __init__(self, source: Source):
        self._source, self.channels = source, source.channels
        self.files, self.pixels = source.files, source.pixels
        self._first = list(accumulate(map(self._count, range(len(source))), initial=0))
        self._decoded = functools.lru_cache(_KEPT)(source.stack)
        self._shape = functools.lru_cache(_KEPT)(source.stack_shape)

    def __len__(self) -> int:
        return self._first[-1]

    def name(self, index: int) -> str:
        file, page = self._place(index)
        return f'{self._source.name(file)}[{page}]'

    def fingerprint(self) -> str:
        return digest('pages', self._source.fingerprint(), self._first)

    def stored(self, index: int) -> Stored:
        return self._source.stored(self._place(index)[0])

    def __getitem__(self, index: int) -> np.ndarray:
        file, page = self._place(index)
        return self._decoded(file)[page]

    def size(self, index: int) -> tuple[int, int]:
        return self._shape(self._place(index)[0])[1:]

    def _count(self, file: int) -> int:
        try:
            return self._source.stack_shape(file)[0]
        except ImageError:
            return 1  # which is told when it is read

    def _place(self, index: int) -> tuple[int, int]:
        """(file, page in it)."""
        file = bisect_right(self._first, index) - 1
        return file, index - self._first[file]
