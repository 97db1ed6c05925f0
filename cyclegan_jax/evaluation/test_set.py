"""Both directions of a data set, scored on its test images; so the checkpoints of a run are."""

import dataclasses
import inspect
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath

import numpy as np
from absl import logging
from PIL import Image

from cyclegan_jax import data, storage
from cyclegan_jax.checkpoint import CheckpointError, Checkpoints
from cyclegan_jax.data import Dataset, synthetic
from cyclegan_jax.errors import UserError, check_at_least, shortlist
from cyclegan_jax.evaluation import inception_weights, paired, report, scores
from cyclegan_jax.evaluation.direction import Direction, Extractor
from cyclegan_jax.evaluation.inception_weights import Weights
from cyclegan_jax.evaluation.measures import Images, Scores, View
from cyclegan_jax.interop import Network, load_pretrained, make_module
from cyclegan_jax.sharding import Batched
from cyclegan_jax.train_step import make_translate

# (direction, uint8 (n, h, w, c)) -> the translations, uint8
Translate = Callable[[str, np.ndarray], np.ndarray]
Keep = Callable[[str, int, np.ndarray], None]

_NO_WEIGHTS = Weights(None, None, inception_weights.MISSING)
_NO_TRUTH = 'the right translations of the test images are not known'
_NO_CLASSES = 'the classes in the test images are not known'


def evaluate_run(
    workdir: str | os.PathLike,
    *,
    step: int | str = 'latest',
    metrics: str | Iterable[str] | None = None,
    inception: str | os.PathLike | None = None,
    paired: bool | None = None,
    legacy: bool = False,
    batch_size: int = 16,
    save_images: str | os.PathLike | None = None,
    overwrite: bool = False,
) -> Iterator[dict]:
    """Scores checkpoints of a training run on its test images, one after the other.

    Networks compute in float32, whatever the run trains with.

    Args:
      workdir: of the run.
      step: a number, 'latest' (which passes over damaged ones), 'best', or 'all'.
      metrics: names of `scores.METRICS`; those computed by default for None. What cannot be
        computed is left out, and said so.
      inception: the FID network's weights; None: what the environment variable names.
      paired, legacy, batch_size: see `TestSet`.
      save_images: writes the translations below this folder, as step_N/a2b/NAME.png.
      overwrite: whether that may hold images already.

    Returns:
      For each step what evaluation/step_N.json says of it: 'step'; 'a2b' and 'b2a', a
      `report.record` each; 'not_computed', {metric: why}; 'protocol'.

    Raises:
      UserError: no such run or checkpoint, a data set that is gone, no score that can be computed.
    """
    workdir, names = Path(workdir), scores.parse(metrics)
    check_at_least('batch_size', batch_size, 1)
    config = _read_config(workdir)
    steps = _steps(workdir, step)
    loaded = _load(workdir, steps, fall_back=step in ('latest', 'all'))
    first = next(loaded)
    if save_images and not overwrite:
        for each in [first[0]] if step == 'latest' else steps:
            _check_empty(Path(save_images, f'step_{each}'))
    weights = inception_weights.find(inception, any(map(scores.needs_weights, names)))
    # Without a cache only those training images are decoded that the floor needs.
    dataset = data.load(**config['data'] | {'cache': 0.0}, seed=config['seed'], batch_size=1)
    test_set = TestSet(
        dataset,
        names,
        weights=weights,
        paired=paired,
        palette=synthetic.PALETTES.get(config['data'].get('name')),
        legacy=legacy,
        batch_size=batch_size,
    )
    scores.check_some(names, test_set.unavailable)
    protocol = report.protocol(names, weights.sha256) | {
        'images': 'test images as the run resizes them; translations rounded to uint8, as in PNG',
        'dtype': 'float32',
        'image_size': dataset.image_size,
        'test_split_missing': dataset.test_split_missing,
        'scored_files': dataset.test_names,
        'config': config,
        'identity_weight': config['loss']['identity_weight'],
    }

    def score(step: int, networks: Mapping[str, Network]) -> dict:
        def translate(name: str, images: np.ndarray) -> np.ndarray:
            return translators[name](networks[name].params, images)

        keep = save_images and _png_writer(Path(save_images, f'step_{step}'), dataset.test_names)
        scored = test_set.score(translate, keep)
        recorded = {
            name: report.record(direction, scored[name])
            for name, direction in test_set.directions.items()
        }
        unavailable = {'not_computed': test_set.unavailable, 'protocol': protocol}
        return {'step': step, **recorded, **unavailable}

    translators = _translators(first[1], batch_size)
    rest = () if step == 'latest' else loaded
    return (score(*each) for each in itertools.chain([first], rest))


class TestSet:
    """The test images of a data set and what their translations are scored against.

    Attributes:
      directions: {'a2b', 'b2a'}.
      unavailable: {metric: why} of the metrics that were asked for but cannot be computed.

    Args:
      metrics: names of `scores.METRICS`.
      weights: of the FID network.
      paired: whether test images of one name, but for a last `_A` or `_B`, are translations of each
        other. Found out where it is None: rendered sets, and names that all end so (facades, maps).
      palette: uint8 (classes, 3), for sets whose classes are known: the colours in domain a.
      legacy: label scores by the paper's formula.
      batch_size: images in a call of a network.

    Raises:
      UserError: names that do not match although `paired` says so, or too few images.
    """

    __test__ = False  # not a test, in spite of its name

    def __init__(
        self,
        dataset: Dataset,
        metrics: Iterable[str],
        *,
        weights: Weights = _NO_WEIGHTS,
        paired: bool | None = None,
        palette: np.ndarray | None = None,
        legacy: bool = False,
        batch_size: int = 16,
    ):
        classes = dataset.test_labels()
        images = {d: _Cropped(tests, dataset.image_size) for d, tests in dataset.tests.items()}
        truth = _pair(dataset, images, paired)
        needs = (
            (scores.WEIGHTS, weights.params, weights.missing),
            (scores.TRUTH, truth, _NO_TRUTH),
            (scores.CLASSES, classes, _NO_CLASSES),
        )
        reasons = {need: why for need, found, why in needs if found is None}
        self.unavailable = scores.lacking(metrics, reasons)
        extractor = Extractor(weights.params, batch_size)
        self._inputs, self._batch_size, self.directions = {}, batch_size, {}
        for source, target in ('ab', 'ba'):
            name = f'{source}2{target}'
            self._inputs[name] = images[source]
            self.directions[name] = Direction(
                extractor,
                [
                    metric
                    for metric in metrics
                    if metric not in self.unavailable and name in scores.METRICS[metric].directions
                ],
                count=len(images[source]),
                real=images[target],
                inputs=images[source],
                truth=truth and truth[target],
                classes=classes,
                palette=palette,
                other=None if dataset.test_split_missing else _like_tests(dataset, target),
                legacy=legacy,
            )

    def score(self, translate: Translate, keep: Keep | None = None) -> dict[str, Scores]:
        """Scores of both directions, {'a2b', 'b2a'}; see `Direction.score`.

        Args:
          keep: is shown all translations: (direction, number of the first, uint8 (n, h, w, c)).
        """
        return {
            name: direction.score(self._translations(name, translate, keep))
            for name, direction in self.directions.items()
        }

    def _translations(self, name: str, translate: Translate, keep: Keep | None) -> Iterator[tuple]:
        inputs, back = self._inputs[name], name[::-1]
        cycle = any(scores.CYCLE in metric.needs for metric in self.directions[name].metrics)
        for first in range(0, len(inputs), self._batch_size):
            numbers = range(first, min(first + self._batch_size, len(inputs)))
            outputs = translate(name, np.stack([inputs[i] for i in numbers]))
            if keep:
                keep(name, first, outputs)
            cycled = translate(back, outputs) if cycle else [None] * len(outputs)
            yield from zip(outputs, cycled, strict=True)


class _Cropped:
    """The centre of images, of the size that the networks see."""

    def __init__(self, images: Images, size: tuple[int, int]):
        self._images, self._size = images, size

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, number: int) -> np.ndarray:
        image = self._images[number]
        top, left = ((n - m) // 2 for n, m in zip(image.shape, self._size, strict=False))
        return image[top : top + self._size[0], left : left + self._size[1]]


def _like_tests(dataset: Dataset, domain: str) -> Images:
    """Training images, made as test images are."""
    resized_size = dataset.tests[domain].resized_size
    train = dataclasses.replace(dataset.train[domain], resized_size=resized_size, kept=None)
    return _Cropped(train, dataset.image_size)


def _pair(
    dataset: Dataset, images: Mapping[str, Images], known: bool | None
) -> dict[str, Images] | None:
    """By target domain the right translations, in the order of the inputs; None if not known."""
    if dataset.paired:
        return dict(images)
    names = dataset.test_names
    if known is None:
        stems = {domain: [PurePath(name).stem for name in names[domain]] for domain in 'ab'}
        marked = all(stem.endswith(f'_{d.upper()}') for d in 'ab' for stem in stems[d])
        known = marked and {s[:-2] for s in stems['a']} == {s[:-2] for s in stems['b']}
    if not known:
        return None
    return {
        target: View(images[target], paired.match(names[source], names[target], 'test images'))
        for source, target in ('ab', 'ba')
    }


def _read_config(workdir: Path) -> dict:
    """The config of a run: what decides which test images there are, checked."""
    path = workdir / 'config.json'
    if not path.is_file():
        raise UserError(f'--workdir={workdir} is not a training run: it has no config.json')
    config = storage.read_json(path)
    storage.check_fields(config, {'data': dict, 'seed': int, 'loss': dict}, str(path))
    storage.check_fields(config['loss'], {'identity_weight': (int, float)}, f'{path}, loss')
    known = inspect.signature(data.load).parameters
    if unknown := sorted(config['data'].keys() - known):
        raise UserError(f'{path}: data has unknown fields: {shortlist(unknown)}')
    return config


def _steps(workdir: Path, step: int | str) -> list[int]:
    """The checkpoints that may be scored, in the order in which they are tried."""
    with Checkpoints(workdir / 'checkpoints') as checkpoints:
        found = checkpoints.steps()
        if not found:
            raise UserError(f'there is no checkpoint in {checkpoints.directory}')
        if step in ('latest', 'all'):
            return found if step == 'all' else found[::-1]
        if step == 'best':
            return [checkpoints.best()]
    if not str(step).isdecimal():
        raise UserError(f'--step is {step!r}; it must be a number, latest or best')
    if int(step) not in found:
        raise UserError(f'--step is {step}; there are checkpoints of {", ".join(map(str, found))}')
    return [int(step)]


def _load(
    workdir: Path, steps: Sequence[int], fall_back: bool
) -> Iterator[tuple[int, dict[str, Network]]]:
    """(step, networks) of each checkpoint; passes over damaged ones with a warning.

    Raises:
      CheckpointError: one is damaged that was named, or all are.
    """
    good = 0
    for number, step in enumerate(steps, 1):
        try:
            networks = load_pretrained(workdir, step=step)
        except CheckpointError as error:
            if not fall_back or (number == len(steps) and not good):
                raise
            logging.warning('Checkpoint %d is passed over: %s', step, error)
        else:
            good += 1
            yield step, networks


def _translators(networks: Mapping[str, Network], batch_size: int) -> dict[str, Batched]:
    """(params, uint8 images) -> uint8 translations, by direction."""
    return {
        name: Batched(make_translate(make_module(n.role, n.spec, n.channels)), batch_size)
        for name, n in networks.items()
    }


def _check_empty(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        # They would be taken for translations of this step.
        raise UserError(f'{folder} is not empty; choose another folder, or give --overwrite')


def _png_writer(folder: Path, names: Mapping[str, list[str]]) -> Keep:
    """Writes translations below a folder, under the names of their inputs."""
    stems = {direction: _stems(names[direction[0]]) for direction in ('a2b', 'b2a')}

    def keep(direction: str, first: int, outputs: np.ndarray) -> None:
        for number, output in enumerate(outputs, first):
            path = folder / direction / f'{stems[direction][number]}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(output[..., 0] if output.shape[-1] == 1 else output).save(path)

    return keep


def _stems(names: Sequence[str]) -> list[str]:
    """Names of files without what they end in; of two that are alike, with their folders too."""
    stems = [Path(name).stem for name in names]
    if len(set(stems)) == len(stems):
        return stems
    root = os.path.commonpath([Path(name).parent for name in names])
    inside = [os.path.relpath(name, root) for name in names]
    stems = [str(Path(name).with_suffix('')) for name in inside]
    return stems if len(set(stems)) == len(stems) else inside  # x.png and x.jpg in one folder
