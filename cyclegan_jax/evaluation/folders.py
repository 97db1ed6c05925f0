"""Two folders of pictures, one against the other: `--fake` and `--real`."""

import argparse
import collections
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cyclegan_jax.data.sources import Folder
from cyclegan_jax.evaluation import pairing, real_images, report
from cyclegan_jax.evaluation.direction import NEED_ONE_SIZE, NEED_WEIGHTS, Direction
from cyclegan_jax.evaluation.features import Features
from cyclegan_jax.evaluation.measures import DISTRIBUTION, View, as_they_are


def evaluate(
    args: argparse.Namespace, metrics: list[str], weights: Mapping | None, sha256: str | None
) -> list[Path]:
    """Scores the pictures of `args.fake`, prints a table, writes `args.output`.

    Args:
      metrics: names of `direction.METRICS`. What cannot be computed is left out, and said so.
      weights, sha256: of the FID network (`inception_weights.load`), or None.

    Returns:
      The files written.

    Raises:
      ValueError: folders that are empty or do not match, or no score that could be computed.
    """
    if not args.real:
        raise ValueError('--fake=DIR wants --real=DIR, the real pictures to compare with')
    folders = {
        name: open_folder(name, path)
        for name in ('fake', 'real', 'other_real', 'input', 'truth')
        if (path := getattr(args, name)) and not path.endswith('.npz')
    }
    fake = folders['fake']
    known = None if 'real' in folders else real_images.load(args.real, sha256)
    sizes = {name: _sizes(folder) for name, folder in folders.items()}
    unavailable = _unavailable(sizes, known, weights)
    left_out = {name: unavailable[name] for name in metrics if name in unavailable}
    metrics = [name for name in metrics if name not in unavailable]
    if not metrics:
        raise ValueError(f'no score can be computed: {_listed(left_out)}')

    direction = Direction(
        Features(weights, args.batch_size),
        metrics,
        count=len(fake),
        real=known or folders['real'],
        inputs=_partners(folders, 'input'),
        truth=_partners(folders, 'truth'),
        other=folders.get('other_real'),
    )
    recorded = report.record(direction, direction.score(as_they_are(fake)))
    recorded['warnings'] += _warnings(fake, sizes)
    print(report.table(f'{args.fake} against {args.real}', recorded))
    if left_out:
        print(f'  not computed: {_listed(left_out)}')
    if args.save_real:
        real_images.save(args.save_real, direction.real.features, sha256)
    if not args.output:
        return []
    described = {
        name: {
            'path': getattr(args, name),
            'images': len(folder),
            'sizes': sizes[name],
            'formats': _formats(folder),
        }
        for name, folder in folders.items()
    }
    protocol = {'real': args.real, 'folders': described, 'scored_files': _names(fake)}
    protocol |= report.protocol(metrics, sha256)
    report.write(Path(args.output), recorded | {'not_computed': left_out, 'protocol': protocol})
    return [Path(args.output)]


def _unavailable(
    sizes: Mapping[str, Mapping[str, int]],
    known: Mapping[str, np.ndarray] | None,
    weights: Mapping | None,
) -> dict[str, str]:
    """{metric: why} of those that these folders and features do not allow."""
    reasons = {'cycle': 'needs --workdir', 'labels': 'needs --predictions'}
    if not weights:
        reasons |= dict.fromkeys(NEED_WEIGHTS, 'needs the Inception weights')
    if 'truth' not in sizes:
        reasons['paired'] = 'needs --truth'
    if len({size for found in sizes.values() for size in found}) > 1:
        reasons |= dict.fromkeys(NEED_ONE_SIZE, 'needs pictures of one size')
    if known is not None:
        reasons['monitors'] = 'needs the pictures of --real'
        unknown = [name for name, kind in DISTRIBUTION.items() if kind not in known]
        reasons |= dict.fromkeys(unknown, 'not in the file of --real')
    return reasons


def _listed(reasons: Mapping[str, str]) -> str:
    return ', '.join(f'{name} ({why})' for name, why in reasons.items())


def _partners(folders: Mapping[str, Folder], name: str) -> View | None:
    """The pictures of another folder that belong to those of --fake, in their order."""
    if name not in folders:
        return None
    other = folders[name]
    return View(
        other, pairing.match(_names(folders['fake']), _names(other), f'--fake and --{name}')
    )


def open_folder(flag: str, path: str) -> Folder:
    """The pictures of a folder that a flag names.

    Raises:
      ValueError: no such folder, or no picture in it.
    """
    flag = f'--{flag.replace("_", "-")}'
    if not Path(path).is_dir():
        raise ValueError(f'{flag}={path} is not a folder')
    return Folder(path, '', 3)


def _names(folder: Folder) -> list[str]:
    return [folder.name(i) for i in range(len(folder))]


def _sizes(folder: Folder) -> dict[str, int]:
    """How many pictures there are of each size, 'height x width'."""
    sizes = (folder.size(i) for i in range(len(folder)))
    return dict(collections.Counter(f'{height} x {width}' for height, width in sizes))


def _formats(folder: Folder) -> dict[str, int]:
    return dict(collections.Counter(Path(name).suffix.lower() for name in _names(folder)))


def _warnings(fake: Folder, sizes: Mapping[str, Mapping[str, int]]) -> list[str]:
    found = []
    if len({size for name in ('fake', 'real') for size in sizes.get(name, ())}) > 1:
        found.append('pictures differ in size: how sharp they are is scored too')
    if _formats(fake).keys() & {'.jpg', '.jpeg'}:
        found.append('--fake has JPEG files, whose artefacts are scored too: write PNG')
    return found
