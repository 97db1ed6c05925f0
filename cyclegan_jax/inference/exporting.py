"""Trained networks in the forms that other programs read."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cyclegan_jax.interop import Network, make_module, save_pretrained, to_state_dict
from cyclegan_jax.interop.files import write_safetensors, write_torch
from cyclegan_jax.interop.pretrained import GENERATORS_FILE, PYTORCH_NAMES
from cyclegan_jax.networks import size_multiple

Networks = Mapping[str, Network]

_HUGGAN_WIDTH = 64  # a constant of huggan's code
_TOLERANCE = 1e-4  # of an exported program against JAX; its values are in [-1, 1]

_CARD = """---
pipeline_tag: image-to-image
tags: [cyclegan, {library}]
---

# CycleGAN

Unpaired image-to-image translation ([Zhu et al. 2017](https://arxiv.org/abs/1703.10593)), written
by cyclegan_jax. Holds {contents}.

{use}
Images are in [-1, 1]. A model does what its data showed it, wanted or not: look for changes that
were not meant, such as in people's faces, before you use its results.
"""


def to_safetensors(networks: Networks, folder: Path) -> None:
    """Our exchange format, with a model card."""
    save_pretrained(folder, networks)
    command = (
        '    python -m cyclegan_jax.translate --model=<this repository or folder> '
        f'--direction={next(iter(networks))} --input=photos --output=translated\n'
    )
    _write_card(folder, networks, 'cyclegan_jax', command)


def to_pytorch(networks: Networks, folder: Path) -> None:
    """latest_net_G_A.pth and so on, as pytorch-CycleGAN-and-pix2pix saves and loads them.

    Raises:
      ValueError: a network that does not exist there.
      ImportError: torch is not installed.
    """
    for name, network in networks.items():
        if network.spec.get('upsample') == 'nearest' or network.spec['kind'] == 'huggan':
            raise ValueError(
                f'{name} is one of huggan, which pytorch-CycleGAN-and-pix2pix does not have; '
                'choose --format=huggan.'
            )
    for name, network in networks.items():
        write_torch(folder / f'latest_{PYTORCH_NAMES[name]}.pth', to_state_dict(network))


def to_huggan(networks: Networks, folder: Path) -> None:
    """What huggan's `GeneratorResNet.from_pretrained` loads: a2b in `folder`, b2a in folder/b2a.

    Raises:
      ValueError: a generator that huggan's code cannot build.
    """
    generators = _generators(networks)
    for name, network in generators.items():
        spec, channels = network.spec, network.channels
        if spec.get('upsample') != 'nearest':
            raise ValueError(
                f"{name} does not up-sample by 'nearest', as huggan's generators do; choose "
                '--format=pytorch.'
            )
        if spec['width'] != _HUGGAN_WIDTH or channels != (3, 3):
            raise ValueError(
                f"{name} has width {spec['width']} and channels {channels}; huggan's code knows "
                f'width {_HUGGAN_WIDTH} and channels (3, 3) only.'
            )
    for i, (name, network) in enumerate(generators.items()):
        place = folder / name if i else folder
        place.mkdir(exist_ok=True)
        write_safetensors(place / GENERATORS_FILE, to_state_dict(network), {'format': 'pt'})
        blocks = network.spec['num_blocks']
        config = {'input_shape': [3, 256, 256], 'num_residual_blocks': blocks}
        (place / 'config.json').write_text(json.dumps(config, indent=2) + '\n')
        code = (
            '    from huggan.pytorch.cyclegan.modeling_cyclegan import GeneratorResNet\n'
            '    model = GeneratorResNet.from_pretrained(<this repository or folder>, '
            f'input_shape=(3, 256, 256), num_residual_blocks={blocks})\n'
        )
        _write_card(place, {name: network}, 'huggan', code)


def to_stablehlo(networks: Networks, folder: Path) -> None:
    """a2b.stablehlo and b2a.stablehlo, for `jax.export.deserialize`, parameters included.

    (n, h, w, c) float32 in [-1, 1] to the same, for any n and for all h and w that the network can
    halve, on CPU, GPU and TPU.

    Raises:
      ImportError: flatbuffers is not installed.
      ValueError: run back, the program gives something else.
    """
    from jax import export as jax_export

    for name, network in _generators(networks).items():
        forward = _forward(network)
        multiple = size_multiple(_module(network))
        # At least 16 pixels: reflection needs something to reflect.
        least = -(-16 // multiple)
        shape = jax_export.symbolic_shape(
            f'n, {multiple}*h, {multiple}*w, {network.channels[0]}',
            constraints=[f'h >= {least}', f'w >= {least}'],
        )
        image = jax.ShapeDtypeStruct(shape, jnp.float32)
        exported = jax_export.export(jax.jit(forward), platforms=('cpu', 'cuda', 'tpu'))(image)
        path = folder / f'{name}.stablehlo'
        try:
            path.write_bytes(exported.serialize())
        except ImportError as error:
            raise ImportError(
                "--format=stablehlo needs flatbuffers: pip install 'cyclegan_jax[export]'"
            ) from error
        program = jax_export.deserialize(bytearray(path.read_bytes()))
        _check(path, network, lambda x, program=program: np.asarray(program.call(x)))


def to_onnx(networks: Networks, folder: Path) -> None:
    """a2b.onnx and b2a.onnx: (n, c, h, w) float32 in [-1, 1] to the same, for any n, h and w.

    Raises:
      ImportError: onnx or onnxruntime is not installed.
      ValueError: run by onnxruntime, the model gives something else.
    """
    try:
        import onnxruntime

        from cyclegan_jax.inference.onnx_graph import to_onnx as convert
    except ImportError as error:
        raise ImportError(
            "--format=onnx needs onnx and onnxruntime: pip install 'cyclegan_jax[export]'"
        ) from error

    for name, network in _generators(networks).items():
        path = folder / f'{name}.onnx'
        path.write_bytes(convert(network).SerializeToString())
        session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])

        def call(x, session=session):
            [y] = session.run(None, {'image': x.transpose(0, 3, 1, 2)})
            return y.transpose(0, 2, 3, 1)

        _check(path, network, call)


_WRITERS = {
    'safetensors': to_safetensors,
    'pytorch': to_pytorch,
    'huggan': to_huggan,
    'stablehlo': to_stablehlo,
    'onnx': to_onnx,
}
FORMATS = tuple(_WRITERS)


def export(networks: Networks, folder: Path, format: str) -> None:
    """Writes to a folder, which is made where it is missing, in one of FORMATS.

    Raises:
      ValueError, ImportError: as the functions above.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _WRITERS[format](networks, folder)


def _generators(networks: Networks) -> dict[str, Network]:
    return {name: network for name, network in networks.items() if network.role == 'generator'}


def _module(network: Network):
    return make_module(network.role, network.spec, network.channels)


def _forward(network: Network) -> Callable[[jax.Array], jax.Array]:
    module = _module(network)
    return lambda images: module.apply({'params': network.params}, images)


def _check(path: Path, network: Network, call: Callable[[np.ndarray], np.ndarray]) -> None:
    """Compares with JAX, on two images that are not square."""
    side = max(16, size_multiple(_module(network)))
    shape = 2, side, 2 * side, network.channels[0]
    images = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    error = np.abs(call(images) - np.asarray(_forward(network)(images))).max()
    if not error < _TOLERANCE:
        path.unlink()
        raise ValueError(f'{path} gives other images than JAX, by up to {error:.1e}; not exported.')


def _write_card(folder: Path, networks: Networks, library: str, use: str) -> None:
    contents = ', '.join(
        f'{name}: {network.spec["kind"]} {network.role} of width {network.spec["width"]}'
        for name, network in networks.items()
    )
    card = _CARD.format(library=library, contents=contents, use=use)
    (folder / 'README.md').write_text(card)
