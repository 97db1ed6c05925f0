"""From two splits to batches: shuffling and augmentation. Alone imports grain, to read ahead.

What comes out is a function of the seed and the step alone: not of the number of threads, of the
number of processes, or of whether the images are kept in memory.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import PurePath

import grain
import numpy as np

from cyclegan_jax.data import images
from cyclegan_jax.data.sources.source import digest
from cyclegan_jax.data.split import Size, Split
from cyclegan_jax.pixels import Pixels

DOMAINS = ('a', 'b')
NUM_STEPS = 2**40  # grain wants a length: as good as infinite
PREFETCH = 2  # batches ahead for each thread: benchmarks/input_pipeline.py waits no less with more
ORDER, CROPS = 0, 1  # what is drawn: part of the seed


@dataclasses.dataclass(kw_only=True)
class Dataset:
    """Two domains, checked and ready. Made by `load`.

    Attributes:
      image_size: (height, width) of everything that comes out.
      skipped: 'name: reason' of each image that data.skip_corrupt left out, printable.
      left_out: the numbers of those in the training splits, for `load` when the run goes on.
      test_split_missing: whether `test` shows training images for lack of others.
    """

    train: dict[str, Split]
    tests: dict[str, Split]
    image_size: Size
    flip: bool
    seed: int
    batch_size: int
    process_index: int
    process_count: int
    num_threads: int
    skipped: list[str]
    left_out: dict[str, list[int]]
    test_split_missing: bool

    @property
    def lengths(self) -> dict[str, int]:
        return {domain: len(self.train[domain]) for domain in DOMAINS}

    @property
    def pixels(self) -> dict[str, Pixels]:
        return {domain: self.train[domain].pixels for domain in DOMAINS}

    @property
    def channels(self) -> dict[str, int]:
        return {domain: pixels.channels for domain, pixels in self.pixels.items()}

    @property
    def epoch_length(self) -> int:
        """Images of each domain in an epoch: the larger domain once, as in the reference."""
        return max(self.lengths.values())

    @property
    def paired(self) -> bool:
        """Whether test images of equal number show one scene: the truth of a translation."""
        a, b = (self.tests[domain].source.scenes for domain in DOMAINS)
        return a == b is not None

    @property
    def fingerprint(self) -> str:
        """Changes when a training image is added, removed, renamed or changes its stored size."""
        return digest(
            *((split.source.fingerprint(), split.indices) for split in self.train.values())
        )

    @property
    def identity(self) -> dict:
        """What a checkpoint keeps of the data that it was trained on; see `is_that_of`."""
        return {
            'fingerprint': self.fingerprint,
            'names': self._names(),
            'lengths': self.lengths,
            'left_out': self.left_out,
            'pixels': {domain: pixels.to_json() for domain, pixels in self.pixels.items()},
        }

    def is_that_of(self, saved: Mapping) -> bool:
        """Whether a checkpoint that keeps the identity `saved` was trained on this set.

        An image that has become unusable may have any size: then only the names are compared.
        """
        if any(split.unusable for split in self.train.values()) and 'names' in saved:
            return saved['names'] == self._names()
        return saved['fingerprint'] == self.fingerprint

    def _names(self) -> str:
        """A hash of the names of the training images, without the folders that they lie in."""
        return digest(
            *(
                [PurePath(split.source.name(i)).name for i in split.indices]
                for split in self.train.values()
            )
        )

    @property
    def test_names(self) -> dict[str, list[str]]:
        return {
            domain: [split.source.name(i) for i in split.indices]
            for domain, split in self.tests.items()
        }

    def batches(
        self, *, start: int = 0, place: Callable[[dict], dict] = lambda batch: batch
    ) -> grain.DatasetIterator:
        """Endless {'a', 'b'} of (local batch, height, width, channels), as `pixels` has them.

        Every domain is shuffled anew each epoch of its own. Processes get consecutive slices of
        the global batch, which is therefore the same array for any number of them.

        Args:
          start: the number of the first batch, which is that of the steps that have been made.
          place: what becomes of a batch in the thread that made it: it may be put on the devices
            there, so that next() need not.

        Raises:
          ImageError: from next(), as an image of this batch can't be read (any more), and none may
            take its place. The batches before it have all been returned.
        """
        order = functools.lru_cache(maxsize=4)(self._order)  # a batch may be of two epochs
        batches = grain.MapDataset.range(start, NUM_STEPS).map(
            lambda step: place(self._batch(step, order))
        )
        kept = all(split.in_memory for split in self.train.values())
        # Copying takes one thread a small part of a step. More would take turns with the loop.
        threads = min(self.num_threads, 1) if kept else self.num_threads
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=PREFETCH * threads)
        return iter(batches.to_iter_dataset(options))

    def test(self, n: int | None = None) -> dict[str, np.ndarray]:
        """The first `n` (or all) test images, not augmented: {'a', 'b'} of (k, h, w, c).

        There may be fewer than `n`, and different numbers of a and b.
        """
        return {
            domain: np.stack([self._centre(split[i]) for i in range(len(split))[:n]])
            for domain, split in self.tests.items()
        }

    def test_labels(self, n: int | None = None) -> np.ndarray | None:
        """The classes in the test images of a synthetic set, uint8 (k, h, w), otherwise None."""
        if not self.paired:
            return None
        tests = self.tests['a']
        return np.stack([self._centre(tests.source.labels(i)) for i in tests.indices[:n]])

    def _order(self, number: int, epoch: int) -> np.ndarray:
        """The images of a domain as the epoch shows them."""
        random = np.random.default_rng((self.seed, ORDER, number, epoch))
        return random.permutation(len(self.train[DOMAINS[number]]))

    def _batch(self, step: int, order: Callable[[int, int], np.ndarray]) -> dict[str, np.ndarray]:
        """This process's slice of batch `step`."""
        local = self.batch_size // self.process_count
        slots = slice(self.process_index * local, (self.process_index + 1) * local)
        positions = range(step * self.batch_size, (step + 1) * self.batch_size)[slots]
        batch = {}
        for number, (domain, split) in enumerate(self.train.items()):
            # Drawn for the global batch: three numbers in [0, 1) for each of its images.
            random = np.random.default_rng((self.seed, CROPS, number, step))
            draws = random.random((self.batch_size, 3))[slots]
            batch[domain] = np.empty(
                (local, *self.image_size, split.pixels.channels), split.pixels.dtype
            )
            for out, position, drawn in zip(batch[domain], positions, draws, strict=True):
                epoch, i = divmod(position, len(split))
                self._augment(split[order(number, epoch)[i]], *drawn, out)
        return batch

    def _augment(self, image: np.ndarray, y: float, x: float, z: float, out: np.ndarray) -> None:
        """Writes a crop of the image to `out`; where, and whether mirrored, the numbers say."""
        (height, width), (crop_height, crop_width) = image.shape[:2], self.image_size
        top, left = int(y * (height - crop_height + 1)), int(x * (width - crop_width + 1))
        image = image[top : top + crop_height, left : left + crop_width]
        if self.flip and z < 0.5:
            # At once, numpy would copy pixel by pixel, which takes eight times as long.
            for channel in range(image.shape[2]):
                out[..., channel] = image[:, ::-1, channel]
        else:
            out[...] = image

    def _centre(self, image: np.ndarray) -> np.ndarray:
        return images.centre_crop(image, self.image_size)
