"""Rendered scenes, whose true translation is known."""

import numpy as np
from PIL import Image

from cyclegan_jax.data import images, synthetic
from cyclegan_jax.data.sources.source import Source, digest
from cyclegan_jax.errors import UserError, check_choice
from cyclegan_jax.pixels import PHOTOGRAPHS, Pixels


class Synthetic(Source):
    """Scenes drawn by `synthetic`, in any bands and depth. Test images of A and B show the same."""

    rendered = True

    def __init__(
        self,
        name: str,
        domain: str,
        test: bool,
        size: tuple[int, int],
        channels: int,
        pixels: Pixels = PHOTOGRAPHS,
    ):
        check_choice('data.name', name, synthetic.NAMES)
        if pixels.pages != 'channels':
            raise UserError("data.pages is 'pictures', but rendered images are no files of pages.")
        self.channels = channels
        self._name, self._domain, self._split = name, domain, 'test' if test else 'train'
        self._size = size
        self._first = synthetic.FIRST_SCENE[domain, self._split]
        self.scenes = (name, self._first)

    def __len__(self) -> int:
        return synthetic.NUM_IMAGES[self._split]

    def __getitem__(self, index: int) -> np.ndarray:
        number = 'ab'.index(self._domain)
        if self.pixels.as_pillow:
            image = self._render(index)[number]
            return images.to_array(Image.fromarray(image), self.channels)
        image = synthetic.draw(self._name, self._first + index, self._size)[number]
        whole = self.pixels.dtype != 'float32'
        low, high = self.pixels.low, self.pixels.high
        if not self.pixels.known:  # it is to be measured
            low, high = (0.0,), (np.iinfo(self.pixels.dtype).max if whole else 1.0,)
        image = low + synthetic.in_bands(image, self.channels) / 255 * np.subtract(high, low)
        return (np.rint(image) if whole else image).astype(self.pixels.dtype)

    def labels(self, index: int) -> np.ndarray:
        """The class of each pixel, uint8 (height, width)."""
        return self._render(index)[2]

    def name(self, index: int) -> str:
        return f'{self._name}_{self._split}_{self._domain}_{index:04}'

    def size(self, index: int) -> tuple[int, int]:
        return self._size

    def fingerprint(self) -> str:
        return digest('synthetic', self._name, self._domain, self._split, self._size, len(self))

    def _render(self, index: int) -> tuple[np.ndarray, ...]:
        return synthetic.render(self._name, self._first + index, self._size)
