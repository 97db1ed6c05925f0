"""What is known of a trained model beside its weights: what the run that trained it kept."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from PIL import Image

from cyclegan_jax import storage
from cyclegan_jax.checkpoint_reader import CheckpointReader
from cyclegan_jax.data import decode
from cyclegan_jax.data.images import as_size
from cyclegan_jax.data.sources import MissingSplit, open_source
from cyclegan_jax.errors import UserError, describe
from cyclegan_jax.interop import Network, load_pretrained, shown_weights
from cyclegan_jax.interop.pretrained import is_workdir, load_workdir

SAMPLES = 'samples.png'  # in an export
EXAMPLES = 'examples'  # in an export
RUN = 'run'  # the field of an export's config.json

# What of a config a card shows: nothing that names a place on somebody's disk.
_SECTIONS = ('generator', 'discriminator', 'loss', 'optimizer', 'schedule')
_FIELDS = ('seed', 'batch_size', 'dtype', 'pool_size', 'average', 'licence')
_EXAMPLES = 4  # pictures of a domain
_DATA = ('source', 'load_size', 'crop_size', 'resize', 'flip', 'channels_a', 'channels_b')


@dataclass(frozen=True)
class About:
    """What is known of a model beside its networks.

    domains: what 'a' and 'b' are called.
    run: JSON values, {} if nothing is known: 'domains', 'step'; 'config', what of it a card shows.
      Any other may be missing: 'weights', 'average' or 'trained'; 'data', the set's name;
      'images', {'a': number of training images, 'b'}; 'init_from', the model that it began with;
      'samples', the step of the samples;
      'evaluation', what evaluation/step_N.json says of each direction; 'protocol'.
    samples: a picture of samples, if there is one.
    """

    domains: Mapping[str, str] = field(default_factory=lambda: {'a': 'A', 'b': 'B'})
    run: Mapping[str, Any] = field(default_factory=dict)
    samples: Path | None = None


def load(
    model: str, step: int | str | None = None, weights: str | None = None
) -> tuple[dict[str, Network], About]:
    """All networks of `interop.load_pretrained`, and what is known of them."""
    path = storage.as_path(model, '--model')
    if is_workdir(path):
        networks, config, step = load_workdir(path, step, weights=weights, discriminators=True)
        return networks, _of_run(path, config, step, weights)
    networks = load_pretrained(model, step=step, weights=weights, discriminators=True)
    config = path / 'config.json'
    found = storage.read_json(config) if path.is_dir() and config.is_file() else {}
    if RUN not in found:
        return networks, About()
    storage.check_fields(found, {RUN: dict}, str(config))
    run, samples = found[RUN], path / SAMPLES
    _check(run, f'{config}, {RUN}')
    return networks, About(run['domains'], run, samples if samples.is_file() else None)


def write_examples(model: str, folder: Path) -> dict[str, list[Path]]:
    """Writes a few test pictures of a model, as PNG: those of its run's data, or of its export.

    Returns:
      Their paths, {'a': ..., 'b': ...}; a domain without is not there. Where the data cannot be
      read any more, a warning says so.
    """
    path = storage.as_path(model, '--model')
    written = {}
    try:
        if is_workdir(path):
            data = storage.read_json(path / 'config.json')['data']
            found = {domain: _test_images(data, domain) for domain in 'ab'}
        else:
            found = {d: map(decode, sorted(path.glob(f'{EXAMPLES}/{d}_*.png'))) for d in 'ab'}
        for domain, images in found.items():
            for number, image in enumerate(images):
                file = folder / f'{domain}_{number + 1}.png'
                file.parent.mkdir(parents=True, exist_ok=True)
                pixels = image[:, :, 0] if image.shape[2] == 1 else image
                with storage.whole(file) as temporary:
                    Image.fromarray(pixels).save(temporary, 'PNG')
                written.setdefault(domain, []).append(file)
    except (UserError, OSError, KeyError) as error:
        logging.warning('%s: no example pictures (%s)', model, describe(error))
    return written


def _test_images(data: Mapping, domain: str) -> Iterator[np.ndarray]:
    """Some of a run's test pictures, uint8 (h, w, c), else of its training pictures."""
    fields = {
        'path': data.get('path', ''),
        'name': (data.get('name_b') if domain == 'b' else None) or data.get('name', ''),
        'column': data.get(f'column_{domain}'),
        'channels': data[f'channels_{domain}'],
        'domain': domain,
        'size': as_size('data.crop_size', data['crop_size']),
    }
    try:
        source = open_source(
            data['source'], **fields, split=data[f'test_split_{domain}'], test=True
        )
    except MissingSplit:
        source = open_source(data['source'], **fields, split=data[f'split_{domain}'], test=False)
    for number in np.linspace(0, len(source) - 1, min(_EXAMPLES, len(source))).astype(int):
        yield source[int(number)]


def _of_run(workdir: Path, config: Mapping, step: int, weights: str | None = None) -> About:
    images = CheckpointReader(workdir / 'checkpoints').metadata(step).get('lengths')
    domains = {end: str(config.get(f'domain_{end}', end.upper())) for end in 'ab'}
    data = config['data']
    shown = {name: config[name] for name in (*_FIELDS, *_SECTIONS) if name in config}
    shown['data'] = {name: data[name] for name in _DATA if name in data}
    names = filter(None, (data.get('name') or data.get('path'), data.get('name_b')))
    run = {
        'domains': domains,
        'step': step,
        'weights': shown_weights(weights, config),
        'config': shown,
        'data': ' and '.join(map(_public, names)),
        'images': images,
    }
    if begun := config.get('init_from'):
        run['init_from'] = _public(begun)
    paths = {p.stem.removeprefix('step_'): p for p in workdir.glob('samples/step_*.png')}
    sampled = {int(number): path for number, path in paths.items() if number.isdecimal()}
    nearest = max((number for number in sampled if number <= step), default=None)
    if nearest is not None:
        run['samples'] = nearest
    scored = workdir / 'evaluation' / f'step_{step}.json'
    if scored.is_file():
        found = storage.read_json(scored)
        storage.check_fields(found, {'protocol': dict}, str(scored))
        private = ('config', 'scored_files')
        protocol = {k: v for k, v in found['protocol'].items() if k not in private}
        if protocol.get('weights', run['weights']) == run['weights']:
            run['evaluation'] = {name: found[name] for name in ('a2b', 'b2a') if name in found}
            run['protocol'] = protocol
            _check(run, str(scored))
    return About(domains, run, sampled.get(nearest))


def _check(run: Mapping, where: str) -> None:
    """Raises UserError if what an export or an evaluation wrote is not as they write it."""
    storage.check_fields(run, {'domains': dict, 'step': int, 'config': dict}, where)
    storage.check_fields(run['domains'], {'a': str, 'b': str}, f'{where}, domains')
    for name, record in run.get('evaluation', {}).items():
        fields = {'scores': dict, 'baselines': dict, 'images': int, 'real_images': int}
        storage.check_fields(record, fields | {'warnings': list}, f'{where}, {name}')


def _public(name: str) -> str:
    """A data set's name; of a place on a disk or in a bucket no more than its end."""
    is_place = name.startswith(('/', '.', '~')) or '\\' in name or storage.in_bucket(name)
    return Path(name).name if is_place else name
