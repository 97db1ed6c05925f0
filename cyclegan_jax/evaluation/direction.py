"""One direction of translation, scored in the same way at any step of a run.

Three families of scores, because none sees everything: distribution (do the outputs look like the
target domain?), correspondence (is each the right one?) and reconstruction (can it be undone?).
"""

import functools
from collections.abc import Iterable

import numpy as np

from cyclegan_jax.evaluation import measures, monitors
from cyclegan_jax.evaluation.features import Features
from cyclegan_jax.evaluation.measures import DISTRIBUTION, Images, Scores, Translations
from cyclegan_jax.evaluation.real_images import RealImages

METRICS = (*DISTRIBUTION, 'paired', 'cycle', 'labels', 'monitors')
NEED_WEIGHTS = tuple(name for name in DISTRIBUTION if name.startswith(('fid_', 'kid_')))
NEED_ONE_SIZE = 'randconv_kid_v1', 'swd', 'paired', 'monitors'

_UNBIASED = 2048  # images; with fewer, FID says as much about their number as about them


class Direction:
    """Everything about one direction that does not depend on the translator, computed once.

    Args:
      features: the networks of the distribution scores.
      metrics: names of METRICS.
      count: how many translations there are to score.
      real: real images of the target domain, or their features by kind (`real_images.load`), which
        are enough for distribution scores.
      inputs: the images that are translated; needed by 'cycle'.
      truth: the right translation of each input; needed by 'paired'.
      classes, palette: what each translation should show, uint8 (h, w), and the colours that show
        it, uint8 (classes, 3); needed by 'labels'.
      other: more real images of the target domain, for the floor. Without them it compares the
        halves of `real`.
      legacy: label scores by the paper's formula, see `labels.scores`.

    Raises:
      ValueError: fewer than two images on a side of a distribution score.
    """

    def __init__(
        self,
        features: Features,
        metrics: Iterable[str],
        *,
        count: int,
        real,
        inputs: Images | None = None,
        truth: Images | None = None,
        classes: Images | None = None,
        palette: np.ndarray | None = None,
        other: Images | None = None,
        legacy: bool = False,
    ):
        self.metrics, self.count = tuple(metrics), count
        self._distribution = [metric for metric in self.metrics if metric in DISTRIBUTION]
        self.real = RealImages(features, self._distribution, real, other)
        self._inputs, self._truth = inputs, truth
        self._examples = other or truth
        self._labels = functools.partial(measures.Labels, classes, palette, legacy)
        if self._distribution and min(count, len(self.real)) < 2:
            raise ValueError(
                f'{count} images against {len(self.real)} real ones; a distance between sets wants '
                'at least 2 in each.'
            )

    def score(self, translations: Translations) -> Scores:
        """Scores the translations of all inputs, in the order of the inputs.

        Returns:
          By name, of the metrics asked for: those of `measures.distribution`; psnr, psnr_capped,
          ssim, l1, and `_shuffled` ones; cycle_psnr, cycle_ssim, cycle_l1; the keys of
          `labels.scores`; correlation, diversity.
        """
        chosen = []
        if self._distribution:
            chosen.append(self.real.distance(self.count))
        if 'paired' in self.metrics:
            chosen += [measures.likeness(self._truth), measures.shuffled_likeness(self._truth)]
        if 'cycle' in self.metrics:
            chosen.append(measures.reconstruction(self._inputs))
        if 'labels' in self.metrics:
            chosen.append(self._labels())
        if 'monitors' in self.metrics:
            chosen.append(measures.Diversity(self.real.spread))
            if self._inputs is not None:
                chosen.append(measures.correlation(self._inputs))
        return measures.run(chosen, translations, self.count, 'translated')

    @functools.cached_property
    def baselines(self) -> dict[str, Scores]:
        """Scores to read a translator's against, as far as they can be known.

        floor: distances between two sets of real images.
        ceiling, untranslated: the inputs as they are, in place of their translations.
        mean_image: the mean of real images, not those of the test, in place of every translation.
        label_ceiling: labels read from the right translations.
        """
        inputs, truth = self._inputs, self._truth
        found = {'untranslated': {}}
        if self._distribution:
            found['floor'] = self.real.floor(self.count)
            if inputs is not None:
                found['ceiling'] = self._of(inputs, self.real.distance(self.count))
        if 'paired' in self.metrics:
            mean = self._of(self._examples, measures.PixelMoments())['mean']
            found['mean_image'] = self._of([mean] * self.count, measures.likeness(truth))
            if inputs is not None and inputs[0].shape == truth[0].shape:
                found['untranslated'] |= self._of(inputs, measures.likeness(truth))
        if 'labels' in self.metrics:
            if truth is not None:
                found['label_ceiling'] = self._of(truth, self._labels())
            if inputs is not None and inputs[0].shape[-1] == 3:
                found['untranslated'] |= self._of(inputs, self._labels())
        return {name: scores for name, scores in found.items() if scores}

    def warnings(self, scores: Scores) -> list[str]:
        """What a reader of the scores should know; one line each."""
        found = monitors.warnings(scores)
        floor = self.baselines.get('floor', {'images': self.count})
        if floor['images'] != self.count:
            found.append(
                f'the floor is of {floor["images"]} images, for lack of {self.count}; it is lower '
                'with more'
            )
        fid = any(name.startswith('fid_') for name in scores)
        if fid and min(self.count, len(self.real)) < _UNBIASED:
            found.append(
                f'FID of {self.count} images against {len(self.real)} is biased upwards: compare '
                'it only with scores of the same counts; KID has no such bias'
            )
        return found

    def _of(self, images: Images, measure) -> dict:
        """The result of a measure, of images in the place of translations."""
        return measures.run([measure], measures.as_they_are(images), len(images), 'baseline')
