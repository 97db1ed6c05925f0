"""Weights of the FID network: checked, and brought into the form that `inception` computes with.

The file behind everybody's FID is pytorch-fid's, which needs torch to be read; `convert` writes a
copy that does not.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

from cyclegan_jax.errors import UserError, describe, shortlist
from cyclegan_jax.evaluation import inception
from cyclegan_jax.interop.files import read_tensors, write_safetensors

FILE = 'pt_inception-2015-12-05-6726825d.pth'
SHA256_PREFIX = '6726825d'
VARIABLE = 'CYCLEGAN_JAX_INCEPTION'
MISSING = (
    'there are no Inception weights of 2015-12-05, which are not part of this package: fetch '
    f'{FILE} (about 96 MB, sha256 starts with {SHA256_PREFIX}) from '
    f'https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE} or '
    'https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/'
    f'weights-inception-2015-12-05-6726825d.pth, and name it by --inception or {VARIABLE}'
)

_BATCH_NORM = ('weight', 'bias', 'running_mean', 'running_var')
_BATCH_NORM_EPS = 1e-3
_SHA256 = 'source_sha256'  # in the header of a converted file

Params = dict[str, tuple[np.ndarray, np.ndarray]]


class WeightsError(UserError):
    """A file that is not the FID network's weights."""


class Weights(NamedTuple):
    """What `inception.features` takes, and the sha256 of the .pth it comes from; or why not."""

    params: Params | None
    sha256: str | None
    missing: str = ''


NO_WEIGHTS = Weights(None, None, MISSING)


def find(path: str | os.PathLike | None, wanted: bool = True) -> Weights:
    """The weights that `path`, or else the environment, names; none unless they are `wanted`.

    What the environment names may be wrong: a warning, since not all scores need it.

    Raises:
      WeightsError: `path` does not hold them.
    """
    variable = os.environ.get(VARIABLE)
    if not wanted or not (path or variable):
        return NO_WEIGHTS
    try:
        return Weights(*load(path or variable))
    except (WeightsError, OSError) as error:
        if path:
            raise
        logging.warning('%s=%s: %s', VARIABLE, variable, describe(error))
        return Weights(None, None, describe(error))


def load(path: str | os.PathLike) -> tuple[Params, str]:
    """Reads pytorch-fid's .pth, which needs torch, or what `convert` made of it.

    Returns:
      The parameters that `inception.features` takes, and the sha256 of the .pth they come from.

    Raises:
      WeightsError: no such file, not the right one, damaged, of a layout that is not expected, or a
        .pth file, and torch is not installed.
    """
    tensors, sha256 = _read(Path(path))
    return fold(tensors), sha256


def convert(source: str | os.PathLike, target: str | os.PathLike) -> None:
    """Copies the weights to a .safetensors file, which is read without torch."""
    tensors, sha256 = _read(Path(source))
    write_safetensors(Path(target), tensors, {_SHA256: sha256})


def fold(tensors: Mapping[str, np.ndarray]) -> Params:
    """A torch state dict as convolutions with bias, the batch norms folded in (in float64).

    A `module.` prefix is stripped; the classifier `fc` and the batch counters are not needed.

    Raises:
      WeightsError: keys are unknown, missing or of another shape; it lists them.
    """
    found = {
        name.removeprefix('module.'): value
        for name, value in tensors.items()
        if not name.removeprefix('module.').startswith('fc.')
        and not name.endswith('.num_batches_tracked')
    }
    _check_layout(found)
    params = {}
    for unit in inception.kernel_shapes():
        kernel = found[f'{unit}.conv.weight'].astype(np.float64).transpose(2, 3, 1, 0)
        scale, shift, mean, variance = (
            found[f'{unit}.bn.{name}'].astype(np.float64) for name in _BATCH_NORM
        )
        scale = scale / np.sqrt(variance + _BATCH_NORM_EPS)
        bias = shift - mean * scale
        params[unit] = (kernel * scale).astype(np.float32), bias.astype(np.float32)
    return params


def _read(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """The state dict, and the sha256 of the .pth it comes from, which is checked first."""
    if not path.is_file():
        raise WeightsError(f'Inception weights: {path} is not a file; wanted {FILE}.')
    converted = path.suffix == '.safetensors'
    if not converted:
        with path.open('rb') as file:
            sha256 = hashlib.file_digest(file, 'sha256').hexdigest()
        size = path.stat().st_size
        right = round(size / 1e6) in (95, 96)
        size = 'the right size, but' if right else f'{size} bytes (not about 96 MB) and'
        _check_sha256(sha256, f'{path} has {size}')
    try:
        tensors, header = read_tensors(path)
    except UserError as error:
        raise WeightsError(f'Inception weights: {error}') from error
    if converted:
        sha256 = header.get(_SHA256, 'none')
        _check_sha256(sha256, f'{path} was converted from a file with')
    return tensors, sha256


def _check_sha256(sha256: str, what: str) -> None:
    if not sha256.startswith(SHA256_PREFIX):
        raise WeightsError(
            f'Inception weights: {what} a sha256 that starts with {sha256[:8]}, wanted '
            f'{SHA256_PREFIX}: a truncated download, or another file; fetch {FILE} again.'
        )


def _check_layout(found: Mapping[str, np.ndarray]) -> None:
    wanted = {}
    for unit, shape in inception.kernel_shapes().items():
        wanted[f'{unit}.conv.weight'] = shape
        wanted |= {f'{unit}.bn.{name}': shape[:1] for name in _BATCH_NORM}
    problems = {
        'missing': [name for name in wanted if name not in found],
        'unknown': [name for name in found if name not in wanted],
        'of another shape': [
            f'{name} {found[name].shape} instead of {shape}'
            for name, shape in wanted.items()
            if name in found and found[name].shape != shape
        ],
    }
    lists = '; '.join(f'{kind}: {shortlist(names, 5)}' for kind, names in problems.items() if names)
    if lists:
        raise WeightsError(f'Inception weights: not the layout of {FILE}; {lists}.')
