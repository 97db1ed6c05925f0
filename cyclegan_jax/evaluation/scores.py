"""The table of scores: all that is known of each; flags, checks, tables and logs read it here.

A metric is what can be asked for, as in --metrics=paired. Its scores are the numbers that are shown
of it: psnr, ssim, l1. What it computes beside them is detail, which is written but not shown.

A new metric is an entry in METRICS and the functions that the entry names.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cyclegan_jax.errors import UserError, check_choice
from cyclegan_jax.evaluation import distances, inception, measures, randconv
from cyclegan_jax.evaluation.measures import Images

# What a metric may need, beside translations; who asks for scores says what is lacking.
WEIGHTS = 'weights of the FID network'
ONE_SIZE = 'pictures of one size'
PHOTOGRAPHS = 'photographs: 8 bits of grey, RGB or RGBA'
REAL = 'real pictures, not only their features'
TRUTH = 'the right translation of each input'
CLASSES = 'the classes that each translation should show'
CYCLE = 'a generator for the way back'


@dataclass(frozen=True)
class Score:
    """A number that tables and logs show.

    better: 'lower' or 'higher'; '' for a diagnosis, by which no checkpoint is called the best.
    factor: by which tables multiply it.
    spread, shuffled: names of details: its spread; the same score of wrong pairs.
    alarm: what a value gives reason to fear; '' for nothing.
    """

    name: str
    better: str = ''
    factor: int = 1
    spread: str = ''
    shuffled: str = ''
    alarm: Callable[[float], str] = lambda value: ''


@dataclass(frozen=True)
class Features:
    """What sets of images are compared by.

    name: what they are called in a file of --save-real.
    prepare: (image, its number, images in the set) -> array of one shape. Of photographs the image
      is uint8 (h, w, 3); of others it is float32 (h, w, c) in [-1, 1].
    network: (params, batch of these (n, ...)) -> features (n, ...); None: they are the features.
    params: from the FID network's weights, which may be None, to the network's parameters.
    resize: what the protocol says of it.
    kept: whether --save-real keeps them.
    any_pixels: whether they are of other than photographs, too.
    """

    name: str
    prepare: Callable[[np.ndarray, int, int], np.ndarray]
    network: Callable | None = None
    params: Callable[[Any], Any] = lambda weights: weights
    resize: str = ''
    kept: bool = True
    any_pixels: bool = False


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How the scores of one name are computed.

    A distance between sets of images gives `features` and `distance`: two sets of features ->
    {suffix of the name: value}. Its floor and ceiling are known to `direction.Direction`. Any other
    gives `measures`, of which each makes a measure of a direction, or None where there is nothing
    to measure; and `baselines`, that make images (or None) to be put in the place of translations,
    to be scored by the first of the measures.

    needs: of the constants above.
    directions: in which it exists.
    default: whether it is computed if none is asked for by name.
    biased: whether it grows as the sets get smaller.
    """

    name: str
    scores: tuple[Score, ...]
    needs: tuple[str, ...] = ()
    directions: tuple[str, ...] = ('a2b', 'b2a')
    default: bool = True
    biased: bool = False
    features: Features | None = None
    distance: Callable[[np.ndarray, np.ndarray], dict[str, float]] | None = None
    measures: tuple[Callable, ...] = ()
    baselines: Mapping[str, Callable] = field(default_factory=dict)


# Metrics that share features share their cost. No two may have one name.
RANDCONV = Features(
    'randconv',
    prepare=lambda image, *_: image,
    network=randconv.features,
    params=lambda _: randconv.parameters(),
)
# The patches of an image are larger than the image.
PATCHES = Features('patches', prepare=distances.patches, kept=False, any_pixels=True)


def _of_fid_network(protocol: str) -> list[Metric]:
    features = Features(
        protocol,
        prepare=lambda image, *_: inception.prepare(image, protocol),
        network=inception.features,
        resize=inception.PROTOCOLS[protocol],
    )
    shared = {'features': features, 'needs': (WEIGHTS,), 'default': protocol == 'pytorch'}
    fid, kid = f'fid_{protocol}', f'kid_{protocol}'
    return [
        Metric(
            name=fid,
            scores=(Score(fid, 'lower'),),
            distance=lambda x, y: {'': distances.frechet(x, y)},
            biased=True,
            **shared,
        ),
        Metric(name=kid, scores=(_kid(kid),), distance=distances.kid_and_spread, **shared),
    ]


def _kid(name: str) -> Score:
    return Score(name, 'lower', factor=1000, spread=f'{name}_std')  # printed so, by convention


def _likeness(name: str, better: str) -> Score:
    return Score(name, better, shuffled=f'{name}_shuffled')


def _inverted(correlation: float) -> str:
    if correlation >= 0:
        return ''
    return (
        f'outputs correlate negatively with their inputs ({correlation:.2f}): the colours may be '
        'inverted, which training anew usually cures'
    )


def _collapsed(diversity: float) -> str:
    if diversity >= 0.5:
        return ''
    return (
        f'outputs differ among themselves only {diversity:.2f} times as much as real images '
        '(below 0.5): they may have collapsed to a few'
    )


def _untranslated(direction) -> Images | None:
    return direction.inputs if direction.inputs_look_like(direction.truth) else None


def _mean_image(direction) -> list[np.ndarray]:
    examples = direction.other or direction.truth
    return [measures.result_of(measures.Moments(), examples)['mean']] * direction.count


METRICS = {
    metric.name: metric
    for metric in (
        *_of_fid_network('pytorch'),
        *_of_fid_network('clean'),
        *_of_fid_network('tensorflow'),
        Metric(
            name='randconv_kid_v1',
            scores=(_kid('randconv_kid_v1'),),
            needs=(ONE_SIZE,),
            features=RANDCONV,
            distance=distances.kid_and_spread,
        ),
        Metric(
            name='swd',
            scores=(Score('swd', 'lower'),),
            needs=(ONE_SIZE,),
            features=PATCHES,
            distance=distances.sliced_wasserstein_by_level,
        ),
        Metric(
            name='paired',
            scores=(
                _likeness('psnr', 'higher'),
                _likeness('ssim', 'higher'),
                _likeness('l1', 'lower'),
                _likeness('l1_in_units', ''),  # of other than photographs
            ),
            needs=(ONE_SIZE, TRUTH),
            measures=(
                lambda d: measures.likeness(d.truth, d.pixels),
                lambda d: measures.shuffled_likeness(d.truth, d.pixels),
            ),
            baselines={'untranslated': _untranslated, 'mean_image': _mean_image},
        ),
        Metric(
            name='cycle',
            scores=tuple(map(Score, ('cycle_psnr', 'cycle_ssim', 'cycle_l1'))),
            needs=(CYCLE,),
            measures=(lambda d: measures.reconstruction(d.inputs, d.input_pixels),),
        ),
        Metric(
            name='labels',
            scores=(
                Score('pixel_accuracy', 'higher'),
                Score('class_accuracy', 'higher'),
                Score('class_iou', 'higher'),
                Score('weighted_iou', 'higher'),
                Score('classes_present'),
            ),
            needs=(CLASSES,),
            directions=('b2a',),  # the classes' colours are those of domain a
            measures=(lambda d: measures.Labels(d.classes, d.palette, d.legacy),),
            baselines={
                'label_ceiling': lambda d: d.truth,
                'untranslated': lambda d: d.inputs if d.inputs_look_like(d.palette) else None,
            },
        ),
        Metric(
            name='monitors',
            scores=(Score('correlation', alarm=_inverted), Score('diversity', alarm=_collapsed)),
            needs=(ONE_SIZE, REAL),
            measures=(
                lambda d: measures.Diversity(d.real_spread) if d.real_spread else None,
                lambda d: measures.correlation(d.inputs) if d.inputs is not None else None,
            ),
        ),
    )
}
SCORES = {score.name: score for metric in METRICS.values() for score in metric.scores}

# What scores are read against, from the lowest hurdle for a translator to the highest.
BASELINES = ('floor', 'ceiling', 'untranslated', 'mean_image', 'shuffled', 'label_ceiling')


def parse(names: str | Iterable[str] | None, flag: str = '--metrics') -> list[str]:
    """Names of METRICS, each once, from a list that may be one text with commas; None: default.

    Raises:
      UserError: one that does not exist; `flag` is what it calls the list.
    """
    if names is None:
        return [metric.name for metric in METRICS.values() if metric.default]
    names = [n.strip() for n in names.split(',')] if isinstance(names, str) else list(names)
    for name in names:
        check_choice(flag, name, list(METRICS))
    return list(dict.fromkeys(names))


def overview() -> str:
    """A line for each metric: its scores and what it needs; * for those of the default."""
    lines = []
    for metric in METRICS.values():
        names = ', '.join(score.name for score in metric.scores)
        what = [*([names] if names != metric.name else []), *(f'needs {n}' for n in metric.needs)]
        lines.append(f'  {" *"[metric.default]} {metric.name:<16} {"; ".join(what)}')
    return '\n'.join(lines)


def needs_weights(name: str) -> bool:
    return WEIGHTS in METRICS[name].needs


def lacking(names: Iterable[str], reasons: Mapping[str, str]) -> dict[str, str]:
    """{metric: why} of the metrics asked for that cannot be computed.

    Args:
      reasons: {need: why it cannot be met, or '' if it can}, of the needs above.
    """
    found = {
        metric.name: next(filter(None, map(reasons.get, _needs(metric))), '')
        for metric in METRICS.values()
        if metric.name in names
    }
    return {name: why for name, why in found.items() if why}


def _needs(metric: Metric) -> tuple[str, ...]:
    of_features = metric.features is not None and not metric.features.any_pixels
    return (*metric.needs, PHOTOGRAPHS) if of_features else metric.needs


def check_some(names: Iterable[str], unavailable: Mapping[str, str]) -> None:
    """Raises UserError if none of the metrics asked for can be computed."""
    if not set(names) - unavailable.keys():
        raise UserError(f'no score can be computed: {listed(unavailable)}')


def listed(unavailable: Mapping[str, str]) -> str:
    """'fid_pytorch, kid_pytorch (why), swd (why)', from the reason for each metric."""
    by_reason = {}
    for name, why in unavailable.items():
        by_reason.setdefault(why, []).append(name)
    return ', '.join(f'{", ".join(names)} ({why})' for why, names in by_reason.items())


def of_score(name: str) -> Metric | None:
    """The metric that computes a score by which checkpoints can be compared."""
    if name not in SCORES or not SCORES[name].better:
        return None
    return next(metric for metric in METRICS.values() if SCORES[name] in metric.scores)
