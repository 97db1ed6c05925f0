"""Trained networks in the forms that other programs read."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from cyclegan_jax import ops
from cyclegan_jax.errors import UserError
from cyclegan_jax.inference import pictures, space, webpage
from cyclegan_jax.inference.pytorch_files import to_huggan, to_pytorch
from cyclegan_jax.inference.runtimes import Generator, with_onnxruntime
from cyclegan_jax.interop import Network, generators, save_pretrained
from cyclegan_jax.storage import write_bytes

Networks = Mapping[str, Network]

_WITHOUT_UNITS = ('pytorch', 'huggan', 'stablehlo')
_TOLERANCE = 1e-4  # of an exported program against JAX; its values are in [-1, 1]


def to_safetensors(networks: Networks, folder: Path, *, half: bool = False) -> str | None:
    """Our exchange format.

    Args:
      half: writes the generators alone, in half precision: a small model to translate with.

    Returns:
      With `half`, by how much that changes pictures.

    Raises:
      UserError: half precision cannot hold a weight.
    """
    if not half:
        save_pretrained(folder, networks)
        return None
    translating, notes = generators(networks), []
    for name, network in translating.items():
        rounded = network._replace(params=jax.tree.map(_rounded, network.params))
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(rounded.params)):
            raise UserError(
                f'{name} has weights that float16 cannot hold; leave out --dtype=float16.'
            )
        calls = (jax.jit(_forward(n)) for n in (network, rounded))
        change = _change(*calls, network.channels[0])
        notes.append(
            f'{name}: half-precision weights, which change pixels by {change} of 255 at most.'
        )
    save_pretrained(folder, translating, np.float16)
    return '\n'.join(notes)


def _rounded(leaf: np.ndarray) -> np.ndarray:
    with np.errstate(over='ignore'):  # what is too large is infinite
        return np.asarray(leaf).astype(np.float16).astype(np.float32)


def to_stablehlo(networks: Networks, folder: Path) -> None:
    """a2b.stablehlo and b2a.stablehlo, for `jax.export.deserialize`, parameters included.

    (n, h, w, c) float32 in [-1, 1] to the same, for any n and for all h and w that the network can
    halve, on CPU, GPU and TPU.

    Raises:
      UserError: flatbuffers is not installed.
      UserError: run back, the program gives something else.
    """
    from jax import export as jax_export

    for name, network in generators(networks).items():
        forward, module = jax.jit(_forward(network)), network.module()
        multiple = module.size_multiple
        least = -(-module.smallest // multiple)
        shape = jax_export.symbolic_shape(
            f'n, {multiple}*h, {multiple}*w, {network.channels[0]}',
            constraints=[f'h >= {least}', f'w >= {least}'],
        )
        image = jax.ShapeDtypeStruct(shape, jnp.float32)
        with ops.target('every'):
            exported = jax_export.export(forward, platforms=('cpu', 'cuda', 'tpu'))(image)
        try:
            content = exported.serialize()
        except ImportError as error:
            raise UserError(
                "--format=stablehlo needs flatbuffers: pip install 'cyclegan_jax[export]'"
            ) from error
        program = jax_export.deserialize(bytearray(content))
        path = folder / f'{name}.stablehlo'
        _check(path, network, lambda x, program=program: np.asarray(program.call(x)))
        write_bytes(path, content)


def to_onnx(networks: Networks, folder: Path) -> None:
    """a2b.onnx and b2a.onnx: (n, c, h, w) float32 in [-1, 1] to the same, for any n, h and w.

    Raises:
      UserError: onnx or onnxruntime is not installed.
      UserError: run by onnxruntime, the model gives something else.
    """
    for name, network in generators(networks).items():
        content, call = _onnx(network, name)
        _check(path := folder / f'{name}.onnx', network, call)
        write_bytes(path, content)


def to_web(
    networks: Networks, folder: Path, *, domains: Mapping[str, str], runtime: Path | None = None
) -> str:
    """A page that translates pictures in the visitor's browser, by ONNX files; see `webpage`.

    Kernels are kept in half precision where that changes no pixel of `webpage.photographs` by more
    than a level of 255.

    Args:
      domains: what 'a' and 'b' are called.
      runtime: folder or archive of the npm package onnxruntime-web; see `webpage.find_runtime`.

    Returns:
      How to see it, and the precision.

    Raises:
      UserError: as `to_onnx` and `find_runtime`; or images that no browser shows.
    """
    webpage.check_folder(folder)
    shown = _shown(networks)
    files = webpage.find_runtime(runtime)
    models, notes = {}, []
    for name, network in shown.items():
        (full, call), (half, call_half) = (
            _onnx(network, name, half_weights=half) for half in (False, True)
        )
        _check(folder / f'{name}.onnx', network, call)
        change = _change(call, call_half, network.channels[0])
        models[name] = half if change <= 1 else full
        notes.append(
            f'{name}: half-precision weights, which change pixels by {change} of 255 at most.'
            if change <= 1
            else f'{name}: float32 weights, as those of half precision change pixels by {change} '
            'of 255.'
        )
    webpage.write(folder, models, shown, domains, files)
    return '\n'.join(
        [*notes, f'To see it: python -m http.server --directory {folder}, and open localhost:8000']
    )


def to_space(networks: Networks, folder: Path) -> str:
    """A Space of the Hugging Face hub, as `space` says; raises UserError as `to_web` does."""
    return space.write(folder, _shown(networks))


_WRITERS = {
    'safetensors': to_safetensors,
    'pytorch': to_pytorch,
    'huggan': to_huggan,
    'stablehlo': to_stablehlo,
    'onnx': to_onnx,
    'web': to_web,
    'space': to_space,
}
FORMATS = tuple(_WRITERS)


def export(networks: Networks, folder: Path, format: str, **options) -> str | None:
    """Writes to a folder, in one of FORMATS. What is made of it, and stays empty, is removed.

    Args:
      options: of the function for that format.

    Returns:
      What there is to say of the files, if anything.

    Raises:
      UserError: as the functions above; or the folder is a file, or the workdir of a run.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f'--output={folder} is a file; name a folder, which is made if need be.')
    if (folder / 'checkpoints').is_dir():
        raise UserError(
            f'--output={folder} is the workdir of a run, whose config.json would be replaced; name '
            'another folder.'
        )
    others = [n for n in generators(networks).values() if not n.photographs]
    if format in _WITHOUT_UNITS and others:
        ends = {pixels.describe() for network in others for pixels in network.pixels}
        logging.warning(
            'what -1 to 1 stand for (%s) is not said by --format=%s; safetensors and onnx say it',
            '; '.join(sorted(ends)),
            format,
        )
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return _WRITERS[format](networks, folder, **options)
    except BaseException:
        with contextlib.suppress(OSError):  # one that is not empty
            for path in new:
                path.rmdir()
        raise


def _onnx(network: Network, name: str, *, half_weights: bool = False) -> tuple[bytes, Generator]:
    """An ONNX file, and the generator that it is: (n, h, w, c) to the same."""
    try:
        from cyclegan_jax.inference.onnx_graph import to_onnx as convert

        content = convert(network, name, half_weights=half_weights).SerializeToString()
        return content, with_onnxruntime(content)
    except ImportError as error:
        raise UserError(
            "ONNX needs onnx and onnxruntime: pip install 'cyclegan_jax[export]'"
        ) from error


def _change(call: Generator, other: Generator, channels: int) -> int:
    """By how many of 255 levels a pixel differs at most."""
    levels = [
        [np.round((f(image) + 1) * 127.5) for image in webpage.photographs(channels)]
        for f in (call, other)
    ]
    change = max(float(np.abs(x - y).max()) for x, y in zip(*levels, strict=True))
    return int(change) if np.isfinite(change) else 255


def _shown(networks: Networks) -> dict[str, Network]:
    """The generators; raises UserError for images that no browser shows."""
    shown = generators(networks)
    for name, network in shown.items():
        pictures.check_photographs(name, network, 'choose --format=onnx')
    return shown


def _forward(network: Network) -> Callable[[jax.Array], jax.Array]:
    module = network.module()
    return lambda images: module.apply({'params': network.params}, images)


def _check(path: Path, network: Network, call: Generator) -> None:
    """Compares with JAX, on two images that are not square."""
    side = max(16, network.module().size_multiple)
    shape = 2, side, 2 * side, network.channels[0]
    images = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    error = np.abs(call(images) - np.asarray(_forward(network)(images))).max()
    if not error < _TOLERANCE:
        raise UserError(f'{path} gives other images than JAX, by up to {error:.1e}; not exported.')
