"""Both directions of a data set, scored on its test images."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePath

import numpy as np

from cyclegan_jax.data import Dataset
from cyclegan_jax.evaluation import pairing
from cyclegan_jax.evaluation.direction import NEED_WEIGHTS, Direction
from cyclegan_jax.evaluation.features import Features
from cyclegan_jax.evaluation.measures import Images, Scores, View

# (direction, uint8 (n, h, w, c)) -> the translations, uint8
Translate = Callable[[str, np.ndarray], np.ndarray]
Keep = Callable[[str, int, np.ndarray], None]

_NO_WEIGHTS = 'there are no Inception weights (CYCLEGAN_JAX_INCEPTION is not set)'
_NO_TRUTH = 'the right translations of the test images are not known'
_NO_CLASSES = 'the classes in the test images are not known'


class TestSet:
    """The test images of a data set and what their translations are scored against.

    Attributes:
      directions: {'a2b', 'b2a'}.
      unavailable: {metric: why} of the metrics that were asked for but cannot be computed.

    Args:
      metrics: names of `direction.METRICS`.
      weights: of the FID network (`inception_weights.load`).
      paired: whether test images of one name, but for a last `_A` or `_B`, are translations of each
        other. Found out where it is None: rendered sets, and names that all end so (facades, maps).
      palette: uint8 (classes, 3), for sets whose classes are known: the colours in domain a.
      legacy: label scores by the paper's formula.
      batch_size: images in a call of a network.

    Raises:
      ValueError: names that do not match although `paired` says so, or too few images.
    """

    __test__ = False  # not a test, in spite of its name

    def __init__(
        self,
        dataset: Dataset,
        metrics: Iterable[str],
        *,
        weights: Mapping | None = None,
        paired: bool | None = None,
        palette: np.ndarray | None = None,
        legacy: bool = False,
        batch_size: int = 16,
    ):
        metrics, classes = tuple(metrics), dataset.test_labels()
        images = {d: _Cropped(tests, dataset.image_size) for d, tests in dataset.tests.items()}
        truth = _pair(dataset, images, paired)
        needs = [(metric, weights, _NO_WEIGHTS) for metric in NEED_WEIGHTS]
        needs += [('paired', truth, _NO_TRUTH), ('labels', classes, _NO_CLASSES)]
        self.unavailable = {
            metric: why for metric, needed, why in needs if metric in metrics and needed is None
        }
        metrics = [metric for metric in metrics if metric not in self.unavailable]
        features = Features(weights, batch_size)
        self._inputs, self._batch_size, self.directions = {}, batch_size, {}
        for source, target in ('ab', 'ba'):
            other = None if dataset.test_split_missing else _like_tests(dataset, target)
            self._inputs[f'{source}2{target}'] = images[source]
            self.directions[f'{source}2{target}'] = Direction(
                features,
                [metric for metric in metrics if metric != 'labels' or target == 'a'],
                count=len(images[source]),
                real=images[target],
                inputs=images[source],
                truth=truth and truth[target],
                classes=classes,
                palette=palette,
                other=other,
                legacy=legacy,
            )

    def score(self, translate: Translate, keep: Keep | None = None) -> dict[str, Scores]:
        """Scores of both directions, {'a2b', 'b2a'}; see `Direction.score`.

        Args:
          keep: is shown all translations: (direction, number of the first, uint8 (n, h, w, c)).
        """
        return {
            name: direction.score(self._translations(name, translate, keep))
            for name, direction in self.directions.items()
        }

    def _translations(self, name: str, translate: Translate, keep: Keep | None) -> Iterator[tuple]:
        inputs, back = self._inputs[name], name[::-1]
        cycle = 'cycle' in self.directions[name].metrics
        for first in range(0, len(inputs), self._batch_size):
            numbers = range(first, min(first + self._batch_size, len(inputs)))
            outputs = translate(name, np.stack([inputs[i] for i in numbers]))
            if keep:
                keep(name, first, outputs)
            yield outputs, translate(back, outputs) if cycle else None


class _Cropped:
    """The centre of images, of the size that the networks see."""

    def __init__(self, images: Images, size: tuple[int, int]):
        self._images, self._size = images, size

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, number: int) -> np.ndarray:
        image = self._images[number]
        top, left = ((n - m) // 2 for n, m in zip(image.shape, self._size, strict=False))
        return image[top : top + self._size[0], left : left + self._size[1]]


def _like_tests(dataset: Dataset, domain: str) -> Images:
    """Training images, made as test images are."""
    resized_size = dataset.tests[domain].resized_size
    train = dataclasses.replace(dataset.train[domain], resized_size=resized_size, kept=None)
    return _Cropped(train, dataset.image_size)


def _pair(
    dataset: Dataset, images: Mapping[str, Images], paired: bool | None
) -> dict[str, Images] | None:
    """By target domain the right translations, in the order of the inputs; None if not known."""
    if dataset.paired:
        return dict(images)
    names = dataset.test_names
    if paired is None:
        stems = {domain: [PurePath(name).stem for name in names[domain]] for domain in 'ab'}
        marked = all(stem.endswith(f'_{d.upper()}') for d in 'ab' for stem in stems[d])
        paired = marked and {s[:-2] for s in stems['a']} == {s[:-2] for s in stems['b']}
    if not paired:
        return None
    return {
        target: View(images[target], pairing.match(names[source], names[target], 'test images'))
        for source, target in ('ab', 'ba')
    }
