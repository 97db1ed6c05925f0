"""Rendered scenes, whose true translation is known."""

import numpy as np
from PIL import Image

from cyclegan_jax.data import images, synthetic
from cyclegan_jax.data.sources.source import Source, digest
from cyclegan_jax.errors import check_choice


class Synthetic(Source):
    """Scenes drawn by `synthetic.render`. Test images of A and B show the same scenes."""

    def __init__(self, name: str, domain: str, test: bool, size: tuple[int, int], channels: int):
        check_choice('data.name', name, synthetic.NAMES)
        self.channels = channels
        self._name, self._domain, self._split = name, domain, 'test' if test else 'train'
        self._size = size
        self._first = synthetic.FIRST_SCENE[domain, self._split]
        self.scenes = (name, self._first)

    def __len__(self) -> int:
        return synthetic.NUM_IMAGES[self._split]

    def __getitem__(self, index: int) -> np.ndarray:
        image = self._render(index)['ab'.index(self._domain)]
        return images.to_array(Image.fromarray(image), self.channels)

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
