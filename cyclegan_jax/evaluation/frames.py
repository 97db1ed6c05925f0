"""Frames of a video: their order, and how much they flicker."""

import re
from collections.abc import Mapping

import numpy as np

from cyclegan_jax.data.sources.source import Source
from cyclegan_jax.evaluation import measures
from cyclegan_jax.evaluation.measures import Images, Scores
from cyclegan_jax.pixels import Pixels


class Numbered:
    """The pictures of a folder in the order of the numbers in their names: 2 before 10."""

    def __init__(self, folder: Source):
        self._folder = folder
        names = [folder.name(i) for i in range(len(folder))]
        parts = [re.split(r'(\d+)', name) for name in names]
        keys = [[int(part) if part.isdigit() else part for part in name] for name in parts]
        self._places = sorted(range(len(folder)), key=keys.__getitem__)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> np.ndarray:
        return self._folder[self._places[number]]

    def name(self, number: int) -> str:
        return self._folder.name(self._places[number])

    def size(self, number: int) -> tuple[int, int]:
        return self._folder.size(self._places[number])


def lacking(sizes: Mapping[str, Mapping[str, int]]) -> str:
    """Why frames of these sizes, {folder: {size: how many}}, cannot be scored; '' if they can."""
    if 'input' not in sizes:
        return 'needs --input, the frames that were translated'
    if any(len(sizes[name]) > 1 for name in ('fake', 'input')):
        return 'needs frames of one size'
    return '' if sum(sizes['fake'].values()) > 1 else 'needs two frames at least'


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
                    measures.l1(output, frame, self._pixels),
                    measures.l1(source, source_frame, self._input_pixels),
                )
            )
        self._before = output, source

    def result(self) -> Scores:
        if not self._changes:
            return {}
        in_units, change, of_inputs = np.mean(self._changes, axis=0).tolist()
        found = {'flicker': in_units}
        return found | ({'flicker_ratio': change / of_inputs} if of_inputs else {})
