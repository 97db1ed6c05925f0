"""What the log and the samples of a run give reason to fear; docs/troubleshooting.md says more."""

from collections.abc import Mapping

import numpy as np

from cyclegan_jax.evaluation import measures
from cyclegan_jax.evaluation.scores import SCORES
from cyclegan_jax.pixels import PHOTOGRAPHS, Pixels

# 0.6 of the way between a discriminator's goals for real and for generated images: 1 and 0; as
# probabilities, of which it gives the logits; 1 and -1. It learns few pictures by heart beyond.
_WIDEST = {'lsgan': 0.6, 'vanilla': 2.8, 'hinge': 1.2}
# Mean change of values in [-1, 1]: four levels of 255. Horses become zebras by 0.15 to 0.25.
_LEAST_CHANGE = 0.03


class Lasting:
    """Tells what has been found so many times in a row, and tells it once.

    Args:
      times: in a row.
    """

    def __init__(self, times: int):
        self._times, self._counts = times, {}

    def of(self, found: Mapping[str, str]) -> list[str]:
        """The texts, of those found now by name, that have just lasted for long enough."""
        self._counts = {name: 1 + self._counts.get(name, 0) for name in found}
        return [text for name, text in found.items() if self._counts[name] == self._times]


def gaps(scalars: Mapping[str, float]) -> dict[str, float]:
    """{'gap/a', 'gap/b'}: what a discriminator gives real images, less what it gives others."""
    return {
        f'gap/{domain}': scalars[f'score/real_{domain}'] - scalars[f'score/fake_{domain}']
        for domain in 'ab'
        if f'score/real_{domain}' in scalars
    }


def of_gaps(found: Mapping[str, float], gan: str) -> dict[str, str]:
    """{name: text} of what is wrong with `gaps`, for the kind of adversarial loss."""
    return {
        name: f'discriminator {name[-1]} tells real from generated images too well ({name} is '
        f'{gap:.2f}, over {_WIDEST[gan]}): it may know the training images by heart'
        for name, gap in found.items()
        if gap > _WIDEST[gan]
    }


def of_translations(
    direction: str,
    inputs: np.ndarray,
    outputs: np.ndarray,
    real: np.ndarray,
    input_pixels: Pixels = PHOTOGRAPHS,
    pixels: Pixels = PHOTOGRAPHS,
) -> dict[str, str]:
    """{name: text} of what is wrong with some translations.

    Args:
      inputs, outputs, real: as stored (n, h, w, c): what was translated, to what, and images of the
        target domain.
      input_pixels, pixels: of the inputs, and of the target domain.
    """
    scores = measures.result_of(measures.correlation(inputs), outputs)
    spread = measures.result_of(measures.Moments(), real)['spread']
    if len(outputs) > 1 and spread:
        scores |= measures.result_of(measures.Diversity(spread), outputs)
    found = {name: SCORES[name].alarm(value) for name, value in scores.items()}
    if inputs.shape == outputs.shape and input_pixels.comparable(pixels):
        change = measures.l1(outputs, inputs, pixels)
        if change < _LEAST_CHANGE:
            found['change'] = (
                f'outputs differ from their inputs by {change:.3f} of [-1, 1] only (below '
                f'{_LEAST_CHANGE}): it may have learnt to translate nothing'
            )
    return {f'{name} {direction}': f'{direction}: {text}' for name, text in found.items() if text}
