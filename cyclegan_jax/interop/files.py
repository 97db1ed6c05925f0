"""Files of named arrays: safetensors, and PyTorch's .pth and .bin, of which no code is run."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

Tensors = dict[str, np.ndarray]

SUFFIXES = ('.safetensors', '.pth', '.pt', '.bin')


def read_tensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """The arrays of a file, and the strings that a safetensors file may carry beside them.

    Raises:
      ValueError: the file is empty, damaged, a web page, or holds more than tensors.
      ImportError: a .pth or .bin file, and torch is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f'{path} is no file of weights; expected {", ".join(SUFFIXES)}.')
    with path.open('rb') as file:
        start = file.read(32)
    if not start:
        raise ValueError(f'{path} is empty; fetch it again.')
    if start.lstrip()[:1] == b'<':
        raise ValueError(f'{path} is a web page, not weights; fetch it again.')
    if start.startswith(b'version https://git-lfs'):
        raise ValueError(f'{path} is a Git LFS pointer, not the weights; run `git lfs pull`.')
    if path.suffix == '.safetensors':
        return _read_safetensors(path)
    return _read_torch(path, is_zip=start.startswith(b'PK')), {}


def write_safetensors(path: Path, tensors: Tensors, metadata: Mapping[str, str] = {}) -> None:
    """`metadata`, strings, goes into the file's header. Readers in PyTorch want format: 'pt'."""
    path.write_bytes(save(tensors, metadata=dict(metadata)))


def write_torch(path: Path, tensors: Tensors) -> None:
    """A state dict as `torch.save` writes it.

    Raises:
      ImportError: torch is not installed.
    """
    torch = _import_torch(path)
    torch.save({key: torch.from_numpy(tensor.copy()) for key, tensor in tensors.items()}, path)


def _read_safetensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    try:
        with safe_open(path, framework='numpy') as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f'{path} is not a whole safetensors file ({error}).') from error


def _read_torch(path: Path, is_zip: bool) -> Tensors:
    torch = _import_torch(path)
    try:
        # torch itself does not notice a flipped bit: read every byte against its checksum first.
        damaged = zipfile.ZipFile(path).testzip() if is_zip else None
        tensors = None if damaged else torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f'{path} is not a plain state dict: it is no PyTorch file, or holds Python objects '
            'beside tensors, which are not loaded because they could run any code.'
        ) from error
    except Exception as error:  # on bytes that are no pickle at all, torch raises nearly anything
        reason = str(error).partition('\n')[0] or 'it ends too early'
        raise ValueError(f'{path} is damaged or holds no weights: {reason}') from error
    if damaged:
        raise ValueError(f'{path} is damaged: {damaged} fails its checksum; fetch it again.')
    if not isinstance(tensors, Mapping) or not all(map(torch.is_tensor, tensors.values())):
        raise ValueError(
            f'{path} is not a state dict: expected a dict of tensors and nothing else.'
        )
    return {key: tensor.float().numpy() for key, tensor in tensors.items()}


def _import_torch(path: Path):
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{path} needs torch: pip install 'cyclegan_jax[torch]', or use safetensors instead."
        ) from error
    return torch
