"""The generator of the paper."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp

from cyclegan_jax.errors import check_at_least, check_choice
from cyclegan_jax.networks.description import HUGGAN_CODE, TORCH_CODE, Described, TorchLayer
from cyclegan_jax.ops import Conv, blur_down, blur_up

Array = jax.Array

SKIPPED = 0.95  # of an image is what a global skip starts from: arctanh has no value at 1


class ResNetBlock(nn.Module):
    """Two 3x3 convolutions with reflection padding; no ReLU after the sum."""

    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        conv = functools.partial(Conv, x.shape[-1], 3, reflect=True, dtype=self.dtype)
        y = conv(norm=0, name='conv_0')(x)
        if self.dropout:
            y = nn.Dropout(self.dropout, deterministic=not train)(y)
        return x + conv(norm=1, name='conv_1')(y)


class ResNetGenerator(Described):
    """Johnson et al.'s (2016) generator as CycleGAN uses it: 9 blocks for 256 px, 6 for 128 px.

    Takes sides that are multiples of 4, and returns images of the same size. `upsample` is
    'transpose' (the paper and its PyTorch code), 'nearest' (huggan's code) or 'blur', `downsample`
    is 'stride' or 'blur': see `ops.blur`. With `global_skip` the network computes what is added to
    the image, before the tanh. With `remat`, training keeps only what enters each block, and
    computes the block again for its gradients.
    """

    channels: int
    width: int = 64
    num_blocks: int = 9
    downsample: str = 'stride'
    upsample: str = 'transpose'
    global_skip: bool = False
    dropout: float = 0.0
    remat: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        conv = functools.partial(Conv, dtype=self.dtype)
        block = nn.remat(ResNetBlock, static_argnums=2) if self.remat else ResNetBlock
        image = x
        x = conv(self.width, 7, reflect=True, norm=0, name='in')(x)
        for i in range(2):
            stride = 2 if self.downsample == 'stride' else 1
            features = self.width * 2 ** (i + 1)
            x = conv(features, 3, stride=stride, padding=1, norm=0, name=f'down_{i}')(x)
            x = x if self.downsample == 'stride' else blur_down(x)
        for i in range(self.num_blocks):
            x = block(self.dropout, self.dtype, name=f'block_{i}')(x, train)
        for i in range(2):
            features, name = self.width * 2 ** (1 - i), f'up_{i}'
            if self.upsample == 'blur':
                x = conv(features, 3, padding=1, norm=0, name=name)(blur_up(x))
            else:
                x = conv(features, 3, up=self.upsample, norm=0, name=name)(x)
        x = conv(self.channels, 7, reflect=True, bias=True, name='out')(x).astype(jnp.float32)
        if self.global_skip:
            x = x + jnp.arctanh(SKIPPED * image.clip(-1, 1))
        return jnp.tanh(x)

    size_multiple = 4
    smallest = 8  # leaves the blocks 2 pixels, so that there is one to mirror

    @nn.nowrap
    def check(self) -> None:
        check_choice('generator.downsample', self.downsample, ('stride', 'blur'))
        check_choice('generator.upsample', self.upsample, ('transpose', 'nearest', 'blur'))
        check_at_least('generator.num_blocks', self.num_blocks, 0)

    @property
    def torch_code(self) -> str | None:
        if self.global_skip or 'blur' in (self.downsample, self.upsample):
            return None
        return HUGGAN_CODE if self.upsample == 'nearest' else TORCH_CODE

    @property
    def torch_flags(self) -> str | None:
        # Dropout moves the keys, and the PyTorch code's cycle_gan trains and tests without.
        if self.torch_code != TORCH_CODE or self.num_blocks not in (6, 9) or self.dropout:
            return None
        return f'--netG resnet_{self.num_blocks}blocks --ngf {self.width}'

    @nn.nowrap
    def torch_layers(self) -> list[TorchLayer]:
        if self.torch_code is None:
            return []
        huggan = self.upsample == 'nearest'
        block = 'block' if huggan else 'conv_block'
        second = 6 if self.dropout and not huggan else 5  # dropout takes a place of its own
        layers = [
            TorchLayer('model.1', ('in',)),
            TorchLayer('model.4', ('down_0',)),
            TorchLayer('model.7', ('down_1',)),
        ]
        for i in range(self.num_blocks):
            layers += [
                TorchLayer(f'model.{10 + i}.{block}.1', (f'block_{i}', 'conv_0')),
                TorchLayer(f'model.{10 + i}.{block}.{second}', (f'block_{i}', 'conv_1')),
            ]
        up = 10 + self.num_blocks
        # huggan: up-sampling, convolution, norm, ReLU; pytorch: transposed convolution, norm, ReLU.
        places = (up + 1, up + 5, up + 9) if huggan else (up, up + 3, up + 7)
        for place, name in zip(places, ('up_0', 'up_1', 'out'), strict=True):
            layers.append(TorchLayer(f'model.{place}', (name,), up=name != 'out' and not huggan))
        return layers

    @classmethod
    def torch_fields(cls, weights):
        if 'model.1' not in weights:
            return None
        blocks = [re.match(r'model\.(\d+)\.(?:conv_)?block\.', key) for key in weights]
        return {
            'width': weights['model.1'][0],
            'num_blocks': len({match[1] for match in blocks if match}),
            'downsample': 'stride',
            'upsample': 'nearest' if any('.block.' in key for key in weights) else 'transpose',
            'global_skip': False,
            'dropout': 0.5 if any(key.endswith('.conv_block.6') for key in weights) else 0.0,
        }
