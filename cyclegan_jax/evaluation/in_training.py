"""Scores while a run goes on, and which of its checkpoints is the best so far."""

from collections.abc import Mapping, Sequence

from cyclegan_jax.data import Dataset
from cyclegan_jax.data.synthetic import PALETTES
from cyclegan_jax.errors import UserError
from cyclegan_jax.evaluation import feature_network, inception_weights, report, scores
from cyclegan_jax.evaluation.metric import Metric
from cyclegan_jax.evaluation.test_set import TestSet, Translate


class Scorer:
    """Scores the generators of a run on its test images.

    Attributes:
      unavailable: {metric: why} of the metrics that this data set or machine does not allow.

    Args:
      metrics: comma-separated names of `scores.METRICS`. The FID network's weights are the file
        that the environment variable CYCLEGAN_JAX_INCEPTION names.
      keep_best: a score and a direction, 'psnr_a2b'; '' for none.
      best: what `score` returned of the best checkpoint so far, if the run has one.
      name: that of the data set, which knows the palette of the rendered ones.
      features: a network of one's own, see `feature_network.load`; '' for none.

    Raises:
      UserError: a metric or a score that does not exist, or cannot be computed.
    """

    def __init__(
        self,
        dataset: Dataset,
        metrics: str,
        keep_best: str,
        best: Mapping | None,
        name: str,
        features: str = '',
    ):
        others = feature_network.load(features)
        chosen = scores.parse(metrics, 'evaluate_metrics', others)
        weights = inception_weights.find(None, scores.needs_weights(chosen))
        self._tests = TestSet(dataset, chosen, weights=weights, palette=PALETTES.get(name))
        self.unavailable = self._tests.unavailable
        scores.check_some(chosen, self.unavailable)
        if keep_best:
            _check(keep_best, chosen, others, self.unavailable)
        self._keep_best = keep_best
        self._best = best if best and best.get('score') == keep_best else None

    def score(self, translate: Translate) -> tuple[dict[str, float], list[str], dict | None]:
        """Scores both directions.

        Returns:
          Scalars for the log, 'evaluation/psnr/a2b' and with them their baselines; a line a
          direction for the console; and, if this is the best so far, {'score', 'value'}.
        """
        scalars, lines, found = {}, [], {}
        for name, scored in self._tests.score(translate).items():
            direction = self._tests.directions[name]
            texts = [f'{name}:']
            for score, value in scored.items():
                if (declared := scores.named(score)) is None:
                    continue  # a detail
                known = dict(report.known(direction.baselines, scored, declared))
                found[f'{score}_{name}'] = value
                scalars[f'evaluation/{score}/{name}'] = value
                scalars |= {f'evaluation/{score}/{name}_{b}': v for b, v in known.items()}
                beside = ', '.join(f'{b} {v:.3g}' for b, v in known.items())
                texts.append(f'{score} {value:.3g}' + (f' ({beside})' if beside else ''))
            lines.append('  '.join(texts))
            lines += [f'{name}: note: {warning}' for warning in direction.warnings(scored)]
        return scalars, lines, self._improved(found)

    def _improved(self, found: Mapping[str, float]) -> dict | None:
        if not self._keep_best:
            return None
        value = found[self._keep_best]
        sign = -1 if scores.named(self._keep_best.rpartition('_')[0]).better == 'lower' else 1
        if self._best is not None and sign * value <= sign * self._best['value']:
            return None
        self._best = {'score': self._keep_best, 'value': value}
        return self._best


def _check(
    keep_best: str,
    chosen: Sequence[Metric],
    others: Sequence[Metric],
    unavailable: Mapping[str, str],
) -> None:
    """Raises UserError unless evaluations will have this score, in this direction."""
    score, _, direction = keep_best.rpartition('_')
    known = [*scores.METRICS.values(), *others]
    comparable = {each.name: m for m in known for each in m.scores if each.better}
    metric = comparable.get(score)
    if metric is None or direction not in ('a2b', 'b2a'):
        raise UserError(
            f'keep_best is {keep_best!r}; it must be a score and a direction, such as psnr_a2b; '
            f'scores: {", ".join(comparable)}.'
        )
    if direction not in metric.directions:
        only = metric.directions[0]
        why = f'{score} is computed of {only} only; set --config.keep_best={score}_{only}.'
    elif metric.name in unavailable:
        why = f'{metric.name} cannot be computed: {unavailable[metric.name]}.'
    elif metric not in chosen:
        computed = ', '.join(sorted(m.name for m in chosen))
        why = (
            f'{metric.name} is not computed, only {computed}; choose another, or '
            'put it into --config.evaluate_metrics.'
        )
    else:
        return
    raise UserError(f'keep_best is {keep_best!r}, but {why}')
