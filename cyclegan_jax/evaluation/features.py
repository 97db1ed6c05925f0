"""What distributions of images are compared by: features of each image, gathered batch by batch."""

from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from cyclegan_jax.evaluation import inception, randconv, resize, sliced_wasserstein

Extract = Callable[[np.ndarray], np.ndarray]


class Collector:
    """Features of a stream of images, in the order of the images.

    Args:
      prepare: (image uint8 (h, w, 3), its number) -> array of one shape.
      apply: from a batch (n, ...) of these to features (n, ...).
      batch_size: how many wait for `apply`.
    """

    def __init__(self, prepare: Callable, apply: Extract, batch_size: int):
        self._prepare, self._apply, self._batch_size = prepare, apply, batch_size
        self._waiting, self._done, self._count = [], [], 0

    def add(self, images: np.ndarray) -> None:
        """Takes uint8 (n, h, w, c); sizes may differ between calls, where `prepare` resizes."""
        for image in images:
            self._waiting.append(self._prepare(_rgb(image), self._count))
            self._count += 1
            if len(self._waiting) == self._batch_size:
                self._flush()

    def result(self) -> np.ndarray:
        """The features of all images so far, (n, ...)."""
        if self._waiting:
            self._flush()
        return np.concatenate(self._done)

    def _flush(self) -> None:
        batch = np.stack(self._waiting)
        self._done.append(self._apply(batch))
        self._waiting = []


class Features:
    """The networks that extract features.

    Args:
      weights: of the FID network (`inception_weights.load`); None if it is not to be used.
      batch_size: images in a call of a network.
    """

    def __init__(self, weights: Mapping | None, batch_size: int):
        self._batch_size = batch_size
        self._randconv = Sharded(randconv.features, batch_size).with_params(randconv.parameters())
        if weights is not None:
            self._inception = Sharded(inception.features, batch_size).with_params(weights)

    def collector(self, kind: str, count: int) -> Collector:
        """A collector of one kind of features, for a set of `count` images.

        Args:
          kind: 'randconv', 'patches', or one of `resize.PROTOCOLS`: what the FID network makes of
            images that are resized so.
        """
        if kind == 'randconv':
            return Collector(lambda image, _: image, self._randconv, self._batch_size)
        if kind == 'patches':
            return Collector(
                lambda image, number: sliced_wasserstein.patches(image, number, count),
                lambda patches: patches,
                self._batch_size,
            )
        return Collector(
            lambda image, _: resize.prepare(image, kind), self._inception, self._batch_size
        )


class Sharded:
    """`function(params, batch)` on arrays of the host, the batch split over the local devices.

    Compiled once, for `batch_size` rounded up to a multiple of the devices: shorter batches are
    filled up, and longer ones not allowed.
    """

    def __init__(self, function: Callable, batch_size: int):
        devices = jax.local_devices()
        mesh = jax.make_mesh(
            (len(devices),), ('data',), axis_types=(AxisType.Auto,), devices=devices
        )
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        self._split = NamedSharding(mesh, PartitionSpec('data'))
        self._size = -(-batch_size // len(devices)) * len(devices)
        self._function = jax.jit(
            function, in_shardings=(self._everywhere, self._split), out_shardings=self._split
        )

    def with_params(self, params) -> Extract:
        """The function of a batch alone, its parameters on the devices."""
        params = jax.device_put(params, self._everywhere)

        def apply(batch: np.ndarray) -> np.ndarray:
            filled = np.concatenate([batch, np.repeat(batch[-1:], self._size - len(batch), axis=0)])
            outputs = self._function(params, jax.device_put(filled, self._split))
            return jax.device_get(outputs)[: len(batch)]

        return apply


def _rgb(image: np.ndarray) -> np.ndarray:
    """Grey as three equal channels; transparency on white, as images are read."""
    if image.shape[-1] == 1:
        return np.repeat(image, 3, axis=-1)
    if image.shape[-1] == 4:
        alpha = image[..., 3:] / 255
        return np.rint(image[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return image
