"""Trained networks, wherever they are: a run's workdir, an export, PyTorch files, the hub.

Our own exchange format is a safetensors file with both generators, under names such as
'a2b/in/kernel'. Its header carries the architecture, so that the one file is enough.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
from flax import traverse_util

from cyclegan_jax.errors import UserError, shortlist
from cyclegan_jax.interop import hub
from cyclegan_jax.interop.files import read_tensors, write_safetensors
from cyclegan_jax.interop.state_dict import (
    Network,
    check_shapes,
    check_spec,
    from_state_dict,
    full_spec,
    param_shapes,
)
from cyclegan_jax.pixels import PHOTOGRAPHS, ends_to_json, saved_ends, saved_pixels
from cyclegan_jax.storage import as_path, check_fields, parse_json, write_json

if TYPE_CHECKING:  # orbax takes a second to import
    from cyclegan_jax.checkpoint_reader import CheckpointReader

ROLES = {'a2b': 'generator', 'b2a': 'generator', 'a': 'discriminator', 'b': 'discriminator'}

GENERATORS_FILE = 'model.safetensors'
DISCRIMINATORS_FILE = 'discriminators.safetensors'
_REVERSE_FILE = 'b2a/model.safetensors'  # of an export to huggan, which has one generator a file
_GENERATOR_FILES = (GENERATORS_FILE, 'pytorch_model.bin')  # in the order in which they are tried
_HEADER = 'cyclegan_jax'

# What the two PyTorch code bases call the four networks. Their D_A are not the same.
PYTORCH_NAMES = {'a2b': 'net_G_A', 'b2a': 'net_G_B', 'a': 'net_D_B', 'b': 'net_D_A'}
HUGGAN_NAMES = {'a2b': 'G_AB', 'b2a': 'G_BA', 'a': 'D_A', 'b': 'D_B'}
# latest_net_G_A.pth, 200_net_D_B.pth; a generator that was published alone: latest_net_G.pth.
_PYTORCH_FILE = re.compile(r'(?P<epoch>latest|\d+)_(?P<name>net_(?:G|[GD]_[AB]))\.pth')
_HUGGAN_FILE = re.compile(r'(?P<name>G_AB|G_BA|D_A|D_B)_(?P<epoch>\d+)\.pth')


def load_pretrained(
    model: str | Path,
    *,
    direction: str | None = None,
    step: int | str | None = None,
    weights: str | None = None,
    discriminators: bool = False,
) -> dict[str, Network]:
    """Loads trained networks.

    Args:
      model: a workdir; a folder that the export wrote, or that a PyTorch code base saved its
        networks in; a .safetensors, .pth, .pt or .bin file; or a repository of the hub, user/name.
      direction: what a generator that is alone in its file maps; 'a2b' if not even the file's name
        says it.
      step: of a workdir, or 'best'; or epoch of a PyTorch folder; the latest by default.
      weights: of a workdir: 'trained', or their 'average', the default where the run keeps one.
      discriminators: whether to load them too, where there are any.

    Returns:
      Generators as 'a2b' and 'b2a' (or one of them), discriminators as 'a' and 'b'.

    Raises:
      UserError: there is nothing to load, or it does not fit, or is not finite; one line says why.
    """
    path = as_path(model, '--model')
    if is_workdir(path):
        return load_workdir(path, step, weights=weights, discriminators=discriminators)[0]
    if weights is not None:
        raise UserError(
            f'--weights is {weights}, but {model} is not the workdir of a run, which alone can '
            'have both; leave it out.'
        )
    if path.is_file():
        files = {path: _name_of(path)}
    elif path.is_dir():
        files = _files_in(path, step)
    elif hub.is_repo_id(str(model)) and not path.parent.is_dir():
        optional = (_REVERSE_FILE, DISCRIMINATORS_FILE)[: 1 + discriminators]
        files = _files_in(hub.fetch(str(model), _GENERATOR_FILES, optional), None)
    else:
        raise UserError(f'{model} does not exist, and is no hub repository (user/name) either.')
    networks = {}
    for file, name in files.items():
        judges = name in ('a', 'b') or file.name == DISCRIMINATORS_FILE
        if discriminators or not judges:
            networks |= _load_file(file, name, direction)
    if not networks:
        raise UserError(
            f'{model} holds no generator: expected checkpoints/, {GENERATORS_FILE}, '
            f'pytorch_model.bin, or files such as latest_net_G_A.pth or G_AB_199.pth.'
        )
    for name, network in networks.items():
        _check_finite(network.params, f'{model}, {name},')
    return networks


def is_workdir(path: Path) -> bool:
    """Whether a folder is that of a run."""
    return (path / 'checkpoints').is_dir()


def load_workdir(
    path: Path,
    step: int | str | None = None,
    *,
    weights: str | None = None,
    discriminators: bool = False,
) -> tuple[dict[str, Network], dict, int]:
    """The networks of a run; arguments as of `load_pretrained`, result as of `load_checkpoint`."""
    from cyclegan_jax.checkpoint_reader import CheckpointReader

    checkpoints = CheckpointReader(path / 'checkpoints')
    step = _checkpoint(checkpoints.best() if step == 'best' else step)
    return load_checkpoint(checkpoints, step, weights=weights, discriminators=discriminators)


def shown_weights(weights: str | None, config: Mapping) -> str:
    """Which generators `weights` of `load_pretrained` stands for, in a run of this config."""
    return weights or ('average' if config.get('average') else 'trained')


def save_pretrained(folder: Path, networks: Mapping[str, Network], dtype=np.float32) -> None:
    """Writes our exchange format, generators and discriminators to a file each, and config.json.

    The config repeats the headers of the files, for people and for the hub. Files of half precision
    are read as float32, as all others are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {}
    for file, role in ((GENERATORS_FILE, 'generator'), (DISCRIMINATORS_FILE, 'discriminator')):
        chosen = {name: n for name, n in networks.items() if n.role == role}
        header = {
            n: {'role': role, 'spec': c.spec, 'channels': c.channels} | ends_to_json(c.pixels)
            for n, c in chosen.items()
        }
        if chosen:
            params = {name: jax.device_get(network.params) for name, network in chosen.items()}
            params = jax.tree.map(lambda leaf: np.asarray(leaf, dtype), params)
            tensors = traverse_util.flatten_dict(params, sep='/')
            write_safetensors(folder / file, tensors, {_HEADER: json.dumps(header)})
        config |= header
    write_json(folder / 'config.json', {_HEADER: config})


def disagreements(
    networks: Mapping[str, Network],
    *,
    channels: Mapping[str, int],
    generator: Mapping,
    discriminator: Mapping,
) -> list[str]:
    """Where a config differs from weights: 'generator.width is 32, a2b of the weights has 64'.

    Dropout has no weights, and may differ.

    Args:
      networks: from `load_pretrained`.
      channels, generator, discriminator: the config's, as `networks.make_networks` takes them.
    """
    config = {'generator': generator, 'discriminator': discriminator}
    lines = {}  # by what is said, so that both generators say it once
    for name, network in networks.items():
        spec = full_spec(network.role, config[network.role])
        pairs = {
            f'{network.role}.{field}': (spec.get(field), theirs)
            for field, theirs in network.spec.items()
            if field != 'dropout'
        }
        source, _, target = name.partition('2')
        for domain, theirs in zip([source, target], network.channels, strict=True):
            if domain:
                pairs[f'data.channels_{domain}'] = channels[domain], theirs
        for field, (ours, theirs) in pairs.items():
            if ours != theirs:
                line = f'{field} is {ours}, {name} of the weights has {theirs}'
                lines.setdefault((field, ours, theirs), line)
    return list(lines.values())


def load_checkpoint(
    checkpoints: 'CheckpointReader',
    step: int | None = None,
    *,
    weights: str | None = None,
    discriminators: bool = False,
) -> tuple[dict[str, Network], dict, int]:
    """The networks of one checkpoint of a run, and what they were trained with.

    Networks of another step of the same run have an equal module (`make_module`), so that what was
    compiled for one serves all.

    Args:
      step: the newest good one by default.
      weights: see `load_pretrained`.

    Returns:
      (networks by name, the run's config, step).

    Raises:
      UserError: there is no such checkpoint, or its arrays are not those of its config.
    """
    params, metadata, step = checkpoints.restore_networks(
        step, discriminators=discriminators, weights=weights
    )
    where = f'the checkpoint of step {step} in {checkpoints.directory}'
    check_fields(metadata, {'config': dict}, where)
    config = metadata['config']
    check_fields(config, {'data': dict, 'generator': dict, 'discriminator': dict}, where)
    check_fields(config['data'], {'channels_a': int, 'channels_b': int}, f'{where}: data')
    channels = {domain: config['data'][f'channels_{domain}'] for domain in 'ab'}
    pixels = saved_pixels(metadata, where) or dict.fromkeys('ab', PHOTOGRAPHS)
    networks = {}
    for name, role in ROLES.items():
        if role == 'generator' or discriminators:
            source, _, target = name.partition('2')
            ends = channels[source], channels.get(target, 1)
            found = traverse_util.flatten_dict(params.get(name, {}), sep='/')
            networks[name] = _network(name, config[role], ends, found, f'{where}, {name}')
            if role == 'generator':
                of_ends = pixels[source], pixels[target]
                networks[name] = networks[name]._replace(pixels=of_ends)
            _check_finite(networks[name].params, f'{where}, {name},')
    return networks, config, step


def _checkpoint(step: int | str | None) -> int | None:
    if step is not None and not str(step).isdecimal():
        raise UserError(f'--step is {step!r}; it must be a number or best.')
    return None if step is None else int(step)


def _load_file(path: Path, name: str | None, direction: str | None) -> dict[str, Network]:
    """All networks of a file; `name` is what the file's own name says of it."""
    tensors, metadata = read_tensors(path)
    if _HEADER in metadata:
        return _from_exchange(tensors, parse_json(metadata[_HEADER], f'the header of {path}'), path)
    network = from_state_dict(tensors, str(path))
    if network.role == 'discriminator':
        if name not in ('a', 'b'):
            raise UserError(f'{path} is a discriminator; expected a generator.')
        return {name: network}
    return {name or direction or 'a2b': network}


def _from_exchange(tensors: dict, header: dict, path: Path) -> dict[str, Network]:
    networks = {}
    for name, described in header.items():
        where = f'{path}, {name}'
        if name not in ROLES:  # it will be the name of a file
            raise UserError(f'{path} describes {name!r}; expected only {", ".join(ROLES)}.')
        if not isinstance(described, dict):
            raise UserError(f'{where} is {str(described)[:60]!r}; it must be an object.')
        check_fields(described, {'role': str, 'spec': dict, 'channels': list}, where)
        if described['role'] != ROLES[name]:
            raise UserError(f'{where} is a {described["role"]!r}; it must be a {ROLES[name]}.')
        own = {
            key.partition('/')[2]: np.asarray(tensor, np.float32)
            for key, tensor in tensors.items()
            if key.startswith(f'{name}/')
        }
        network = _network(name, described['spec'], described['channels'], own, where)
        ends = saved_ends(described, network.channels, where)
        networks[name] = network._replace(pixels=ends)
    return networks


def _network(name: str, spec: Mapping, channels, found: Mapping, where: str) -> Network:
    """The network with these arrays, named 'in/kernel', if they are those of its description."""
    role = ROLES[name]
    spec = check_spec(role, spec, found, where)
    largest = max((leaf.size for leaf in found.values()), default=0)
    if len(channels) != 2 or not all(type(c) is int and 0 < c <= largest for c in channels):
        raise UserError(f'{where}: channels are {channels}; expected two numbers, in and out.')
    channels = tuple(channels)
    expected = traverse_util.flatten_dict(param_shapes(role, spec, channels), sep='/')
    check_shapes(found, expected, f'{where},')
    return Network(role, spec, channels, traverse_util.unflatten_dict(found, sep='/'))


def _check_finite(params: Mapping, where: str) -> None:
    """Raises UserError if a network would give pictures of nothing but NaN."""
    leaves = jax.tree.leaves(params)
    bad = sum(int(leaf.size - np.isfinite(leaf).sum()) for leaf in map(np.asarray, leaves))
    if bad:
        raise UserError(
            f'{where} has {bad} of {sum(leaf.size for leaf in leaves)} weights that are NaN or '
            'infinite; its training diverged, or the file is damaged: use an earlier one.'
        )


def _files_in(folder: Path, step: int | str | None) -> dict[Path, str | None]:
    """The files to load, and what each holds as far as its name says it."""
    for name in _GENERATOR_FILES:
        if (folder / name).is_file():
            others = {folder / DISCRIMINATORS_FILE: None, folder / _REVERSE_FILE: 'b2a'}
            found = {file: role for file, role in others.items() if file.is_file()}
            return {folder / name: 'a2b' if folder / _REVERSE_FILE in found else None} | found
    epochs = {}
    for file in sorted(folder.iterdir()):
        match = _PYTORCH_FILE.fullmatch(file.name) or _HUGGAN_FILE.fullmatch(file.name)
        if match:
            epochs.setdefault(match['epoch'], {})[file] = _name_of(file)
    newest = max(
        epochs, key=lambda epoch: np.inf if epoch == 'latest' else int(epoch), default=None
    )
    epoch = newest if step is None else str(step)
    if epoch is not None and epoch not in epochs:
        raise UserError(f'{folder} has no networks of epoch {epoch}, only {shortlist(epochs, 8)}.')
    return epochs.get(epoch, {})


def _name_of(path: Path) -> str | None:
    """'a2b', 'b2a', 'a' or 'b', if the name is one that the PyTorch code bases give."""
    for pattern, names in ((_PYTORCH_FILE, PYTORCH_NAMES), (_HUGGAN_FILE, HUGGAN_NAMES)):
        if match := pattern.fullmatch(path.name):
            return {theirs: ours for ours, theirs in names.items()}.get(match['name'])
    return None
