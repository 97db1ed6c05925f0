"""Both directions of a data set, scored on its test images."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath

import numpy as np

from cyclegan_jax.data import Dataset
from cyclegan_jax.data.images import centre_crop
from cyclegan_jax.evaluation import paired, scores
from cyclegan_jax.evaluation.direction import Direction, Extractor
from cyclegan_jax.evaluation.inception_weights import NO_WEIGHTS, Weights
from cyclegan_jax.evaluation.measures import Images, Scores, View
from cyclegan_jax.evaluation.metric import Metric
from cyclegan_jax.pixels import Pixels

# (direction, images (n, h, w, c) as stored) -> the translations, as stored
Translate = Callable[[str, np.ndarray], np.ndarray]
Keep = Callable[[str, int, np.ndarray], None]

_NO_TRUTH = 'the right translations of the test images are not known'
_NO_CLASSES = 'the classes in the test images are not known'


class TestSet:
    """The test images of a data set and what their translations are scored against.

    Attributes:
      directions: {'a2b', 'b2a'}.
      unavailable: {metric: why} of the metrics that were asked for but cannot be computed.

    Args:
      metrics: as `scores.parse` gives them.
      weights: of the FID network.
      paired: whether test images of one name, but for a last `_A` or `_B`, are translations of each
        other. Found out where it is None: rendered sets, and names that all end so (facades, maps).
      palette: uint8 (classes, 3), for sets whose classes are known: the colours in domain a.
      legacy: label scores by the paper's formula.
      batch_size: images in a call of a network.

    Raises:
      UserError: names that do not match although `paired` says so, or too few images.
    """

    __test__ = False  # not a test, in spite of its name

    def __init__(
        self,
        dataset: Dataset,
        metrics: Sequence[Metric],
        *,
        weights: Weights = NO_WEIGHTS,
        paired: bool | None = None,
        palette: np.ndarray | None = None,
        legacy: bool = False,
        batch_size: int = 16,
    ):
        in_colours = all(pixels.photographs for pixels in dataset.pixels.values())
        classes = dataset.test_labels() if in_colours else None
        images = {d: _cropped(tests, dataset.image_size) for d, tests in dataset.tests.items()}
        truth = _pair(dataset, images, paired)
        reasons = {
            scores.WEIGHTS: weights.missing,
            scores.TRUTH: _NO_TRUTH if truth is None else '',
            scores.CLASSES: _NO_CLASSES if classes is None else '',
            scores.PHOTOGRAPHS: _no_photographs(dataset.pixels.values()),
        }
        self.unavailable = scores.lacking(metrics, reasons)
        computed = [metric for metric in metrics if metric.name not in self.unavailable]
        extractor = Extractor(weights.params, batch_size)
        self._batch_size, self.directions = batch_size, {}
        for source, target in ('ab', 'ba'):
            name = f'{source}2{target}'
            self.directions[name] = Direction(
                extractor,
                [metric for metric in computed if name in metric.directions],
                count=len(images[source]),
                real=images[target],
                inputs=images[source],
                truth=truth and truth[target],
                classes=classes,
                palette=palette,
                other=None if dataset.test_split_missing else _like_tests(dataset, target),
                legacy=legacy,
                pixels=dataset.pixels[target],
                input_pixels=dataset.pixels[source],
            )

    def score(self, translate: Translate, keep: Keep | None = None) -> dict[str, Scores]:
        """Scores of both directions, {'a2b', 'b2a'}; see `Direction.score`.

        Args:
          keep: is shown all translations: (direction, number of the first, (n, h, w, c)).
        """
        return {
            name: direction.score(self._translations(name, translate, keep))
            for name, direction in self.directions.items()
        }

    def _translations(self, name: str, translate: Translate, keep: Keep | None) -> Iterator[tuple]:
        direction = self.directions[name]
        inputs, back = direction.inputs, name[::-1]
        cycle = any(scores.CYCLE in metric.needs for metric in direction.metrics)
        for first in range(0, len(inputs), self._batch_size):
            numbers = range(first, min(first + self._batch_size, len(inputs)))
            outputs = translate(name, np.stack([inputs[i] for i in numbers]))
            if keep:
                keep(name, first, outputs)
            cycled = translate(back, outputs) if cycle else [None] * len(outputs)
            yield from zip(outputs, cycled, strict=True)


def _no_photographs(domains: Iterable[Pixels]) -> str:
    others = [pixels for pixels in domains if not pixels.photographs]
    return f'compares photographs, not {others[0].describe()}' if others else ''


def _cropped(images: Images, size: tuple[int, int]) -> View:
    """The centre of images, of the size that the networks see."""
    return View(lambda i: centre_crop(images[i], size), range(len(images)))


def _like_tests(dataset: Dataset, domain: str) -> Images:
    """Training images, made as test images are."""
    resized_size = dataset.tests[domain].resized_size
    train = dataclasses.replace(dataset.train[domain], resized_size=resized_size, kept=None)
    return _cropped(train, dataset.image_size)


def _pair(
    dataset: Dataset, images: Mapping[str, Images], known: bool | None
) -> dict[str, Images] | None:
    """By target domain the right translations, in the order of the inputs; None if not known."""
    if dataset.paired:
        return dict(images)
    names = dataset.test_names
    if known is None:
        stems = {domain: [PurePath(name).stem for name in names[domain]] for domain in 'ab'}
        marked = all(stem.endswith(f'_{d.upper()}') for d in 'ab' for stem in stems[d])
        known = marked and {s[:-2] for s in stems['a']} == {s[:-2] for s in stems['b']}
    if not known:
        return None
    return {
        target: View(
            images[target].__getitem__, paired.match(names[source], names[target], 'test images')
        )
        for source, target in ('ab', 'ba')
    }
