"""Scores while a run goes on, and which of its checkpoints is the best so far."""

import os
from collections.abc import Iterator, Mapping

from cyclegan_jax.data import Dataset
from cyclegan_jax.data.synthetic import PALETTES
from cyclegan_jax.evaluation import inception_weights, report
from cyclegan_jax.evaluation.direction import Direction
from cyclegan_jax.evaluation.measures import DISTRIBUTION, is_detail
from cyclegan_jax.evaluation.script import parse_metrics
from cyclegan_jax.evaluation.test_set import TestSet, Translate

_BASELINES = ('untranslated', 'floor', 'ceiling')


class Scorer:
    """Scores the generators of a run on its test images.

    Attributes:
      unavailable: {metric: why} of the metrics that this data set or machine does not allow.

    Args:
      metrics: comma-separated names of `direction.METRICS`. The FID network's weights are the file
        that the environment variable CYCLEGAN_JAX_INCEPTION names.
      keep_best: a score and a direction, 'psnr_a2b'; '' for none.
      best: what `score` returned of the best checkpoint so far, if the run has one.
      name: that of the data set, which knows the palette of the rendered ones.

    Raises:
      ValueError: a metric or a score that does not exist, or cannot be computed.
    """

    def __init__(
        self, dataset: Dataset, metrics: str, keep_best: str, best: Mapping | None, name: str
    ):
        chosen = parse_metrics(metrics, 'evaluate_metrics')
        path = os.environ.get(inception_weights.VARIABLE)
        weights = inception_weights.load(path)[0] if path else None
        self._tests = TestSet(dataset, chosen, weights=weights, palette=PALETTES.get(name))
        self.unavailable = self._tests.unavailable
        if not set(chosen) - set(self.unavailable):
            reasons = '; '.join(f'{metric}: {why}' for metric, why in self.unavailable.items())
            raise ValueError(f'evaluate_metrics has nothing that can be computed ({reasons}).')
        if keep_best:
            self._check(keep_best, set(chosen), self.unavailable)
        self._keep_best = keep_best
        self._best = best if best and best['score'] == keep_best else None

    def score(self, translate: Translate) -> tuple[dict[str, float], list[str], dict | None]:
        """Scores both directions.

        Returns:
          Scalars for the log, 'evaluation/psnr/a2b' and with them their baselines; a line a
          direction for the console; and, if this is the best so far, {'score', 'value'}.
        """
        scalars, lines, found = {}, [], {}
        for name, scores in self._tests.score(translate).items():
            direction = self._tests.directions[name]
            shown = {k: v for k, v in scores.items() if not is_detail(k)}
            for score, value in shown.items():
                found[f'{score}_{name}'] = value
                scalars[f'evaluation/{score}/{name}'] = value
                for baseline, known in _known(direction, score):
                    scalars[f'evaluation/{score}/{name}_{baseline}'] = known
            lines.append(
                '  '.join([f'{name}:', *(_text(direction, *item) for item in shown.items())])
            )
            lines += [f'{name}: note: {warning}' for warning in direction.warnings(scores)]
        return scalars, lines, self._improved(found)

    def _improved(self, found: Mapping[str, float]) -> dict | None:
        if not self._keep_best:
            return None
        value = found[self._keep_best]
        sign = -1 if self._keep_best.rpartition('_')[0] in report.LOWER else 1
        if self._best is not None and sign * value <= sign * self._best['value']:
            return None
        self._best = {'score': self._keep_best, 'value': value}
        return self._best

    @staticmethod
    def _check(keep_best: str, metrics: set[str], unavailable: Mapping[str, str]) -> None:
        score, _, direction = keep_best.rpartition('_')
        if direction not in ('a2b', 'b2a') or score not in report.LOWER + report.HIGHER:
            raise ValueError(
                f'keep_best is {keep_best!r}; it must be a score and a direction, such as '
                f'psnr_a2b; scores: {", ".join(report.LOWER + report.HIGHER)}.'
            )
        needed = score if score in DISTRIBUTION else 'labels'
        needed = 'paired' if score in ('psnr', 'ssim', 'l1') else needed
        if needed in unavailable:
            raise ValueError(
                f'keep_best is {keep_best!r}, but {needed} cannot be computed: '
                f'{unavailable[needed]}.'
            )
        if needed not in metrics:
            raise ValueError(
                f'keep_best is {keep_best!r}, but {needed} is not computed, only '
                f'{", ".join(sorted(metrics))}; choose another, or put it into evaluate_metrics.'
            )


def _known(direction: Direction, score: str) -> Iterator[tuple[str, float]]:
    for baseline in _BASELINES:
        if score in direction.baselines.get(baseline, {}):
            yield baseline, direction.baselines[baseline][score]


def _text(direction: Direction, score: str, value: float) -> str:
    known = ', '.join(f'{name} {known:.3g}' for name, known in _known(direction, score))
    return f'{score} {value:.3g}' + (f' ({known})' if known else '')
