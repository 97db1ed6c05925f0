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
from cyclegan_jax.inference.runtimes import Generator, with_onnxruntime
from cyclegan_jax.interop import Network, describe_spec, make_module, save_pretrained, to_state_dict
from cyclegan_jax.interop.files import write_safetensors, write_torch
from cyclegan_jax.interop.pretrained import GENERATORS_FILE, PYTORCH_NAMES
from cyclegan_jax.networks import HUGGAN_CODE, TORCH_CODE, Described
from cyclegan_jax.storage import write_bytes, write_json

Networks = Mapping[str, Network]

_HUGGAN_WIDTH = 64  # a constant of huggan's code
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
    generators, notes = _generators(networks), []
    for name, network in generators.items():
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
    save_pretrained(folder, generators, np.float16)
    return '\n'.join(notes)


def _rounded(leaf: np.ndarray) -> np.ndarray:
    with np.errstate(over='ignore'):  # what is too large is infinite
        return np.asarray(leaf).astype(np.float16).astype(np.float32)


def to_pytorch(networks: Networks, folder: Path) -> str:
    """latest_net_G_A.pth and so on, as pytorch-CycleGAN-and-pix2pix saves and loads them.

    Discriminators that no PyTorch code has are left out: nobody needs them to translate.

    Returns:
      How that code loads them, or why only code of one's own can.

    Raises:
      UserError: a network that does not exist there, or torch is not installed.
    """
    networks = _generators(networks) | {
        name: network for name, network in networks.items() if _module(network).torch_code
    }
    _check_code(networks, TORCH_CODE)
    for name, network in networks.items():
        write_torch(folder / f'latest_{PYTORCH_NAMES[name]}.pth', to_state_dict(network))
    flags = {}
    for name, network in networks.items():
        found = _module(network).torch_flags
        if found is None:
            described = describe_spec(network.role, network.spec)
            return (
                f'{TORCH_CODE} has no flags for {name}, a {described}: its --model cycle_gan '
                'cannot load these files; build the network in code, and use load_state_dict.'
            )
        flags |= {found: None}
    first = next(iter(_generators(networks)), None)
    if first is not None:
        ends = networks[first].channels[:: 1 if first == 'a2b' else -1]
        flags |= {f'--input_nc {ends[0]} --output_nc {ends[1]}': None}
    return f'{TORCH_CODE} loads them by --model cycle_gan {" ".join(flags)}'


def to_huggan(networks: Networks, folder: Path) -> None:
    """What huggan's `GeneratorResNet.from_pretrained` loads: a2b in `folder`, b2a in folder/b2a.

    Raises:
      UserError: a generator that huggan's code cannot build.
    """
    generators = _generators(networks)
    _check_code(generators, HUGGAN_CODE)
    for name, network in generators.items():
        spec, channels = network.spec, network.channels
        if spec['width'] != _HUGGAN_WIDTH or channels != (3, 3):
            raise UserError(
                f"{name} has width {spec['width']} and channels {channels}; huggan's code knows "
                f'width {_HUGGAN_WIDTH} and channels (3, 3) only.'
            )
    for i, (name, network) in enumerate(generators.items()):
        place = folder / name if i else folder
        place.mkdir(exist_ok=True)
        write_safetensors(place / GENERATORS_FILE, to_state_dict(network), {'format': 'pt'})
        blocks = network.spec['num_blocks']
        config = {'input_shape': [3, 256, 256], 'num_residual_blocks': blocks}
        write_json(place / 'config.json', config)


def to_stablehlo(networks: Networks, folder: Path) -> None:
    """a2b.stablehlo and b2a.stablehlo, for `jax.export.deserialize`, parameters included.

    (n, h, w, c) float32 in [-1, 1] to the same, for any n and for all h and w that the network can
    halve, on CPU, GPU and TPU.

    Raises:
      UserError: flatbuffers is not installed.
      UserError: run back, the program gives something else.
    """
    from jax import export as jax_export

    for name, network in _generators(networks).items():
        forward, module = jax.jit(_forward(network)), _module(network)
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
    for name, network in _generators(networks).items():
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
    generators = _shown(networks)
    files = webpage.find_runtime(runtime)
    models, notes = {}, []
    for name, network in generators.items():
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
    webpage.write(folder, models, generators, domains, files)
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
    others = [n for n in _generators(networks).values() if not n.photographs]
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


def _check_code(networks: Networks, code: str) -> None:
    """Raises UserError if one of the networks is not of that PyTorch code."""
    for name, network in networks.items():
        theirs = _module(network).torch_code
        if theirs != code:
            choice = {TORCH_CODE: 'pytorch', HUGGAN_CODE: 'huggan'}.get(theirs, 'safetensors')
            raise UserError(
                f'{name}, of kind {network.spec["kind"]!r}, belongs to '
                f'{theirs or "no PyTorch code"}, not to {code}; choose --format={choice}.'
            )


def _generators(networks: Networks) -> dict[str, Network]:
    return {name: network for name, network in networks.items() if network.role == 'generator'}


def _shown(networks: Networks) -> dict[str, Network]:
    """The generators; raises UserError for images that no browser shows."""
    generators = _generators(networks)
    for name, network in generators.items():
        pictures.check_photographs(name, network, 'choose --format=onnx')
    return generators


def _module(network: Network) -> Described:
    return make_module(network.role, network.spec, network.channels)


def _forward(network: Network) -> Callable[[jax.Array], jax.Array]:
    module = _module(network)
    return lambda images: module.apply({'params': network.params}, images)


def _check(path: Path, network: Network, call: Generator) -> None:
    """Compares with JAX, on two images that are not square."""
    side = max(16, _module(network).size_multiple)
    shape = 2, side, 2 * side, network.channels[0]
    images = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    error = np.abs(call(images) - np.asarray(_forward(network)(images))).max()
    if not error < _TOLERANCE:
        raise UserError(f'{path} gives other images than JAX, by up to {error:.1e}; not exported.')
