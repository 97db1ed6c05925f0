"""The files of the two PyTorch code bases, which those read as their own."""

from collections.abc import Mapping
from pathlib import Path

from cyclegan_jax.errors import UserError
from cyclegan_jax.interop import Network, describe_spec, generators, to_state_dict
from cyclegan_jax.interop.files import write_safetensors, write_torch
from cyclegan_jax.interop.pretrained import GENERATORS_FILE, PYTORCH_NAMES
from cyclegan_jax.networks import HUGGAN_CODE, TORCH_CODE
from cyclegan_jax.storage import write_json

_HUGGAN_WIDTH = 64  # a constant of huggan's code


def to_pytorch(networks: Mapping[str, Network], folder: Path) -> str:
    """latest_net_G_A.pth and so on, as pytorch-CycleGAN-and-pix2pix saves and loads them.

    Discriminators that no PyTorch code has are left out: nobody needs them to translate.

    Returns:
      How that code loads them, or why only code of one's own can.

    Raises:
      UserError: a network that does not exist there, or torch is not installed.
    """
    networks = generators(networks) | {
        name: network for name, network in networks.items() if network.module().torch_code
    }
    _check_code(networks, TORCH_CODE)
    for name, network in networks.items():
        write_torch(folder / f'latest_{PYTORCH_NAMES[name]}.pth', to_state_dict(network))
    flags = {}
    for name, network in networks.items():
        found = network.module().torch_flags
        if found is None:
            described = describe_spec(network.role, network.spec)
            return (
                f'{TORCH_CODE} has no flags for {name}, a {described}: its --model cycle_gan '
                'cannot load these files; build the network in code, and use load_state_dict.'
            )
        flags |= {found: None}
    first = next(iter(generators(networks)), None)
    if first is not None:
        ends = networks[first].channels[:: 1 if first == 'a2b' else -1]
        flags |= {f'--input_nc {ends[0]} --output_nc {ends[1]}': None}
    return f'{TORCH_CODE} loads them by --model cycle_gan {" ".join(flags)}'


def to_huggan(networks: Mapping[str, Network], folder: Path) -> None:
    """What huggan's `GeneratorResNet.from_pretrained` loads: a2b in `folder`, b2a in folder/b2a.

    Raises:
      UserError: a generator that huggan's code cannot build.
    """
    translating = generators(networks)
    _check_code(translating, HUGGAN_CODE)
    for name, network in translating.items():
        spec, channels = network.spec, network.channels
        if spec['width'] != _HUGGAN_WIDTH or channels != (3, 3):
            raise UserError(
                f"{name} has width {spec['width']} and channels {channels}; huggan's code knows "
                f'width {_HUGGAN_WIDTH} and channels (3, 3) only.'
            )
    for i, (name, network) in enumerate(translating.items()):
        place = folder / name if i else folder
        place.mkdir(exist_ok=True)
        write_safetensors(place / GENERATORS_FILE, to_state_dict(network), {'format': 'pt'})
        blocks = network.spec['num_blocks']
        config = {'input_shape': [3, 256, 256], 'num_residual_blocks': blocks}
        write_json(place / 'config.json', config)


def _check_code(networks: Mapping[str, Network], code: str) -> None:
    """Raises UserError if one of the networks is not of that PyTorch code."""
    for name, network in networks.items():
        theirs = network.module().torch_code
        if theirs != code:
            choice = {TORCH_CODE: 'pytorch', HUGGAN_CODE: 'huggan'}.get(theirs, 'safetensors')
            raise UserError(
                f'{name}, of kind {network.spec["kind"]!r}, belongs to '
                f'{theirs or "no PyTorch code"}, not to {code}; choose --format={choice}.'
            )
