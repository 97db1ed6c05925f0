"""State dicts of the PyTorch CycleGANs, to our parameters and back.

Which key is which parameter, each network tells itself: see `networks.description`.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from absl import logging

from cyclegan_jax.errors import UserError, check_choice, shortlist
from cyclegan_jax.networks import (
    KINDS,
    Described,
    fields_of,
    make_discriminator,
    make_generator,
)
from cyclegan_jax.networks.description import TorchLayer
from cyclegan_jax.pixels import PHOTOGRAPHS, Pixels
from cyclegan_jax.storage import check_fields

_OBSOLETE = ('running_mean', 'running_var', 'num_batches_tracked')
_WRAPPERS = ('module.', '_orig_mod.')  # of DataParallel, of torch.compile
_NOT_OF_WEIGHTS = ('remat',)  # fields that say how to compute, not what


class Network(NamedTuple):
    """A generator or a discriminator, with all that is needed to build and to run it.

    role: 'generator' or 'discriminator'.
    spec: keyword arguments of `make_generator` or `make_discriminator`: all that its kind reads,
      without `dtype`.
    channels: of its input and of its output.
    params: as `module.init(...)['params']` gives them.
    pixels: what a generator's input and output hold, in the units of the data.
    """

    role: str
    spec: dict
    channels: tuple[int, int]
    params: dict
    pixels: tuple[Pixels, Pixels] = (PHOTOGRAPHS, PHOTOGRAPHS)

    def module(self, dtype: str = 'float32') -> Described:
        """What `params` belong to, computing convolutions in `dtype`."""
        return make_module(self.role, self.spec, self.channels, dtype)

    @property
    def photographs(self) -> bool:
        """Whether it maps photographs to photographs."""
        return all(pixels.photographs for pixels in self.pixels)


def generators(networks: Mapping[str, Network]) -> dict[str, Network]:
    """Those of the networks that translate, by direction."""
    return {name: network for name, network in networks.items() if network.role == 'generator'}


def from_state_dict(tensors: Mapping[str, np.ndarray], name: str) -> Network:
    """Reads the architecture from the keys, and the parameters.

    Biases before an instance norm, which removes them, are dropped, and so are the prefixes of
    DataParallel and torch.compile, and the running statistics that instance norm had before
    PyTorch 0.4.

    Args:
      tensors: the state dict.
      name: what errors call it.

    Raises:
      UserError: the keys are not those of a network that exists here; lists what does not fit.
    """
    tensors = {_unwrapped(key): tensor for key, tensor in tensors.items()}
    tensors = {k: t for k, t in tensors.items() if not k.endswith(_OBSOLETE)}
    role, spec = _infer(tensors, name)
    norms = [k for k, t in tensors.items() if k.endswith('.weight') and t.ndim == 1]
    if norms:
        raise UserError(
            f'{name} was trained with batch norm or another norm with learnt scales ({norms[0]}); '
            'only instance norm without them is supported: train with --norm instance.'
        )
    spec = check_spec(role, spec, tensors, name)
    layers = make_module(role, spec, (1, 1)).torch_layers()
    first, last = (tensors.get(f'{layer.key}.weight') for layer in (layers[0], layers[-1]))
    if first is None or last is None or first.ndim != 4 or last.ndim != 4:
        raise UserError(
            f'{name} looks like a {describe_spec(role, spec)}, but lacks its first or last '
            f'convolution ({layers[0].key}.weight, {layers[-1].key}.weight).'
        )
    channels = first.shape[1], last.shape[1 if layers[-1].up else 0]
    shapes = param_shapes(role, spec, channels)
    normed = [f'{x.key}.bias' for x in layers if 'bias' not in _get(shapes, x.path)]
    if normed and not any(key in tensors for key in normed):
        raise UserError(
            f'{name} was trained with --norm none or batch, as its convolutions have no biases '
            f'({normed[0]}); only --norm instance is supported.'
        )
    expected = {key: shape for layer in layers for key, shape in _torch_shapes(layer, shapes)}
    check_shapes(tensors, expected, f'{name}, read as a {describe_spec(role, spec)},')
    if role == 'generator' and spec.get('upsample') == 'nearest' and channels[0] != 3:
        logging.warning(
            '%s: for %d channels huggan pads by %d pixels, not 3, and its images change size; '
            'here they keep it, and differ at the border.',
            name,
            channels[0],
            channels[0],
        )
    params = {}
    for layer in layers:
        ours = {'kernel': to_kernel(tensors[f'{layer.key}.weight'], layer.up)}
        if 'bias' in _get(shapes, layer.path):
            ours['bias'] = np.asarray(tensors[f'{layer.key}.bias'], np.float32)
        _set(params, layer.path, ours)
    return Network(role, spec, channels, params)


def to_state_dict(network: Network) -> dict[str, np.ndarray]:
    """The reverse of `from_state_dict`; biases that do not exist here are zero.

    Raises:
      UserError: no PyTorch code has this kind of network.
    """
    layers = network.module().torch_layers()
    if not layers:
        raise UserError(
            f'kind {network.spec["kind"]!r} has no names in PyTorch; choose --format=safetensors.'
        )
    tensors = {}
    for layer in layers:
        ours = _get(network.params, layer.path)
        kernel = np.asarray(ours['kernel'], np.float32)
        tensors[f'{layer.key}.weight'] = to_weight(kernel, layer.up)
        bias = ours.get('bias', np.zeros(kernel.shape[-1]))
        tensors[f'{layer.key}.bias'] = np.asarray(bias, np.float32)
    return tensors


def make_module(
    role: str, spec: Mapping, channels: tuple[int, int], dtype: str = 'float32'
) -> Described:
    """The Flax module of a `Network`."""
    if role == 'generator':
        return make_generator(channels[1], dtype=dtype, **spec)
    return make_discriminator(dtype=dtype, **spec)


def full_spec(role: str, spec: Mapping) -> dict:
    """With defaults for what is missing, and without what this kind of network does not read."""
    kind = spec.get('kind', next(iter(KINDS[role])))
    check_choice(f'{role}.kind', kind, list(KINDS[role]))
    fields = {n: d for n, d in fields_of(role, kind).items() if n not in _NOT_OF_WEIGHTS}
    return {'kind': kind} | {name: spec.get(name, default) for name, default in fields.items()}


def check_spec(role: str, spec: Mapping, tensors: Mapping[str, np.ndarray], where: str) -> dict:
    """`full_spec` of what a file says, where it can be true of a file with these tensors.

    A network is built to learn its shapes, and a file of a few bytes may ask for a million layers:
    there are no more of them than tensors, and none is wider than the largest tensor has elements.

    Raises:
      UserError: a field is of another type, or too large, or makes no network; names `where`.
    """
    if not isinstance(spec, Mapping) or not isinstance(spec.get('kind', ''), str):
        raise UserError(f'{where}: the {role} is {str(spec)[:60]!r}; it must be an object.')
    try:
        spec = full_spec(role, spec)
        defaults = {'kind': ''} | fields_of(role, spec['kind'])
        types = {n: (int, float) if type(defaults[n]) is float else type(defaults[n]) for n in spec}
        check_fields(spec, types, f'the {role}')
        largest = max((tensor.size for tensor in tensors.values()), default=0)
        for name, value in spec.items():
            bound = len(tensors) if name.startswith('num_') else largest
            if isinstance(value, int) and value > bound:
                raise UserError(f'{role}.{name} is {value}, and the file holds at most {bound}.')
        make_module(role, spec, (1, 1))
    except UserError as error:
        raise UserError(f'{where}: {error}') from error
    return spec


def param_shapes(role: str, spec: Mapping, channels: tuple[int, int]) -> dict:
    """The nested dict of parameters, with shapes in place of arrays."""
    module = make_module(role, spec, channels)
    multiple = module.size_multiple
    side = -(-module.smallest // multiple) * multiple
    image = jax.ShapeDtypeStruct((1, side, side, channels[0]), np.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), image)
    return jax.tree.map(lambda leaf: leaf.shape, variables['params'])


def check_shapes(
    found: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]], name: str
) -> None:
    """Raises UserError, listing all that does not fit, unless keys and shapes are the expected."""
    unfit = [
        f'{key} is {found[key].shape} instead of {shape}'
        for key, shape in expected.items()
        if key in found and found[key].shape != shape
    ]
    faults = {
        'lacks': [f'{key} {shape}' for key, shape in expected.items() if key not in found],
        'does not know': [key for key in found if key not in expected],
        'has other shapes': unfit,
    }
    if any(faults.values()):
        lists = '; '.join(f'{fault}: {shortlist(keys)}' for fault, keys in faults.items() if keys)
        raise UserError(f'{name} does not fit; {lists}.')


def _unwrapped(key: str) -> str:
    while key.startswith(_WRAPPERS):
        key = key.partition('.')[2]
    return key


def _infer(tensors: Mapping[str, np.ndarray], name: str) -> tuple[str, dict]:
    """Role and spec of a state dict, by asking each kind of network."""
    if any(key.endswith('conv_block.0.weight') for key in tensors):
        raise UserError(
            f'{name} has residual blocks without reflection padding (conv_block.0.weight); only '
            'blocks that pad by reflection are supported.'
        )
    weights = {
        key.removesuffix('.weight'): tensor.shape
        for key, tensor in tensors.items()
        if key.endswith('.weight') and tensor.ndim == 4
    }
    for role, kinds in KINDS.items():
        for kind, network in kinds.items():
            fields = network.torch_fields(weights)
            if fields is not None:
                return role, {'kind': kind} | fields
    raise UserError(
        f'{name} is no CycleGAN that is known here: expected keys such as model.1.weight (ResNet), '
        f'model.model.0.weight (U-Net), model.0.weight or net.0.weight (discriminators); it has '
        f'{shortlist(tensors) or "none"}.'
    )


def to_kernel(weight: np.ndarray, up: bool) -> np.ndarray:
    """(out, in, h, w), or (in, out, h, w) for a transposed convolution, to (h, w, in, out)."""
    kernel = weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1) if up else weight.transpose(2, 3, 1, 0)
    return np.ascontiguousarray(kernel, np.float32)


def to_weight(kernel: np.ndarray, up: bool) -> np.ndarray:
    """The reverse of `to_kernel`."""
    kernel = kernel[::-1, ::-1].transpose(2, 3, 0, 1) if up else kernel.transpose(3, 2, 0, 1)
    return np.ascontiguousarray(kernel)


def _torch_shapes(layer: TorchLayer, shapes: Mapping) -> list[tuple[str, tuple[int, ...]]]:
    height, width, i, o = _get(shapes, layer.path)['kernel']
    weight = (i, o, height, width) if layer.up else (o, i, height, width)
    return [(f'{layer.key}.weight', weight), (f'{layer.key}.bias', (o,))]


def _get(tree: Mapping, path: tuple[str, ...]):
    for name in path:
        tree = tree[name]
    return tree


def _set(tree: dict, path: tuple[str, ...], value) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = value


def describe_spec(role: str, spec: Mapping) -> str:
    """'resnet generator (width 64, num_blocks 9, ...)'."""
    details = ', '.join(f'{name} {value}' for name, value in spec.items() if name != 'kind')
    return f'{spec["kind"]} {role}' + (f' ({details})' if details else '')
