"""One generator on one runtime: arrays of any size, padded to what it takes, in batches."""

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from cyclegan_jax.data.images import note
from cyclegan_jax.errors import UserError
from cyclegan_jax.inference import runtimes
from cyclegan_jax.inference.runtimes import through
from cyclegan_jax.interop import Network
from cyclegan_jax.sharding import Batched

SMALLEST = 16  # pixels: below this, instance norm has next to nothing to average over


class Runner:
    """A generator as a function of images (n, h, w, c) of one type, which the result has, too.

    Each padded size is compiled once, and the programs of the last few sizes are kept.

    Args:
      network, pad, name, runtime, dtype: as of `Translator`.

    Raises:
      UserError: the runtime is not installed, or has no such network or type.
    """

    def __init__(self, network: Network, *, pad: bool, name: str, runtime: str, dtype: str):
        self._module = network.module(dtype)
        self._pad, self._name = pad, name
        self._variables = {'params': network.params}
        self._batched = functools.lru_cache(2)(lambda n: Batched(self._forward, n))
        self._measured = Batched(self._measure, 1)
        self._generator = None  # instead of these three
        if runtime != 'jax':
            self._generator = runtimes.load(runtime, network, name, dtype)

    @property
    def size_multiple(self) -> int:
        return self._module.size_multiple

    def padded(self, side: int) -> int:
        """What a side of so many pixels is padded to."""
        multiple = self.size_multiple
        return -(-max(side, SMALLEST) // multiple) * multiple

    def __call__(self, images: np.ndarray, batch_size: int) -> np.ndarray:
        """Translations of images; raises UserError if they are not finite."""
        if not self._pad:
            return self.run(images, batch_size)
        height, width = images.shape[1:3]
        return self.run(self._extend(images), batch_size)[:, :height, :width]

    def run(self, images: np.ndarray, batch_size: int, variables: dict | None = None) -> np.ndarray:
        """As above, of images whose sides the network takes as they are.

        Args:
          variables: of `normalised_by`; by default each image is normalised by itself. They are put
            on the devices once, as long as it is the same dict.
        """
        if self._generator is None:
            result, finite = self._batched(batch_size)(variables or self._variables, images)
        else:
            batches = [images[i : i + batch_size] for i in range(0, len(images), batch_size)]
            with np.errstate(invalid='ignore'):  # what is not finite is told below
                parts = [through(self._generator, batch, np) for batch in batches]
            result, finite = (np.concatenate(part) for part in zip(*parts, strict=True))
        if not finite.all():
            raise UserError(
                f'{self._name} gives values that are not finite; take an earlier checkpoint '
                '(--step), or train again.'
            )
        return result

    def normalised_by(self, read: Callable[[], np.ndarray]) -> dict | None:
        """Variables for `run`, with what each instance norm finds in the image that `read` gives.

        None, and nothing is read, for runtimes other than 'jax': they normalise each image by
        itself, which is noted once.

        Args:
          read: returns (1, h, w, c).
        """
        if self._generator is None:
            return self._variables | self._measured(self._variables, self._extend(read()))
        note("colours may drift from tile to tile; with the runtime 'jax' less", self._name)
        return None

    def _extend(self, images: np.ndarray) -> np.ndarray:
        missing = [(0, self.padded(side) - side) for side in images.shape[1:3]]
        return np.pad(images, [(0, 0), *missing, (0, 0)], 'reflect')

    def _forward(self, variables, batch):
        return through(lambda x: self._module.apply(variables, x), batch, jnp)

    def _measure(self, variables, batch):
        """As the collection 'statistics'."""
        return self._module.apply(variables, batch, mutable=['statistics'])[1]
