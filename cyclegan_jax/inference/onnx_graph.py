"""A generator as an ONNX graph, written with the `onnx` package.

The graph takes and gives images as most ONNX tools do, (n, c, h, w), float32 in [-1, 1], of any
number and of any size that the network takes. Its convolutions have the names of our parameters.

Written by hand, as jax2onnx (0.17.1) cannot: it has no form of `lax.platform_dependent`, and takes
no open height and width with a least size, which JAX needs to mirror the sides of an image.
"""

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

from cyclegan_jax.errors import UserError
from cyclegan_jax.interop import Network
from cyclegan_jax.interop.state_dict import to_weight
from cyclegan_jax.networks.resnet import SKIPPED

_OPSET = 17  # newer ones change Pad, which some readers do not know yet, and add nothing here
_EPSILON = 1e-5


def to_onnx(network: Network, direction: str, *, half_weights: bool = False):
    """An onnx.ModelProto with one input, 'image', and one output, 'translation'.

    Args:
      direction: what the generator maps, for the model's metadata.
      half_weights: keeps kernels as float16, which halves the file. They are cast back where they
        are used: everything is computed in float32.

    Raises:
      UserError: there is no graph for this kind of network.
    """
    kind = network.spec['kind']
    if kind not in _WRITERS:
        raise UserError(
            f'{direction} is of kind {kind!r}, which has no ONNX form; choose --format=stablehlo '
            'to export it, --runtime=jax to translate.'
        )
    graph = _Graph(network.params, half_weights)
    write = _WRITERS[kind]
    graph.node('Tanh', [write(graph, network.spec, 'image')], output='translation')
    names = ('image', network.channels[0]), ('translation', network.channels[1])
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ['n', channels, 'h', 'w'])
        for name, channels in names
    ]
    onnx_graph = helper.make_graph(
        graph.nodes, 'cyclegan_generator', ends[:1], ends[1:], graph.constants
    )
    model = helper.make_model(
        onnx_graph,
        producer_name='cyclegan_jax',
        opset_imports=[helper.make_opsetid('', _OPSET)],
        ir_version=8,
    )
    orders = {1: 'grey', 3: 'RGB', 4: 'RGBA'}
    module = network.module()
    metadata = {
        'direction': direction,
        'layout': 'NCHW',
        'value_range': '[-1, 1]',
        'input_channels': orders.get(network.channels[0], str(network.channels[0])),
        'output_channels': orders.get(network.channels[1], str(network.channels[1])),
        'size_multiple': str(module.size_multiple),
        'smallest_size': str(module.smallest),
    }
    ends = zip(('input', 'output'), network.pixels, strict=True)
    for end, pixels in () if network.photographs else ends:
        # What -1 and 1 stand for in the data's own units, of all channels or of each.
        metadata[f'{end}_type'] = pixels.dtype
        metadata[f'{end}_range'] = str(list(zip(pixels.low, pixels.high, strict=True)))
    helper.set_model_props(model, metadata)
    checker.check_model(model)
    return model


class _Graph:
    """Nodes in the order of computation. Each method returns the name of what it adds."""

    def __init__(self, params, half_weights):
        self.params, self.half_weights = params, half_weights
        self.nodes = []
        self.constants = []

    def constant(self, name, array):
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def kernel(self, name, array):
        if not self.half_weights:
            return self.constant(name, array)
        with np.errstate(over='ignore'):  # what is too large is infinite, and seen by who checks
            half = self.constant(name, array.astype(np.float16))
        return self.node('Cast', [half], to=TensorProto.FLOAT)

    def node(self, op, inputs, output=None, **attributes):
        output = output or f'{op}_{len(self.nodes)}'
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def conv(self, x, *path, stride=1, padding=0, up=False):
        params = self.params
        for name in path:
            params = params[name]
        name = '/'.join(path)
        weight = to_weight(np.asarray(params['kernel'], np.float32), up)
        inputs = [x, self.kernel(f'{name}/weight', weight)]
        if 'bias' in params:
            inputs.append(self.constant(f'{name}/bias', np.asarray(params['bias'], np.float32)))
        window = {'kernel_shape': weight.shape[2:]}  # may be left out, but OpenCV's reader needs it
        if not up:
            sides = {'strides': [stride] * 2, 'pads': [padding] * 4}
            return self.node('Conv', inputs, output=name, **window, **sides)
        extra = 1 if weight.shape[2] == 3 else 0  # a 3x3 kernel lacks a pixel at the far side
        return self.node(
            'ConvTranspose',
            inputs,
            output=name,
            **window,
            strides=[2, 2],
            pads=[1] * 4,
            output_padding=[extra] * 2,
        )

    def norm(self, x, channels):
        """Instance norm, without learnt scales."""
        name = f'norm_{len(self.nodes)}'
        ones = self.constant(f'{name}/scale', np.ones(channels, np.float32))
        zeros = self.constant(f'{name}/bias', np.zeros(channels, np.float32))
        return self.node('InstanceNormalization', [x, ones, zeros], output=name, epsilon=_EPSILON)

    def reflect(self, x, width):
        name = f'reflect_{len(self.nodes)}'
        pads = self.constant(f'{name}/pads', np.array([0, 0, width, width] * 2, np.int64))
        return self.node('Pad', [x, pads], output=name, mode='reflect')

    def before_tanh(self, image):
        """What the tanh makes `SKIPPED` of the image of."""
        ends = [self.constant(f'skip/{name}', np.float32(x)) for name, x in _SKIP.items()]
        clipped = self.node('Clip', [image, *ends[:2]])
        return self.node('Atanh', [self.node('Mul', [clipped, ends[2]])])

    def blur_down(self, x, channels):
        name = f'blur_{len(self.nodes)}'
        window = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32) / 16
        windows = self.constant(f'{name}/weight', np.tile(window, (channels, 1, 1, 1)))
        sides = {'kernel_shape': [3, 3], 'strides': [2, 2], 'group': channels}
        return self.node('Conv', [self.reflect(x, 1), windows], output=name, **sides)

    def double(self, x, kind):
        """Twice the size, each pixel repeated, or by `ops.blur.blur_up`."""
        name = f'double_{len(self.nodes)}'
        scales = self.constant(f'{name}/scales', np.array([1, 1, 2, 2], np.float32))
        return self.node(
            'Resize',
            [x, '', scales],
            output=name,
            **_DOUBLINGS[kind],
        )


_SKIP = {'least': -1, 'most': 1, 'share': SKIPPED}
_DOUBLINGS = {
    'nearest': {
        'mode': 'nearest',
        'coordinate_transformation_mode': 'asymmetric',
        'nearest_mode': 'floor',
    },
    'blur': {'mode': 'linear', 'coordinate_transformation_mode': 'half_pixel'},
}


def _resnet(graph, spec, x):
    image, width = x, spec['width']

    def norm_relu(x, channels):
        return graph.node('Relu', [graph.norm(x, channels)])

    x = norm_relu(graph.conv(graph.reflect(x, 3), 'in'), width)
    for i in range(2):
        channels, blurs = width * 2 ** (i + 1), spec['downsample'] == 'blur'
        x = norm_relu(graph.conv(x, f'down_{i}', stride=1 if blurs else 2, padding=1), channels)
        x = graph.blur_down(x, channels) if blurs else x
    for i in range(spec['num_blocks']):
        y = norm_relu(graph.conv(graph.reflect(x, 1), f'block_{i}', 'conv_0'), width * 4)
        y = graph.norm(graph.conv(graph.reflect(y, 1), f'block_{i}', 'conv_1'), width * 4)
        x = graph.node('Add', [x, y])
    for i in range(2):
        if spec['upsample'] != 'transpose':
            x = graph.conv(graph.double(x, spec['upsample']), f'up_{i}', padding=1)
        else:
            x = graph.conv(x, f'up_{i}', up=True)
        x = norm_relu(x, width * 2 ** (1 - i))
    x = graph.conv(graph.reflect(x, 3), 'out')
    return graph.node('Add', [x, graph.before_tanh(image)]) if spec['global_skip'] else x


def _unet(graph, spec, x):
    innermost = spec['num_downs'] - 1
    widths = [spec['width'] * min(2**i, 8) for i in range(spec['num_downs'])]
    skips = []
    for i, width in enumerate(widths):
        x = x if i == 0 else graph.node('LeakyRelu', [x], alpha=0.2)
        x = graph.conv(x, f'down_{i}', stride=2, padding=1)
        x = x if i in (0, innermost) else graph.norm(x, width)
        skips.append(x)
    x = skips.pop()
    for i in reversed(range(1, spec['num_downs'])):
        x = graph.conv(graph.node('Relu', [x]), f'up_{i}', up=True)
        x = graph.norm(x, widths[i - 1])
        x = graph.node('Concat', [skips.pop(), x], axis=1)
    return graph.conv(graph.node('Relu', [x]), 'up_0', up=True)


_WRITERS = {'resnet': _resnet, 'unet': _unet}
