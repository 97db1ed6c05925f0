"""Files of named arrays: safetensors, and PyTorch's .pth and .bin, of which no code is run."""

import pickle
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cyclegan_jax.errors import UserError
from cyclegan_jax.storage import in_bucket, whole, write_bytes

Tensors = dict[str, np.ndarray]

SUFFIXES = ('.safetensors', '.pth', '.pt', '.bin')


def read_tensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """The arrays of a file, and the strings that a safetensors file may carry beside them.

    Raises:
      UserError: the file is empty, damaged, a web page, a program, or holds more than tensors; or
        torch is not installed, which .pth, .pt and .bin files need.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f'{path} is no file of weights; expected {", ".join(SUFFIXES)}.')
    with path.open('rb') as file:
        start = file.read(32)
    if not start:
        raise UserError(f'{path} is empty; fetch it again.')
    if start.lstrip()[:1] == b'<':
        raise UserError(f'{path} is a web page, not weights; fetch it again.')
    if start.startswith(b'version https://git-lfs'):
        raise UserError(f'{path} is a Git LFS pointer, not the weights; run `git lfs pull`.')
    if in_bucket(path):  # the libraries want a file of this machine
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, path.name)
            copy.write_bytes(path.read_bytes())
            try:
                return read_tensors(copy)
            except UserError as error:
                raise UserError(str(error).replace(str(copy), str(path))) from error
    if path.suffix == '.safetensors':
        return _read_safetensors(path)
    return _read_torch(path, is_zip=start.startswith(b'PK')), {}


def write_safetensors(path: Path, tensors: Tensors, metadata: Mapping[str, str] = {}) -> None:
    """`metadata`, strings, goes into the file's header. Readers in PyTorch want format: 'pt'."""
    write_bytes(path, save(tensors, metadata=dict(metadata)))


def write_torch(path: Path, tensors: Tensors) -> None:
    """A state dict as `torch.save` writes it.

    Raises:
      UserError: torch is not installed.
    """
    torch = _import_torch(path)
    contents = {key: torch.from_numpy(tensor.copy()) for key, tensor in tensors.items()}
    with whole(path) as temporary:
        torch.save(contents, temporary)


def _read_safetensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    try:
        with safe_open(path, framework='numpy') as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f'{path} is not a whole safetensors file ({error}).') from error
    except (TypeError, AttributeError) as error:  # of a type that NumPy does not have
        raise UserError(f'{path} has numbers of a type that is not read ({error}).') from error


def _read_torch(path: Path, is_zip: bool) -> Tensors:
    torch = _import_torch(path)
    contents = None
    try:
        if tarfile.is_tarfile(path):
            raise UserError(
                f'{path} is a tar archive, not weights; unpack it and name a file of it.'
            )
        if is_zip:
            # torch itself does not notice a flipped bit: read every byte against its checksum.
            archive = zipfile.ZipFile(path)
            if damaged := archive.testzip():
                raise UserError(f'{path} is damaged: {damaged} fails its checksum; fetch it again.')
            if any(name.endswith('/constants.pkl') for name in archive.namelist()):
                raise UserError(
                    f'{path} is a TorchScript program, not weights; in PyTorch, load it and '
                    'torch.save its state_dict().'
                )
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of pickle protocols, with advice for torch's authors
            contents = torch.load(path, map_location='cpu', weights_only=True)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(
            f'{path} is not a plain state dict: it is no PyTorch file, or holds Python objects '
            'beside tensors, which are not loaded because they could run any code.'
        ) from error
    except Exception as error:  # on bytes that are no pickle at all, torch raises nearly anything
        reason = str(error).partition('\n')[0] or 'it ends too early'
        raise UserError(f'{path} is damaged or holds no weights: {reason}') from error
    if isinstance(contents, Mapping) and isinstance(contents.get('state_dict'), Mapping):
        contents = contents['state_dict']  # as training scripts keep it, beside the epoch
    if not isinstance(contents, Mapping) or not all(
        isinstance(key, str) and torch.is_tensor(value) for key, value in contents.items()
    ):
        raise UserError(f'{path} is not a state dict: expected a dict of tensors and nothing else.')
    size = path.stat().st_size
    for key, tensor in contents.items():
        dense = tensor.layout == torch.strided and not (
            tensor.is_meta or tensor.is_quantized or tensor.is_complex()
        )
        # A tensor may repeat one number without end: the file is no bound of its memory.
        if not dense or tensor.numel() * tensor.element_size() > size:
            raise UserError(
                f'{path}: {key} is sparse, quantized, complex, or without values; expected plain '
                'tensors of real numbers.'
            )
    return {key: tensor.float().numpy() for key, tensor in contents.items()}


def _import_torch(path: Path):
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path} needs torch: pip install 'cyclegan_jax[torch]', or use safetensors instead."
        ) from error
    return torch
