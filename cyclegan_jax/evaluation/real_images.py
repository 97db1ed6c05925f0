"""The real images that translations are compared with, and what can be saved of them."""

import functools
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from cyclegan_jax.evaluation import measures
from cyclegan_jax.evaluation.features import Features
from cyclegan_jax.evaluation.measures import Images, Scores

_SHA256 = 'inception_sha256'
_UNSAVED = 'patches'


class RealImages:
    """Real images of one domain. What is computed of them is computed once, when first needed.

    Args:
      features: the networks of the distribution scores.
      metrics: names of `measures.DISTRIBUTION`.
      images: the images, or their features by kind (`load`).
      other: more real images of the domain. Without them the floor compares halves of `images`.
    """

    def __init__(
        self,
        features: Features,
        metrics: Iterable[str],
        images: Images | Mapping[str, np.ndarray],
        other: Images | None = None,
    ):
        self._networks, self._metrics = features, tuple(metrics)
        self._images, self._other = images, other

    def __len__(self) -> int:
        known = isinstance(self._images, Mapping)
        return len(next(iter(self._images.values())) if known else self._images)

    @functools.cached_property
    def features(self) -> Mapping[str, np.ndarray]:
        """By kind, (n, ...)."""
        if isinstance(self._images, Mapping):
            return self._images
        gather = measures.Gather(self._networks, self._metrics, len(self))
        return measures.run([gather], measures.as_they_are(self._images), len(self), 'real')

    @functools.cached_property
    def spread(self) -> float:
        """How much the images differ from each other, see `measures.PixelMoments`."""
        moments = measures.PixelMoments()
        measures.run([moments], measures.as_they_are(self._images), len(self), 'real')
        return moments.result()['spread']

    def distance(self, count: int) -> measures.Distance:
        """A measure of how far `count` images, those added to it, are from these."""
        return measures.Distance(self._networks, self._metrics, count, self.features)

    def floor(self, count: int) -> Scores:
        """Distances between two sets of real images, and `images`: how many the first one had.

        The first set is `count` of the other images, or as many as there are; {} for one alone.
        """
        if min(count, len(self) // 2 if self._other is None else len(self._other)) < 2:
            return {}
        if self._other is None:
            halves = ({kind: f[start::2] for kind, f in self.features.items()} for start in (0, 1))
            return measures.distribution(self._metrics, *halves) | {'images': len(self) // 2}
        # Evenly spread: the first ones of a folder may be of one kind.
        indices = np.linspace(0, len(self._other) - 1, min(count, len(self._other)))
        chosen = measures.View(self._other, indices.astype(int).tolist())
        scores = measures.run(
            [self.distance(len(chosen))], measures.as_they_are(chosen), len(chosen), 'other real'
        )
        return scores | {'images': len(chosen)}


def save(path: str | os.PathLike, features: Mapping[str, np.ndarray], sha256: str | None) -> None:
    """Writes features for `load`, but for those of swd, which are larger than the images.

    Args:
      sha256: of the FID network's weights; None if they were not used.
    """
    kept = {kind: array for kind, array in features.items() if kind != _UNSAVED}
    with Path(path).open('wb') as file:
        np.savez(file, **kept, **{_SHA256: sha256 or ''})


def load(path: str | os.PathLike, sha256: str | None) -> dict[str, np.ndarray]:
    """Features by kind that `save` wrote.

    Args:
      sha256: of the FID network's weights now; None if they are not used.

    Raises:
      ValueError: the file is something else, damaged, or was made with other weights.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            features = dict(file)
        made_with = str(features.pop(_SHA256))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise ValueError(
            f'{path} is not a file written by --save-real, or is damaged ({reason})'
        ) from error
    if sha256 and made_with and sha256 != made_with:
        raise ValueError(
            f'{path} was made with Inception weights of sha256 {made_with[:8]}, --inception has '
            f'{sha256[:8]}; make it again'
        )
    return features
