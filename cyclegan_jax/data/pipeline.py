"""From sources to batches: resizing, memory cache, shuffling, augmentation. Alone imports grain.

What comes out is a function of the seed and the step alone: not of the number of threads, of the
number of processes, or of whether the images are kept in memory.
"""

import dataclasses
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grain
import numpy as np
from tqdm import tqdm

from cyclegan_jax.data import images
from cyclegan_jax.data.images import ImageError
from cyclegan_jax.data.sources import Source, digest

DOMAINS = ('a', 'b')
NUM_STEPS = 2**40  # grain wants a length: as good as infinite
PREFETCH = 2  # batches ahead for each thread: benchmarks/input_pipeline.py waits no less with more
ORDER, CROPS = 0, 1  # what is drawn: part of the seed
Size = tuple[int, int]


@dataclasses.dataclass
class Images:
    """The usable images of one split of one domain, resized.

    Attributes:
      indices: numbers of the usable images in the source.
      resized_size: the (height, width) here of an image, given its own.
      min_size: smaller ones are unusable, since the crop would not fit.
      kept: the images, where memory holds them.
    """

    source: Source
    indices: list[int]
    channels: int
    resized_size: Callable[[Size], Size]
    min_size: Size
    kept: list[np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> np.ndarray:
        """uint8 (height, width, channels)."""
        return self.kept[position] if self.kept else self.read(self.indices[position])

    def read(self, index: int) -> np.ndarray:
        """Decodes and resizes image `index` of the source."""
        image = self.source[index]
        return images.resize(image, self.resized_size(image.shape[:2]))

    def size(self, index: int) -> Size:
        """The size that `read` would return, from the header; refuses what can't be used."""
        size = self.resized_size(self.source.size(index))
        if size[0] * size[1] > images.MAX_PIXELS:
            raise ImageError(self.source.name(index), 'would be resized to {} x {}'.format(*size))
        if size[0] < self.min_size[0] or size[1] < self.min_size[1]:
            raise ImageError(
                self.source.name(index),
                '{} x {} is smaller than data.crop_size {} x {}'.format(*size, *self.min_size),
            )
        return size

    def decode_all(self, keep: bool, num_threads: int) -> list[ImageError]:
        """Decodes every image, so that the unusable are known and dropped. Returns the errors."""

        def decode(index):
            image = self.read(index)
            return image if keep else None

        decoded, errors = self.sift(decode, num_threads, 'decoding images')
        self.kept = decoded if keep else None
        return errors

    def sift(self, function: Callable, num_threads: int, what: str) -> tuple[list, list]:
        """Applies `function` to every index in threads and drops those that raise ImageError.

        Returns:
          The results of the indices that stay, and the errors.
        """

        def attempt(index):
            try:
                return function(index)
            except ImageError as error:
                return error

        with ThreadPoolExecutor(max(num_threads, 1)) as pool:
            outcomes = pool.map(attempt, self.indices)
            # disable=None: only on a terminal.
            bar = tqdm(
                outcomes, what, len(self), leave=False, disable=None, delay=2, unit=' images'
            )
            outcomes = list(zip(self.indices, bar, strict=True))
        good = [(i, result) for i, result in outcomes if not isinstance(result, ImageError)]
        self.indices = [i for i, _ in good]
        errors = [result for _, result in outcomes if isinstance(result, ImageError)]
        return [result for _, result in good], errors


@dataclasses.dataclass(kw_only=True)
class Dataset:
    """Two domains, checked and ready. Made by `load`.

    Attributes:
      image_size: (height, width) of everything that comes out.
      channels: {'a', 'b'}.
      skipped: 'name: reason' of each image that data.skip_corrupt left out.
      test_split_missing: whether `test` shows training images for lack of others.
      paired: whether test images of equal number show one scene, the truth of a translation.
    """

    train: dict[str, Images]
    tests: dict[str, Images]
    image_size: Size
    channels: dict[str, int]
    flip: bool
    seed: int
    batch_size: int
    process_index: int
    process_count: int
    num_threads: int
    skipped: list[str]
    test_split_missing: bool
    paired: bool

    @property
    def lengths(self) -> dict[str, int]:
        return {domain: len(self.train[domain]) for domain in DOMAINS}

    @property
    def epoch_length(self) -> int:
        """Images of each domain in an epoch: the larger domain once, as in the reference."""
        return max(self.lengths.values())

    @property
    def fingerprint(self) -> str:
        """Changes when a training image is added, removed or changes its stored size."""
        return digest(*((i.source.fingerprint(), i.indices) for i in self.train.values()))

    @property
    def test_names(self) -> dict[str, list[str]]:
        return {
            domain: [images_.source.name(i) for i in images_.indices]
            for domain, images_ in self.tests.items()
        }

    def batches(self, place: Callable[[dict], dict] = lambda batch: batch) -> grain.DatasetIterator:
        """Endless {'a', 'b'} of uint8 (local batch, height, width, channels of the domain).

        Every domain is shuffled anew each epoch of its own. Processes get consecutive slices of
        the global batch, which is therefore the same array for any number of them. After t calls
        of next(), `get_state()` is a small dict that `set_state` takes to continue at batch t.

        Args:
          place: what becomes of a batch in the thread that made it: it may be put on the devices
            there, so that next() need not.
        """
        order = functools.lru_cache(maxsize=4)(self._order)  # a batch may be of two epochs
        batches = grain.MapDataset.range(NUM_STEPS).map(
            lambda step: place(self._batch(step, order))
        )
        kept = all(images_.kept for images_ in self.train.values())
        # Copying takes one thread a small part of a step. More would take turns with the loop.
        threads = min(self.num_threads, 1) if kept else self.num_threads
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=PREFETCH * threads)
        return iter(batches.to_iter_dataset(options))

    def test(self, n: int | None = None) -> dict[str, np.ndarray]:
        """The first `n` (or all) test images, not augmented: {'a', 'b'} of uint8 (k, h, w, c).

        There may be fewer than `n`, and different numbers of a and b.
        """
        return {
            domain: np.stack([self._centre_crop(images_[i]) for i in range(len(images_))[:n]])
            for domain, images_ in self.tests.items()
        }

    def test_labels(self, n: int | None = None) -> np.ndarray | None:
        """The classes in the test images of a synthetic set, uint8 (k, h, w), otherwise None."""
        if not self.paired:
            return None
        tests = self.tests['a']
        return np.stack([self._centre_crop(tests.source.labels(i)) for i in tests.indices[:n]])

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
        for number, domain in enumerate(DOMAINS):
            images_ = self.train[domain]
            # Drawn for the global batch: three numbers in [0, 1) for each of its images.
            random = np.random.default_rng((self.seed, CROPS, number, step))
            draws = random.random((self.batch_size, 3))[slots]
            batch[domain] = np.empty((local, *self.image_size, images_.channels), np.uint8)
            for out, position, drawn in zip(batch[domain], positions, draws, strict=True):
                epoch, i = divmod(position, len(images_))
                self._augment(images_[order(number, epoch)[i]], *drawn, out)
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

    def _centre_crop(self, image: np.ndarray) -> np.ndarray:
        (height, width), (crop_height, crop_width) = image.shape[:2], self.image_size
        top, left = (height - crop_height) // 2, (width - crop_width) // 2
        return image[top : top + crop_height, left : left + crop_width]
