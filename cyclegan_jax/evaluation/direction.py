"""One direction of translation, scored in the same way at any step of a run.

Three families of scores, because none sees everything: distribution (do the outputs look like the
target domain?), correspondence (is each the right one?) and reconstruction (can it be undone?).
"""

import dataclasses
import functools
import os
import zipfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from cyclegan_jax import storage
from cyclegan_jax.data.images import as_rgb
from cyclegan_jax.errors import UserError
from cyclegan_jax.evaluation import measures
from cyclegan_jax.evaluation.measures import Images, Scores, Translations, as_they_are
from cyclegan_jax.evaluation.metric import Features, Metric
from cyclegan_jax.pixels import PHOTOGRAPHS, Pixels
from cyclegan_jax.sharding import Batched

_SHA256 = 'inception_sha256'  # in a file of features
_UNBIASED = 2048  # images; with fewer, FID says as much about their number as about them


@dataclasses.dataclass(eq=False)
class Direction:
    """Everything about one direction that does not depend on the translator, computed once.

    Args:
      extractor: runs the networks of the distribution scores.
      metrics: what to compute, as `scores.parse` gives them.
      count: how many translations there are to score.
      real: real images of the target domain, or their features by name, which are enough for
        distribution scores.
      inputs: the images that are translated; needed by 'cycle'.
      truth: the right translation of each input; needed by 'paired'.
      classes, palette: what each translation should show, uint8 (h, w), and the colours that show
        it, uint8 (classes, 3); needed by 'labels'.
      other: more real images of the target domain, for the floor. Without them it compares the
        halves of `real`.
      legacy: label scores by the paper's formula, see `labels.scores`.
      pixels, input_pixels: of the target domain, and of the inputs.

    Raises:
      UserError: fewer than two images on a side of a distribution score.
    """

    extractor: 'Extractor'
    metrics: Sequence[Metric]
    _: dataclasses.KW_ONLY
    count: int
    real: Images | Mapping[str, np.ndarray]
    inputs: Images | None = None
    truth: Images | None = None
    classes: Images | None = None
    palette: np.ndarray | None = None
    other: Images | None = None
    legacy: bool = False
    pixels: Pixels = PHOTOGRAPHS
    input_pixels: Pixels = PHOTOGRAPHS

    def __post_init__(self):
        self._distances = [metric for metric in self.metrics if metric.features]
        known = isinstance(self.real, Mapping)
        self.real_count = len(next(iter(self.real.values())) if known else self.real)
        if self._distances and min(self.count, self.real_count) < 2:
            raise UserError(
                f'{self.count} images against {self.real_count} real ones; a distance between sets '
                'wants at least 2 in each.'
            )

    def score(self, translations: Translations) -> Scores:
        """Scores the translations of all inputs, in the order of the inputs.

        Returns:
          By name, the scores of the metrics asked for, and their details.
        """
        made = [make(self) for metric in self.metrics for make in metric.measures]
        chosen = [measure for measure in made if measure is not None]
        features = self._collect(translations, self.count, 'translated', chosen)
        scores = self._distance(features, self.real_features)
        for measure in chosen:
            scores |= measure.result()
        return scores

    @functools.cached_property
    def baselines(self) -> dict[str, Scores]:
        """Scores to read a translator's against, as far as they can be known.

        floor: distances between two sets of real images.
        ceiling, untranslated: the inputs as they are, in place of their translations.
        mean_image: the mean of real images, not those of the test, in place of every translation.
        label_ceiling: labels read from the right translations.
        """
        found = defaultdict(dict)
        if self._distances:
            found['floor'] = self._floor()
            if self.inputs is not None and self.input_pixels.comparable(self.pixels):
                inputs = self._features(self.inputs, 'baseline', self.input_pixels)
                found['ceiling'] = self._distance(inputs, self.real_features)
        for metric in self.metrics:
            for name, make in metric.baselines.items():
                if (images := make(self)) is not None:
                    found[name] |= measures.result_of(metric.measures[0](self), images)
        return {name: scores for name, scores in found.items() if scores}

    def warnings(self, scores: Scores) -> list[str]:
        """What a reader of the scores should know; one line each."""
        shown = [score for metric in self.metrics for score in metric.scores]
        alarms = [score.alarm(scores[score.name]) for score in shown if score.name in scores]
        found = [alarm for alarm in alarms if alarm]
        floor = self.baselines.get('floor', {'images': self.count})
        if floor['images'] != self.count:
            found.append(
                f'the floor is of {floor["images"]} images, for lack of {self.count}; it is lower '
                'with more'
            )
        biased = [metric.name for metric in self.metrics if metric.biased]
        if biased and min(self.count, self.real_count) < _UNBIASED:
            found.append(
                f'{", ".join(biased)} of {self.count} images against {self.real_count}: biased '
                'upwards; compare only with scores of the same counts; KID has no such bias'
            )
        return found

    def inputs_look_like(self, colours: Sequence[np.ndarray]) -> bool:
        """Whether there are inputs, of as many channels as these: images, or a palette."""
        if self.inputs is None or self.inputs[0].shape[-1] != colours[0].shape[-1]:
            return False
        return self.input_pixels.comparable(self.pixels)

    @functools.cached_property
    def real_features(self) -> Mapping[str, np.ndarray]:
        """Of the real images, by name, (n, ...)."""
        known = isinstance(self.real, Mapping)
        return self.real if known else self._features(self.real, 'real')

    @functools.cached_property
    def real_spread(self) -> float:
        """How much the real images differ from each other, see `measures.Moments`."""
        return measures.result_of(measures.Moments(), self.real, 'real')['spread']

    def _floor(self) -> Scores:
        """Distances between two sets of real images, and `images`: how many the first one had.

        The first set is `count` of the other images, or as many as there are; {} for one alone.
        """
        count = self.real_count // 2 if self.other is None else min(self.count, len(self.other))
        if min(count, self.count) < 2:
            return {}
        if self.other is None:
            halves = [{k: f[start::2] for k, f in self.real_features.items()} for start in (0, 1)]
            return self._distance(*halves) | {'images': count}
        # Evenly spread: the first ones of a folder may be of one kind.
        indices = np.linspace(0, len(self.other) - 1, count).astype(int).tolist()
        features = self._features(measures.View(self.other.__getitem__, indices), 'other real')
        return self._distance(features, self.real_features) | {'images': count}

    def _distance(self, x: Mapping[str, np.ndarray], y: Mapping[str, np.ndarray]) -> Scores:
        """Distribution scores, with their details, of two sets given by their features."""
        return {
            metric.name + suffix: value
            for metric in self._distances
            for suffix, value in metric.distance(
                x[metric.features.name], y[metric.features.name]
            ).items()
        }

    def _features(
        self, images: Images, name: str, pixels: Pixels | None = None
    ) -> dict[str, np.ndarray]:
        return self._collect(as_they_are(images), len(images), name, pixels=pixels)

    def _collect(
        self,
        translations: Translations,
        count: int,
        name: str,
        others: Sequence = (),
        pixels: Pixels | None = None,
    ) -> dict[str, np.ndarray]:
        """Features of the translations, by name; on the way adds them to other measures."""
        kinds = dict.fromkeys(metric.features for metric in self._distances)
        pixels = pixels or self.pixels
        collectors = {kind.name: self.extractor.collector(kind, count, pixels) for kind in kinds}
        measures.run([*collectors.values(), *others], translations, count, name)
        return {name: collector.result() for name, collector in collectors.items()}


class Extractor:
    """Runs the networks that make features; each is compiled once.

    Args:
      weights: of the FID network (`inception_weights.load`); None if it is not to be used.
      batch_size: images in a call of a network.
    """

    def __init__(self, weights: Mapping | None, batch_size: int):
        self._weights, self._batch_size, self._ready = weights, batch_size, {}

    def collector(
        self, features: Features, count: int, pixels: Pixels = PHOTOGRAPHS
    ) -> 'Collector':
        """A collector of features for a set of `count` images."""
        network = features.network
        if network and network not in self._ready:
            params = features.params(self._weights)
            apply = Batched(network, self._batch_size)
            self._ready[network] = functools.partial(apply, params)
        seen = as_rgb if pixels.photographs else pixels.to_float
        return Collector(
            lambda image, number: features.prepare(seen(image), number, count),
            self._ready.get(network, lambda batch: batch),
            self._batch_size,
        )


class Collector:
    """A measure that gathers features of a stream of images, in the order of the images.

    Args:
      prepare: (image uint8 (h, w, c), its number) -> array of one shape.
      apply: from a batch (n, ...) of these to features (n, ...).
      batch_size: how many wait for `apply`.
    """

    def __init__(self, prepare: Callable, apply: Callable, batch_size: int):
        self._prepare, self._apply, self._batch_size = prepare, apply, batch_size
        self._waiting, self._done = [], []

    def add(self, number: int, output: np.ndarray, cycled: np.ndarray | None) -> None:
        self._waiting.append(self._prepare(output, number))
        if len(self._waiting) == self._batch_size:
            self._flush()

    def result(self) -> np.ndarray:
        """The features of all images so far, (n, ...)."""
        if self._waiting:
            self._flush()
        return np.concatenate(self._done)

    def _flush(self) -> None:
        self._done.append(self._apply(np.stack(self._waiting)))
        self._waiting = []


def save_features(path: str | os.PathLike, direction: Direction, sha256: str | None) -> None:
    """Writes a direction's real features for `load_features`.

    Args:
      sha256: of the FID network's weights; None if they were not used.
    """
    kinds = {metric.features for metric in direction.metrics if metric.features}
    kept = {kind.name: direction.real_features[kind.name] for kind in kinds if kind.kept}
    with storage.whole(path) as temporary, temporary.open('wb') as file:
        np.savez(file, **kept, **{_SHA256: sha256 or ''})


def load_features(path: str | os.PathLike, sha256: str | None) -> dict[str, np.ndarray]:
    """Features by name that `save_features` wrote.

    Args:
      sha256: of the FID network's weights now; None if they are not used.

    Raises:
      UserError: the file is something else, damaged, or was made with other weights.
    """
    try:
        with Path(path).open('rb') as raw, np.load(raw, allow_pickle=False) as file:
            features = dict(file)
        made_with = str(features.pop(_SHA256))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise UserError(
            f'{path} is not a file written by --save-real, or is damaged ({reason})'
        ) from error
    if sha256 and made_with and sha256 != made_with:
        raise UserError(
            f'{path} was made with Inception weights of sha256 {made_with[:8]}, --inception has '
            f'{sha256[:8]}; make it again'
        )
    return features
