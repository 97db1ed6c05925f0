"""State dicts of the PyTorch CycleGANs: which of their keys is which of our parameters.

Two code bases have published weights: pytorch-CycleGAN-and-pix2pix ('pytorch' below) and huggan's.
Which of them a network belongs to follows from its spec: huggan's generator up-samples by
'nearest', its discriminator is of kind 'huggan', and all else is pytorch's.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import numpy as np
from absl import logging

from cyclegan_jax.networks import make_discriminator, make_generator

_OBSOLETE = ('running_mean', 'running_var', 'num_batches_tracked')
_SHOWN = 4  # keys that an error lists before it says how many more there are


_FIELDS = {
    'resnet': ('width', 'num_blocks', 'upsample', 'dropout'),
    'unet': ('width', 'num_downs', 'dropout'),
    'patch': ('width', 'num_layers'),
    'huggan': ('width', 'num_layers'),
    'pixel': ('width',),
}


class Layer(NamedTuple):
    """One convolution: `key`.weight and `key`.bias there, the parameters at `path` here."""

    key: str
    path: tuple[str, ...]
    up: bool = False  # a transposed convolution


class Network(NamedTuple):
    """A generator or a discriminator, with all that is needed to build and to run it.

    role: 'generator' or 'discriminator'.
    spec: keyword arguments of `make_generator` or `make_discriminator`: all that its kind reads,
      without `dtype`.
    channels: of its input and of its output.
    params: as `module.init(...)['params']` gives them.
    """

    role: str
    spec: dict
    channels: tuple[int, int]
    params: dict


def from_state_dict(tensors: Mapping[str, np.ndarray], name: str) -> Network:
    """Reads the architecture from the keys, and the parameters.

    Biases before an instance norm, which removes them, are dropped, and so are the prefix of
    DataParallel and the running statistics that instance norm had before PyTorch 0.4.

    Args:
      tensors: the state dict.
      name: what errors call it.

    Raises:
      ValueError: the keys are not those of a network that exists here; lists what does not fit.
    """
    tensors = {key.removeprefix('module.'): tensor for key, tensor in tensors.items()}
    norms = [k for k, t in tensors.items() if k.endswith('.weight') and t.ndim == 1]
    if norms:
        raise ValueError(
            f'{name} was trained with batch norm or another norm with learnt scales ({norms[0]}); '
            'only instance norm without them is supported: train with --norm instance.'
        )
    tensors = {k: t for k, t in tensors.items() if not k.endswith(_OBSOLETE)}
    role, spec = _infer(tensors, name)
    layers = list(layers_of(role, spec))
    first, last = (tensors.get(f'{layer.key}.weight') for layer in (layers[0], layers[-1]))
    if first is None or last is None or first.ndim != 4 or last.ndim != 4:
        raise ValueError(
            f'{name} looks like a {_describe(role, spec)}, but lacks its first or last convolution '
            f'({layers[0].key}.weight, {layers[-1].key}.weight).'
        )
    spec = full_spec(role, spec | {'width': first.shape[0]})
    channels = first.shape[1], last.shape[1 if layers[-1].up else 0]
    shapes = param_shapes(role, spec, channels)
    expected = {key: shape for layer in layers for key, shape in _torch_shapes(layer, shapes)}
    check_shapes(tensors, expected, f'{name}, read as a {_describe(role, spec)},')
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
    """The reverse of `from_state_dict`; biases that do not exist here are zero."""
    tensors = {}
    for layer in layers_of(network.role, network.spec):
        ours = _get(network.params, layer.path)
        kernel = np.asarray(ours['kernel'], np.float32)
        tensors[f'{layer.key}.weight'] = to_weight(kernel, layer.up)
        bias = ours.get('bias', np.zeros(kernel.shape[-1]))
        tensors[f'{layer.key}.bias'] = np.asarray(bias, np.float32)
    return tensors


def make_module(role: str, spec: Mapping, channels: tuple[int, int], dtype: str = 'float32'):
    """The Flax module of a `Network`."""
    if role == 'generator':
        return make_generator(channels[1], dtype=dtype, **spec)
    return make_discriminator(dtype=dtype, **spec)


def full_spec(role: str, spec: Mapping) -> dict:
    """With defaults for what is missing, and without what this kind of network does not read."""
    make = make_generator if role == 'generator' else make_discriminator
    defaults = {name: p.default for name, p in inspect.signature(make).parameters.items()}
    kind = spec.get('kind', defaults['kind'])
    return {'kind': kind} | {name: spec.get(name, defaults[name]) for name in _FIELDS[kind]}


def param_shapes(role: str, spec: Mapping, channels: tuple[int, int]) -> dict:
    """The nested dict of parameters, with shapes in place of arrays."""
    module = make_module(role, spec, channels)
    side = 2 ** spec.get('num_downs', 6)
    image = jax.ShapeDtypeStruct((1, side, side, channels[0]), np.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), image)
    return jax.tree.map(lambda leaf: leaf.shape, variables['params'])


def check_shapes(
    found: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]], name: str
) -> None:
    """Raises ValueError, listing all that does not fit, unless keys and shapes are the expected."""
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
        lists = '; '.join(f'{fault}: {_list(keys)}' for fault, keys in faults.items() if keys)
        raise ValueError(f'{name} does not fit; {lists}.')


def _infer(tensors: Mapping[str, np.ndarray], name: str) -> tuple[str, dict]:
    """Role and spec, still without the width."""
    keys = ' '.join(tensors)
    if re.search(r'\bconv_block\.0\.weight', keys):
        raise ValueError(
            f'{name} has residual blocks without reflection padding (conv_block.0.weight); only '
            'blocks that pad by reflection are supported.'
        )
    if 'model.model.0.weight' in tensors:
        depth = max(key.count('.3.model') for key in tensors)
        return 'generator', {'kind': 'unet', 'num_downs': depth + 2, 'dropout': 0.0}
    if 'model.1.weight' in tensors:
        blocks = re.findall(r'\bmodel\.(\d+)\.(?:conv_)?block\.', keys)
        return 'generator', {
            'kind': 'resnet',
            'num_blocks': len(set(blocks)),
            'upsample': 'nearest' if re.search(r'\d\.block\.', keys) else 'transpose',
            'dropout': 0.5 if '.conv_block.6.' in keys else 0.0,
        }
    if 'net.0.weight' in tensors:
        return 'discriminator', {'kind': 'pixel'}
    if 'model.0.weight' in tensors:
        indices = sorted({int(i) for i in re.findall(r'\bmodel\.(\d+)\.weight', keys)})
        num_layers = max(1, len(indices) - 2)
        kind = 'huggan' if indices[-1] == 3 * num_layers + 3 else 'patch'
        return 'discriminator', {'kind': kind, 'num_layers': num_layers}
    raise ValueError(
        f'{name} is no CycleGAN that is known here: expected keys such as model.1.weight (ResNet), '
        f'model.model.0.weight (U-Net), model.0.weight or net.0.weight (discriminators); it has '
        f'{_list(list(tensors)) or "none"}.'
    )


def layers_of(role: str, spec: Mapping) -> Iterator[Layer]:
    """All convolutions of a network, from the one that reads the image to the one that answers."""
    if role == 'generator':
        kind_of_layers = {'resnet': _resnet_layers, 'unet': _unet_layers}
    else:
        kind_of_layers = {'patch': _patch_layers, 'huggan': _patch_layers, 'pixel': _pixel_layers}
    return kind_of_layers[spec['kind']](spec)


def _resnet_layers(spec: Mapping) -> Iterator[Layer]:
    huggan = spec['upsample'] == 'nearest'
    block = 'block' if huggan else 'conv_block'
    second = 6 if spec['dropout'] and not huggan else 5  # dropout takes a place of its own
    first_up = 10 + spec['num_blocks']
    yield Layer('model.1', ('in',))
    yield Layer('model.4', ('down_0',))
    yield Layer('model.7', ('down_1',))
    for i in range(spec['num_blocks']):
        yield Layer(f'model.{10 + i}.{block}.1', (f'block_{i}', 'conv_0'))
        yield Layer(f'model.{10 + i}.{block}.{second}', (f'block_{i}', 'conv_1'))
    for i in range(2):
        # huggan: up-sampling, convolution, norm, ReLU; pytorch: transposed convolution, norm, ReLU.
        index = first_up + (4 * i + 1 if huggan else 3 * i)
        yield Layer(f'model.{index}', (f'up_{i}',), up=not huggan)
    yield Layer(f'model.{first_up + (9 if huggan else 7)}', ('out',))


def _unet_layers(spec: Mapping) -> Iterator[Layer]:
    """Blocks are nested: each holds a down-convolution, the next block, an up-convolution."""
    innermost = spec['num_downs'] - 1
    prefixes = ['model.model', *(f'model.model.1.model{".3.model" * i}' for i in range(innermost))]
    for i, prefix in enumerate(prefixes):
        yield Layer(f'{prefix}.{0 if i == 0 else 1}', (f'down_{i}',))
    for i in reversed(range(spec['num_downs'])):
        yield Layer(f'{prefixes[i]}.{3 if i in (0, innermost) else 5}', (f'up_{i}',), up=True)


def _patch_layers(spec: Mapping) -> Iterator[Layer]:
    num_layers = spec['num_layers']
    yield Layer('model.0', ('conv_0',))
    for i in range(num_layers):
        yield Layer(f'model.{2 + 3 * i}', (f'conv_{i + 1}',))
    # huggan's code has one more module, a padding, before the last convolution.
    yield Layer(f'model.{2 + 3 * num_layers + (spec["kind"] == "huggan")}', ('out',))


def _pixel_layers(spec: Mapping) -> Iterator[Layer]:
    yield Layer('net.0', ('conv_0',))
    yield Layer('net.2', ('conv_1',))
    yield Layer('net.5', ('out',))


def to_kernel(weight: np.ndarray, up: bool) -> np.ndarray:
    """(out, in, h, w), or (in, out, h, w) for a transposed convolution, to (h, w, in, out)."""
    kernel = weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1) if up else weight.transpose(2, 3, 1, 0)
    return np.ascontiguousarray(kernel, np.float32)


def to_weight(kernel: np.ndarray, up: bool) -> np.ndarray:
    """The reverse of `to_kernel`."""
    kernel = kernel[::-1, ::-1].transpose(2, 3, 0, 1) if up else kernel.transpose(3, 2, 0, 1)
    return np.ascontiguousarray(kernel)


def _torch_shapes(layer: Layer, shapes: Mapping) -> list[tuple[str, tuple[int, ...]]]:
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


def _describe(role: str, spec: Mapping) -> str:
    details = ', '.join(f'{name} {value}' for name, value in spec.items() if name != 'kind')
    return f'{spec["kind"]} {role}' + (f' ({details})' if details else '')


def _list(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ', '.join(names[:_SHOWN]) + (f' and {more} more' if more > 0 else '')
