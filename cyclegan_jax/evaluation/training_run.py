"""The checkpoints of a training run, scored on its test images."""

import inspect
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import logging
from PIL import Image

from cyclegan_jax import data, storage
from cyclegan_jax.checkpoint_format import CheckpointError
from cyclegan_jax.checkpoint_reader import CheckpointReader
from cyclegan_jax.data import synthetic
from cyclegan_jax.errors import UserError, check_at_least, shortlist
from cyclegan_jax.evaluation import feature_network, inception_weights, report, scores
from cyclegan_jax.evaluation.test_set import Keep, TestSet
from cyclegan_jax.interop import Network, load_checkpoint, shown_weights
from cyclegan_jax.pixels import Pixels
from cyclegan_jax.sharding import Batched
from cyclegan_jax.train_step import make_translate


def evaluate_run(
    workdir: str | os.PathLike,
    *,
    step: int | str = 'latest',
    weights: str | None = None,
    metrics: str | Iterable[str] | None = None,
    inception: str | os.PathLike | None = None,
    features: str | None = None,
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
      weights: which generators: 'trained', or their 'average', the default where there is one.
      metrics: names of `scores.METRICS`; those computed by default for None. What cannot be
        computed is left out, and said so.
      inception: the FID network's weights; None: what the environment variable names.
      features: a network of one's own, see `feature_network.load`.
      paired, legacy, batch_size: see `TestSet`.
      save_images: writes the translations below this folder, as step_N/a2b/NAME.png.
      overwrite: whether that may hold images already.

    Returns:
      For each step what evaluation/step_N.json says of it: 'step'; 'a2b' and 'b2a', a
      `report.record` each; 'not_computed', {metric: why}; 'protocol'.

    Raises:
      UserError: no such run or checkpoint, a data set that is gone, no score that can be computed.
    """
    workdir = storage.as_path(workdir, '--workdir')
    wanted = scores.parse(metrics, others=feature_network.load(features))
    check_at_least('batch_size', batch_size, 1)
    config = _read_config(workdir)
    steps = _steps(workdir, step)
    loaded = _load(workdir, steps, weights)
    first = next(loaded)
    if save_images and not overwrite:
        for each in [first[0], *steps[1:]]:
            folder = Path(save_images, f'step_{each}')
            if folder.is_dir() and any(folder.iterdir()):
                # They would be taken for translations of this step.
                raise UserError(
                    f'{folder} is not empty; choose another folder, or give --overwrite'
                )
    inception = inception_weights.find(inception, scores.needs_weights(wanted))
    # Without a cache only those training images are decoded that the floor needs.
    dataset = data.load(
        **config['data'] | {'cache': 0.0},
        seed=config['seed'],
        batch_size=1,
        measured=dict(zip('ab', first[1]['a2b'].pixels, strict=True)),
    )
    test_set = TestSet(
        dataset,
        wanted,
        weights=inception,
        paired=paired,
        palette=synthetic.PALETTES.get(config['data'].get('name')),
        legacy=legacy,
        batch_size=batch_size,
    )
    scores.check_some(wanted, test_set.unavailable)
    protocol = report.protocol(wanted, inception.sha256) | {
        'images': 'test images as the run resizes them; translations as they are stored ('
        + ', '.join(dataset.pixels[domain].dtype for domain in 'ab')
        + '), rounded to the nearest',
        'dtype': 'float32',
        'image_size': dataset.image_size,
        'test_split_missing': dataset.test_split_missing,
        'scored_files': dataset.test_names,
        'config': config,
        'identity_weight': config['loss']['identity_weight']
        * (dataset.pixels['a'].channels == dataset.pixels['b'].channels),  # else it has none
    }

    def score(step: int, networks: Mapping[str, Network], weights: str) -> dict:
        def translate(name: str, images: np.ndarray) -> np.ndarray:
            return translators[name](networks[name].params, images)

        folder = save_images and Path(save_images, f'step_{step}')
        keep = folder and _writer(folder, dataset.test_names, dataset.pixels)
        recorded = {
            name: report.record(test_set.directions[name], scored)
            for name, scored in test_set.score(translate, keep).items()
        }
        recorded |= {'not_computed': test_set.unavailable}
        return {'step': step, **recorded, 'protocol': protocol | {'weights': weights}}

    translators = _translators(first[1], batch_size)
    return (score(*each) for each in itertools.chain([first], loaded))


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


def _steps(workdir: Path, step: int | str) -> list[int | None]:
    """The checkpoints to score; None is the newest good one."""
    checkpoints = CheckpointReader(workdir / 'checkpoints')
    found = checkpoints.steps()
    if not found:
        raise UserError(f'there is no checkpoint in {checkpoints.directory}')
    if step == 'latest':
        return [None]
    if step == 'all':
        return found
    if step == 'best':
        return [checkpoints.best()]
    if not str(step).isdecimal():
        raise UserError(f'--step is {step!r}; it must be a number, latest or best')
    if int(step) not in found:
        raise UserError(f'--step is {step}; there are checkpoints of {", ".join(map(str, found))}')
    return [int(step)]


def _load(
    workdir: Path, steps: Sequence[int | None], weights: str | None
) -> Iterator[tuple[int, dict[str, Network], str]]:
    """(step, networks, which weights) of each checkpoint; passes over damaged ones with a warning.

    Raises:
      CheckpointError: all are damaged.
    """
    good = 0
    checkpoints = CheckpointReader(workdir / 'checkpoints')
    for number, step in enumerate(steps, 1):
        try:
            networks, config, step = load_checkpoint(checkpoints, step, weights=weights)
        except CheckpointError as error:
            if number == len(steps) and not good:
                raise
            logging.warning('Checkpoint %d is passed over: %s', step, error)
        else:
            good += 1
            yield step, networks, shown_weights(weights, config)


def _translators(networks: Mapping[str, Network], batch_size: int) -> dict[str, Batched]:
    """(params, images) -> translations, by direction."""
    return {
        name: Batched(make_translate(network.module(), *network.pixels), batch_size)
        for name, network in networks.items()
    }


def _writer(folder: Path, names: Mapping[str, list[str]], pixels: Mapping[str, Pixels]) -> Keep:
    """Writes translations, under the names of their inputs: PNG, or .npy of no photographs."""
    stems = {direction: _stems(names[direction[0]]) for direction in ('a2b', 'b2a')}

    def keep(direction: str, first: int, outputs: np.ndarray) -> None:
        for number, output in enumerate(outputs, first):
            path = folder / direction / stems[direction][number]
            path.parent.mkdir(parents=True, exist_ok=True)
            if pixels[direction[-1]].as_pillow:
                image = Image.fromarray(output[..., 0] if output.shape[-1] == 1 else output)
                image.save(path.with_name(f'{path.name}.png'))
            else:
                np.save(path.with_name(f'{path.name}.npy'), output)

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
