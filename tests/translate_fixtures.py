"""Random generators and smooth pictures for the tests of translation and export."""

import jax
import numpy as np
from PIL import Image

from cyclegan_jax import interop
from cyclegan_jax.inference.onnx_graph import to_onnx
from cyclegan_jax.inference.runtimes import with_onnxruntime
from cyclegan_jax.interop.state_dict import Network, param_shapes

RESNET = interop.full_spec('generator', {'width': 4, 'num_blocks': 1})


def check_only_onnx_has_it(network, images, folder):
    """It goes to ONNX and to no PyTorch code.

    Returns:
      Its translations of the images, and the network as it comes back from a folder.
    """
    module = network.module()
    expected = module.apply({'params': network.params}, images)
    found = with_onnxruntime(to_onnx(network, 'a2b').SerializeToString())(images)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert module.torch_code is None and not module.torch_layers() and not module.torch_flags
    interop.save_pretrained(folder, {'a2b': network})
    return expected, interop.load_pretrained(folder)['a2b']


def random_network(channels=(3, 3), spec=RESNET, seed=0):
    rng = np.random.default_rng(seed)
    shapes = param_shapes('generator', spec, channels)
    draw = lambda shape: rng.normal(0, 0.1, shape).astype(np.float32)
    params = jax.tree.map(draw, shapes, is_leaf=lambda leaf: isinstance(leaf, tuple))
    return Network('generator', spec, channels, params)


def picture(mode='RGB', size=(30, 21), seed=0):
    """Soft noise in any of Pillow's modes; with transparency, some of it full."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, 4)).astype(np.uint8)
    small[:3, :3, 3] = 0
    large = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
    if mode == 'I;16':
        return Image.fromarray(np.asarray(large.convert('L')).astype(np.uint16) * 257)
    return large.convert(mode)
