"""The checkpoints of a training run, scored on its test images: `--workdir`."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from cyclegan_jax import data
from cyclegan_jax.checkpoint import Checkpoints
from cyclegan_jax.data import synthetic
from cyclegan_jax.evaluation import report
from cyclegan_jax.evaluation.features import Sharded
from cyclegan_jax.evaluation.test_set import Keep, TestSet, Translate
from cyclegan_jax.networks import make_networks
from cyclegan_jax.train_step import make_translate


def evaluate(
    args: argparse.Namespace, metrics: list[str], weights: Mapping | None, sha256: str | None
) -> list[Path]:
    """Scores the checkpoints that `args` choose, prints tables, writes evaluation/step_N.json.

    Args:
      metrics: names of `direction.METRICS`. What cannot be computed is left out, and said so.
      weights, sha256: of the FID network (`inception_weights.load`), or None.

    Returns:
      The files written.

    Raises:
      ValueError: no such run or checkpoint, a data set that is gone, flags that do not fit.
    """
    workdir = Path(args.workdir)
    if not (workdir / 'config.json').is_file():
        raise ValueError(f'--workdir={workdir} is not a training run: it has no config.json')
    config = json.loads((workdir / 'config.json').read_text())
    with Checkpoints(workdir / 'checkpoints') as checkpoints:
        steps = _steps(args, checkpoints)
        if args.output and len(steps) > 1:
            raise ValueError('--output is one file but --all-steps writes several; leave one out')
        # Without a cache only those training images are decoded that the floor needs.
        arguments = config['data'] | {'cache': 0.0}
        dataset = data.load(**arguments, seed=config['seed'], batch_size=1)
        test_set = TestSet(
            dataset,
            metrics,
            weights=weights,
            paired=args.paired or None,
            palette=synthetic.PALETTES.get(config['data']['name']),
            legacy=args.legacy,
            batch_size=args.batch_size,
        )
        keep = [_png_writer(args, step, dataset.test_names) for step in steps]
        networks = _compiled(config, args.batch_size)
        written = []
        for step, keep_images in zip(steps, keep, strict=True):
            params, _, _ = checkpoints.restore_networks(step)
            scores = test_set.score(_translator(networks, params), keep_images)
            recorded = {
                name: report.record(direction, scores[name])
                for name, direction in test_set.directions.items()
            }
            for name, found in recorded.items():
                print(report.table(f'{workdir}, step {step}, {name}', found))
            contents = {
                'step': step,
                **recorded,
                'not_computed': test_set.unavailable,
                'protocol': _protocol(config, dataset, metrics, sha256),
            }
            written.append(Path(args.output or workdir / 'evaluation' / f'step_{step}.json'))
            report.write(written[-1], contents)
    for metric, why in test_set.unavailable.items():
        print(f'{metric} is not computed: {why}')
    return written


def _steps(args: argparse.Namespace, checkpoints: Checkpoints) -> list[int]:
    """The checkpoints to be scored."""
    found = checkpoints.steps()
    if not found:
        raise ValueError(f'there is no checkpoint in {checkpoints.directory}')
    if args.all_steps:
        return found
    if args.step == 'best':
        return [checkpoints.best()]
    if args.step != 'latest' and not args.step.isdecimal():
        raise ValueError(f'--step is {args.step!r}; it must be a number, latest or best')
    step = found[-1] if args.step == 'latest' else int(args.step)
    if step not in found:
        raise ValueError(f'--step is {step}; there are checkpoints of {", ".join(map(str, found))}')
    return [step]


def _compiled(config: Mapping, batch_size: int) -> dict[str, Sharded]:
    """Both generators, on uint8, for any parameters."""
    channels = {domain: config['data'][f'channels_{domain}'] for domain in 'ab'}
    networks = make_networks(
        channels, config['generator'], config['discriminator'], config['dtype']
    )

    return {
        name: Sharded(make_translate(network), batch_size)
        for name, network in networks.generators.items()
    }


def _translator(networks: Mapping[str, Sharded], params: Mapping) -> Translate:
    ready = {name: network.with_params(params[name]) for name, network in networks.items()}
    return lambda name, images: ready[name](images)


def _png_writer(args: argparse.Namespace, step: int, names: Mapping[str, list[str]]) -> Keep | None:
    """Writes translations below args.save_images, if given, under the names of their inputs.

    Raises:
      ValueError: there are files already, which would be taken for translations of this step.
    """
    if not args.save_images:
        return None
    folder = Path(args.save_images, f'step_{step}')
    if not args.overwrite and folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f'{folder} is not empty; choose another folder, or give --overwrite')

    def keep(direction: str, first: int, outputs: np.ndarray) -> None:
        (folder / direction).mkdir(parents=True, exist_ok=True)
        for number, output in enumerate(outputs, first):
            path = folder / direction / f'{Path(names[direction[0]][number]).stem}.png'
            Image.fromarray(output[..., 0] if output.shape[-1] == 1 else output).save(path)

    return keep


def _protocol(
    config: Mapping, dataset: data.Dataset, metrics: list[str], sha256: str | None
) -> dict:
    return report.protocol(metrics, sha256) | {
        'images': 'test images as the run resizes them; translations rounded to uint8, as in PNG',
        'image_size': dataset.image_size,
        'test_split_missing': dataset.test_split_missing,
        'scored_files': dataset.test_names,
        'config': config,
        'identity_weight': config['loss']['identity_weight'],
    }
