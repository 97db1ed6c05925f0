"""Measures: what is added up over the translations of a test set, and the scores it comes to.

Each has `add(first, outputs, cycled)`: the number of the first image, translations uint8
(n, h, w, c), and these translated back, or None; and `result()`, a dict. None keeps images;
features of them are the most that is kept.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from cyclegan_jax.evaluation import distances, labels, monitors, paired, sliced_wasserstein
from cyclegan_jax.evaluation.features import Features

# The kind of features that each distribution score compares.
DISTRIBUTION = {
    'fid_pytorch': 'pytorch',
    'kid_pytorch': 'pytorch',
    'fid_clean': 'clean',
    'kid_clean': 'clean',
    'fid_tensorflow': 'tensorflow',
    'kid_tensorflow': 'tensorflow',
    'randconv_kid_v1': 'randconv',
    'swd': 'patches',
}

# What goes with a score, and is written but not shown in tables and curves.
_DETAIL = re.compile(r'_(std|subset_size|level_\d+|capped|shuffled)$')
_SHUFFLE = 7  # "shuffled" compares a translation with the truth of the image so many further on

Images = Sequence[np.ndarray]  # uint8 (h, w, c); only len() and [i] are used
Translations = Iterable[tuple[np.ndarray, np.ndarray | None]]  # (outputs, cycled) as in `add`
Scores = dict[str, float]


def run(measures: Iterable, translations: Translations, total: int, name: str) -> dict:
    """Adds all translations to each measure; the results of all in one dict.

    Args:
      total: how many images to expect.
      name: what the progress bar, shown on a terminal, calls them.
    """
    with tqdm(total=total, desc=name, unit='image', leave=False, disable=None) as bar:
        done = 0
        for outputs, cycled in translations:
            for measure in measures:
                measure.add(done, outputs, cycled)
            done += len(outputs)
            bar.update(len(outputs))
    return {name: value for measure in measures for name, value in measure.result().items()}


def is_detail(name: str) -> bool:
    """Whether a name is not that of a score but of what goes with one."""
    return bool(_DETAIL.search(name))


def as_they_are(images: Images) -> Iterator[tuple[np.ndarray, None]]:
    """Images in the place of translations."""
    return ((images[i][None], None) for i in range(len(images)))


class View:
    """Some of the images, in the order of `indices`; read when they are asked for."""

    def __init__(self, images: Images, indices: Sequence[int]):
        self._images, self._indices = images, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, number: int) -> np.ndarray:
        return self._images[self._indices[number]]


class Gather:
    """Features by kind, (images, ...).

    Args:
      metrics: names of DISTRIBUTION; gathered is what they compare.
      count: how many images there will be.
    """

    def __init__(self, features: Features, metrics: Iterable[str], count: int):
        kinds = dict.fromkeys(DISTRIBUTION[metric] for metric in metrics)
        self._collectors = {kind: features.collector(kind, count) for kind in kinds}

    def add(self, first: int, outputs: np.ndarray, cycled: np.ndarray | None) -> None:
        for collector in self._collectors.values():
            collector.add(outputs)

    def result(self) -> dict[str, np.ndarray]:
        return {kind: collector.result() for kind, collector in self._collectors.items()}


class Distance(Gather):
    """Distribution scores: distances of the features from `real`, those of real images by kind."""

    def __init__(
        self,
        features: Features,
        metrics: Iterable[str],
        count: int,
        real: Mapping[str, np.ndarray],
    ):
        super().__init__(features, metrics, count)
        self._metrics, self._real = metrics, real

    def result(self) -> Scores:
        return distribution(self._metrics, super().result(), self._real)


def distribution(
    metrics: Iterable[str], x: Mapping[str, np.ndarray], y: Mapping[str, np.ndarray]
) -> Scores:
    """Distribution scores of two sets of images, given their features by kind.

    Returns:
      For each metric its score; for a KID also `_std` and `_subset_size` (`distances.kid_spread`);
      for swd, which is the mean over the levels, also `_level_0`, the finest, and so on.
    """
    scores = {}
    for metric in metrics:
        pair = x[DISTRIBUTION[metric]], y[DISTRIBUTION[metric]]
        if metric == 'swd':
            levels = sliced_wasserstein.distance(*pair)
            scores[metric] = float(levels.mean())
            scores |= {f'{metric}_level_{i}': float(value) for i, value in enumerate(levels)}
        elif metric.startswith('fid_'):
            scores[metric] = distances.frechet(*pair)
        else:
            scores[metric] = distances.kid(*pair)
            if min(map(len, pair)) >= 4:
                spread, size = distances.kid_spread(*pair)
                scores |= {f'{metric}_std': spread, f'{metric}_subset_size': size}
    return scores


class Mean:
    """The mean over images of each score that `function(number, output, cycled)` returns."""

    def __init__(self, function: Callable[[int, np.ndarray, np.ndarray | None], Scores]):
        self._function, self._values = function, defaultdict(list)

    def add(self, first: int, outputs: np.ndarray, cycled: np.ndarray | None) -> None:
        for i, output in enumerate(outputs):
            back = None if cycled is None else cycled[i]
            for name, value in self._function(first + i, output, back).items():
                self._values[name].append(value)

    def result(self) -> Scores:
        return {name: float(np.mean(values)) for name, values in self._values.items()}


def likeness(truth: Images) -> Mean:
    """Likeness to the right translations: psnr (dB), ssim, l1 (of images in [-1, 1]).

    Also psnr_capped, the share of images that equal their truth, of which psnr is but 100 dB.
    """

    def compare(number, output, _):
        found = _compare(output, truth[number])
        return found | {'psnr_capped': found['psnr'] == paired.MAX_PSNR}

    return Mean(compare)


def shuffled_likeness(truth: Images) -> Mean:
    """Likeness to wrong translations, `_shuffled`: where it is as good, content is ignored."""

    def compare(number, output, _):
        wrong = truth[(number + _SHUFFLE) % len(truth)]
        return {f'{name}_shuffled': value for name, value in _compare(output, wrong).items()}

    return Mean(compare)


def reconstruction(inputs: Images) -> Mean:
    """Likeness of what is translated there and back to the inputs: cycle_psnr, _ssim, _l1.

    Only a diagnosis: a generator that changes nothing reconstructs perfectly.
    """

    def compare(number, _, cycled):
        return {f'cycle_{k}': value for k, value in _compare(cycled, inputs[number]).items()}

    return Mean(compare)


def correlation(inputs: Images) -> Mean:
    """Whether bright stays bright: correlation, in [-1, 1]."""
    return Mean(
        lambda number, output, _: {'correlation': monitors.correlation(inputs[number], output)}
    )


def _compare(x: np.ndarray, y: np.ndarray) -> Scores:
    return {
        'psnr': paired.psnr(x[None], y[None])[0],
        'ssim': paired.ssim(x[None], y[None])[0],
        'l1': np.abs(x.astype(np.int16) - y).mean() / 127.5,
    }


class PixelMoments:
    """Mean image, uint8 (h, w, c), and spread of images of one size.

    The spread is the standard deviation over the images, averaged over pixels and channels.
    """

    def __init__(self):
        self._count, self._sum, self._squares = 0, 0.0, 0.0

    def add(self, first: int, outputs: np.ndarray, cycled: np.ndarray | None) -> None:
        outputs = outputs.astype(np.float64)
        self._count += len(outputs)
        self._sum = self._sum + outputs.sum(axis=0)
        self._squares = self._squares + (outputs**2).sum(axis=0)

    def result(self) -> dict:
        mean = self._sum / self._count
        variance = np.maximum(self._squares / self._count - mean**2, 0)
        return {'mean': np.rint(mean).astype(np.uint8), 'spread': float(np.sqrt(variance).mean())}


class Diversity(PixelMoments):
    """How much outputs differ from each other, as a share of how much real images do: diversity."""

    def __init__(self, real_spread: float):
        super().__init__()
        self._real_spread = real_spread

    def result(self) -> Scores:
        return {'diversity': super().result()['spread'] / self._real_spread}


class Labels:
    """Whether the nearest colours of a palette tell the right classes: `labels.scores`.

    Args:
      classes: uint8 (h, w) for each image.
      palette: uint8 (number of classes, 3).
      legacy: the paper's formula, see there.
    """

    def __init__(self, classes: Images, palette: np.ndarray, legacy: bool):
        self._classes, self._palette, self._legacy = classes, palette, legacy
        self._confusion = 0

    def add(self, first: int, outputs: np.ndarray, cycled: np.ndarray | None) -> None:
        for number, output in enumerate(outputs, first):
            predicted = labels.decode(output, self._palette)
            self._confusion = self._confusion + labels.confusion(
                self._classes[number], predicted, len(self._palette)
            )

    def result(self) -> Scores:
        return labels.scores(self._confusion, self._legacy)
