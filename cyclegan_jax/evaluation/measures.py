"""Measures: what is added up over the translations of a test set, and the scores it comes to.

Each has `add(number, output, cycled)`: the number of an image, its translation (h, w, c) as it is
stored, and that translated back, or None; and `result()`, a dict. None keeps images; features of
them are the most that is kept.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from tqdm import tqdm

from cyclegan_jax.evaluation import labels, paired
from cyclegan_jax.pixels import PHOTOGRAPHS, Pixels

_SHUFFLE = 7  # "shuffled" compares a translation with the truth of the image so many further on

# (h, w, c) as stored, uint8 of photographs; only len() and [i] are used
Images = Sequence[np.ndarray]
Translations = Iterable[tuple[np.ndarray, np.ndarray | None]]  # (output, cycled) as in `add`
Scores = dict[str, float]


def run(measures: Sequence, translations: Translations, total: int, name: str) -> None:
    """Adds all translations to each measure.

    Args:
      total: how many to expect.
      name: what the progress bar, shown on a terminal, calls them.
    """
    bar = tqdm(translations, name, total, unit='image', leave=False, disable=None)
    for number, (output, cycled) in enumerate(bar):
        for measure in measures:
            measure.add(number, output, cycled)


def result_of(measure, images: Images, name: str = 'baseline') -> Scores:
    """The result of a measure of images in the place of translations."""
    run([measure], as_they_are(images), len(images), name)
    return measure.result()


def as_they_are(images: Images) -> Iterator[tuple[np.ndarray, None]]:
    """Images in the place of translations."""
    return ((images[i], None) for i in range(len(images)))


class View:
    """The images `read(i)` for i of `indices`, in that order; read when they are asked for."""

    def __init__(self, read: Callable[[int], np.ndarray], indices: Sequence[int]):
        self._read, self._indices = read, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, number: int) -> np.ndarray:
        return self._read(self._indices[number])


class Mean:
    """The mean over images of each score that `function(number, output, cycled)` returns."""

    def __init__(self, function: Callable[[int, np.ndarray, np.ndarray | None], Scores]):
        self._function, self._values = function, defaultdict(list)

    def add(self, number: int, output: np.ndarray, cycled: np.ndarray | None) -> None:
        for name, value in self._function(number, output, cycled).items():
            self._values[name].append(value)

    def result(self) -> Scores:
        return {name: float(np.mean(values)) for name, values in self._values.items()}


def likeness(truth: Images, pixels: Pixels = PHOTOGRAPHS) -> Mean:
    """Likeness to the right translations: psnr (dB), ssim, l1 (of images in [-1, 1]).

    Of other than photographs also l1_in_units, which is l1 in the data's own units; psnr_capped is
    the share of images that equal their truth, of which psnr is but 100 dB.
    """

    def compare(number, output, _):
        found = _compare(output, truth[number], pixels)
        return found | {'psnr_capped': found['psnr'] == paired.MAX_PSNR}

    return Mean(compare)


def shuffled_likeness(truth: Images, pixels: Pixels = PHOTOGRAPHS) -> Mean | None:
    """Likeness to wrong translations, `_shuffled`: where it is as good, content is ignored.

    None where there is but one translation, and so no wrong one.
    """
    if len(truth) == 1:
        return None
    distance = _SHUFFLE % len(truth) or 1  # of seven, the seventh further on is the right one

    def compare(number, output, _):
        return _compare(output, truth[(number + distance) % len(truth)], pixels, '{}_shuffled')

    return Mean(compare)


def reconstruction(inputs: Images, pixels: Pixels = PHOTOGRAPHS) -> Mean:
    """Likeness of what is translated there and back to the inputs: cycle_psnr, _ssim, _l1.

    Only a diagnosis: a generator that changes nothing reconstructs perfectly.
    """
    return Mean(lambda number, _, cycled: _compare(cycled, inputs[number], pixels, 'cycle_{}'))


def correlation(inputs: Images) -> Mean:
    """Whether bright stays bright: `paired.correlation` of inputs and outputs, in [-1, 1]."""
    return Mean(
        lambda number, output, _: {'correlation': paired.correlation(inputs[number], output)}
    )


def l1(x: np.ndarray, y: np.ndarray, pixels: Pixels) -> float:
    """Mean difference of stored images, each channel of them in [-1, 1]."""
    if pixels.photographs:
        return np.abs(x.astype(np.int16) - y).mean() / 127.5
    return np.abs(pixels.to_float(x) - pixels.to_float(y)).mean(dtype=np.float64)


def _compare(x: np.ndarray, y: np.ndarray, pixels: Pixels, name: str = '{}') -> Scores:
    found, peak = {'l1': l1(x, y, pixels)}, None
    if not pixels.photographs:
        found['l1_in_units'] = np.abs(x.astype(np.float64) - y).mean()
        x, y, peak = pixels.to_float(x), pixels.to_float(y), 2.0
    found['psnr'] = paired.psnr(x[None], y[None], peak=peak)[0]
    found['ssim'] = paired.ssim(x[None], y[None], peak=peak)[0]
    return {name.format(score): value for score, value in found.items()}


class Moments:
    """Mean image, as stored, and spread of images of one size.

    The spread is the standard deviation over the images, averaged over pixels and channels.
    """

    def __init__(self):
        self._dtype = np.uint8
        self._count, self._sum, self._squares = 0, 0.0, 0.0

    def add(self, number: int, output: np.ndarray, cycled: np.ndarray | None) -> None:
        self._dtype, output = output.dtype, output.astype(np.float64)
        self._count += 1
        self._sum = self._sum + output
        self._squares = self._squares + output**2

    def result(self) -> dict:
        mean = self._sum / self._count
        variance = np.maximum(self._squares / self._count - mean**2, 0)
        mean = np.rint(mean) if np.issubdtype(self._dtype, np.integer) else mean
        return {'mean': mean.astype(self._dtype), 'spread': float(np.sqrt(variance).mean())}


class Diversity(Moments):
    """How much outputs differ from each other, as a share of how much real images do: diversity."""

    def __init__(self, real_spread: float):
        super().__init__()
        self._real_spread = real_spread

    def result(self) -> Scores:
        return {'diversity': super().result()['spread'] / self._real_spread}


class Flicker:
    """How much neighbouring frames differ: flicker, in levels or the data's own units.

    Motion changes frames too, so flicker_ratio says it as a share of what their inputs differ. It
    is not there where the inputs stand still.

    Args:
      inputs: of the frames, in their order.
      pixels, input_pixels: of the frames, and of the inputs.
    """

    def __init__(self, inputs: Images, pixels: Pixels, input_pixels: Pixels):
        self._inputs, self._pixels, self._input_pixels = inputs, pixels, input_pixels
        self._before, self._changes = None, []

    def add(self, number: int, output: np.ndarray, cycled: np.ndarray | None) -> None:
        source = self._inputs[number]
        if self._before is not None:
            frame, source_frame = self._before
            self._changes.append(
                (
                    np.abs(output.astype(np.float64) - frame).mean(),
                    l1(output, frame, self._pixels),
                    l1(source, source_frame, self._input_pixels),
                )
            )
        self._before = output, source

    def result(self) -> Scores:
        if not self._changes:
            return {}
        in_units, change, of_inputs = np.mean(self._changes, axis=0).tolist()
        found = {'flicker': in_units}
        return found | ({'flicker_ratio': change / of_inputs} if of_inputs else {})


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

    def add(self, number: int, output: np.ndarray, cycled: np.ndarray | None) -> None:
        predicted = labels.decode(output, self._palette)
        self._confusion = self._confusion + labels.confusion(
            self._classes[number], predicted, len(self._palette)
        )

    def result(self) -> Scores:
        return labels.scores(self._confusion, self._legacy)
