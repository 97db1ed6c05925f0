"""What is said of a score: all that flags, checks, tables and logs ask.

A metric is what can be asked for, as in --metrics=paired. Its scores are the numbers that are shown
of it: psnr, ssim, l1. What it computes beside them is detail, which is written but not shown.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cyclegan_jax.evaluation import distances

# What a metric may need, beside translations; who asks for scores says what is lacking.
WEIGHTS = 'weights of the FID network'
ONE_SIZE = 'pictures of one size'
PHOTOGRAPHS = 'photographs: 8 bits of grey, RGB or RGBA'
REAL = 'real pictures, not only their features'
TRUTH = 'the right translation of each input'
CLASSES = 'the classes that each translation should show'
CYCLE = 'a generator for the way back'
FRAMES = 'the frames of a video, and those that were translated'


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
    sha256: of the file of the user's network, for the protocol; '' for any other.
    kept: whether --save-real keeps them.
    any_pixels: whether they are of other than photographs, too.
    """

    name: str
    prepare: Callable[[np.ndarray, int, int], np.ndarray]
    network: Callable | None = None
    params: Callable[[Any], Any] = lambda weights: weights
    resize: str = ''
    sha256: str = ''
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
    definition: what the protocol says of it.
    """

    name: str
    scores: tuple[Score, ...]
    needs: tuple[str, ...] = ()
    directions: tuple[str, ...] = ('a2b', 'b2a')
    default: bool = True
    biased: bool = False
    definition: str = ''
    features: Features | None = None
    distance: Callable[[np.ndarray, np.ndarray], dict[str, float]] | None = None
    measures: tuple[Callable, ...] = ()
    baselines: Mapping[str, Callable] = field(default_factory=dict)


def frechet(name: str, features: Features, **fields: Any) -> Metric:
    """The Frechet distance; `fields` are others of `Metric`."""
    return Metric(
        name=name,
        scores=(Score(name, 'lower'),),
        features=features,
        distance=lambda x, y: {'': distances.frechet(x, y)},
        biased=True,
        **fields,
    )


def kernel(name: str, features: Features, **fields: Any) -> Metric:
    """The kernel distance, likewise."""
    return Metric(
        name=name,
        scores=(kernel_score(name),),
        features=features,
        distance=distances.kid_and_spread,
        **fields,
    )


def kernel_score(name: str) -> Score:
    return Score(name, 'lower', factor=1000, spread=f'{name}_std')  # printed so, by convention
