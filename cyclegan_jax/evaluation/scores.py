"""The table of scores: all that is known of each; flags, checks, tables and logs read it here.

A new metric is an entry in METRICS and the functions that the entry names.
"""

import re
from collections.abc import Iterable, Mapping

import numpy as np

from cyclegan_jax.errors import UserError, check_choice
from cyclegan_jax.evaluation import distances, inception, measures, randconv
from cyclegan_jax.evaluation.measures import Images
from cyclegan_jax.evaluation.metric import (
    CLASSES,
    CYCLE,
    FRAMES,
    ONE_SIZE,
    PHOTOGRAPHS,
    REAL,
    TRUTH,
    WEIGHTS,
    Features,
    Metric,
    Score,
    frechet,
    kernel,
    kernel_score,
)

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
    shared = {'needs': (WEIGHTS,), 'default': protocol == 'pytorch'}
    return [
        frechet(f'fid_{protocol}', features, **shared),
        kernel(f'kid_{protocol}', features, **shared),
    ]


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
        kernel('randconv_kid_v1', RANDCONV, needs=(ONE_SIZE,)),
        Metric(
            name='swd',
            scores=(Score('swd', 'lower'), Score('swd_level_0', 'lower')),
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
        Metric(
            name='flicker',
            scores=(Score('flicker'), Score('flicker_ratio')),  # a still picture has none
            needs=(FRAMES,),
            default=False,
            definition=(
                'mean absolute change from each frame to the next, by file name, in levels of 255 '
                "or the data's units; flicker_ratio: as a share of the inputs' change, both in "
                '[-1, 1]'
            ),
            measures=(lambda d: measures.Flicker(d.inputs, d.pixels, d.input_pixels),),
            baselines={
                'untranslated': lambda d: d.inputs if d.input_pixels.comparable(d.pixels) else None
            },
        ),
    )
}
SCORES = {score.name: score for metric in METRICS.values() for score in metric.scores}
# Those of the user's network. No name has a _, so that kid_x_std is none.
OF_NETWORK = re.compile(r'(frechet|kid)_[a-z0-9.-]+')

# What scores are read against, from the lowest hurdle for a translator to the highest.
BASELINES = ('floor', 'ceiling', 'untranslated', 'mean_image', 'shuffled', 'label_ceiling')


def parse(
    names: str | Iterable[str] | None, flag: str = '--metrics', others: Iterable[Metric] = ()
) -> list[Metric]:
    """The metrics of a list of names, which may be one text with commas; None: the default ones.

    Args:
      flag: what errors call the list.
      others: of the user's network. If none of them is named, all are: why else give it.

    Raises:
      UserError: one that does not exist.
    """
    others = {metric.name: metric for metric in others}
    known = METRICS | others
    if names is None:
        return [metric for metric in known.values() if metric.default]
    names = [n.strip() for n in names.split(',')] if isinstance(names, str) else list(names)
    for name in names:
        check_choice(flag, name, list(known))
    if not others.keys() & names:
        names += others
    return [metric for name, metric in known.items() if name in names]


def overview() -> str:
    """A line for each metric: its scores and what it needs; * for those of the default."""
    lines = []
    for metric in METRICS.values():
        names = ', '.join(score.name for score in metric.scores)
        what = [*([names] if names != metric.name else []), *(f'needs {n}' for n in metric.needs)]
        lines.append(f'  {" *"[metric.default]} {metric.name:<16} {"; ".join(what)}')
    return '\n'.join(lines)


def needs_weights(metrics: Iterable[Metric]) -> bool:
    return any(WEIGHTS in metric.needs for metric in metrics)


def lacking(metrics: Iterable[Metric], reasons: Mapping[str, str]) -> dict[str, str]:
    """{name: why} of the metrics asked for that cannot be computed.

    Args:
      reasons: {need: why it cannot be met, or '' if it can}, of the needs above.
    """
    found = {m.name: next(filter(None, map(reasons.get, _needs(m))), '') for m in metrics}
    return {name: why for name, why in found.items() if why}


def _needs(metric: Metric) -> tuple[str, ...]:
    of_features = metric.features is not None and not metric.features.any_pixels
    return (*metric.needs, PHOTOGRAPHS) if of_features else metric.needs


def check_some(metrics: Iterable[Metric], unavailable: Mapping[str, str]) -> None:
    """Raises UserError if none of the metrics asked for can be computed."""
    if all(metric.name in unavailable for metric in metrics):
        raise UserError(f'no score can be computed: {listed(unavailable)}')


def listed(unavailable: Mapping[str, str]) -> str:
    """'fid_pytorch, kid_pytorch (why), swd (why)', from the reason for each metric."""
    by_reason = {}
    for name, why in unavailable.items():
        by_reason.setdefault(why, []).append(name)
    return ', '.join(f'{", ".join(names)} ({why})' for why, names in by_reason.items())


def named(name: str) -> Score | None:
    """The score of a name, also of the user's network of an earlier process; None for a detail."""
    if name in SCORES or not OF_NETWORK.fullmatch(name):
        return SCORES.get(name)
    return kernel_score(name) if name.startswith('kid') else Score(name, 'lower')
