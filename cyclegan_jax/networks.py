"""Generators and discriminators.

The same four networks have three sets of names:

| here               | maps or judges | paper | pytorch-CycleGAN-and-pix2pix |
|--------------------|----------------|-------|------------------------------|
| generators.a2b     | a to b         | G     | G_A                          |
| generators.b2a     | b to a         | F     | G_B                          |
| discriminators.b   | images of b    | D_Y   | D_A                          |
| discriminators.a   | images of a    | D_X   | D_B                          |

Images are (n, h, w, c), float32 in [-1, 1]. Convolutions before an instance norm have no bias.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cyclegan_jax.ops import Conv, instance_norm, reflect_pad

Array = jax.Array


class ResNetBlock(nn.Module):
    """Two 3x3 convolutions with reflection padding; no ReLU after the sum."""

    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        conv = functools.partial(Conv, x.shape[-1], 3, dtype=self.dtype)
        y = nn.relu(instance_norm(conv(name='conv_0')(reflect_pad(x, 1))))
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        y = instance_norm(conv(name='conv_1')(reflect_pad(y, 1)))
        return x + y


class ResNetGenerator(nn.Module):
    """Johnson et al.'s (2016) generator as CycleGAN uses it: 9 blocks for 256 px, 6 for 128 px.

    Takes sides that are multiples of 4, and returns images of the same size. `upsample` is
    'transpose' (the paper and its PyTorch code) or 'nearest' (huggan's code). With `remat`,
    training keeps only what enters each block, and computes the block again for its gradients.
    """

    channels: int
    width: int = 64
    num_blocks: int = 9
    upsample: str = 'transpose'
    dropout: float = 0.0
    remat: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        conv = functools.partial(Conv, dtype=self.dtype)
        block = nn.remat(ResNetBlock, static_argnums=2) if self.remat else ResNetBlock
        x = nn.relu(instance_norm(conv(self.width, 7, name='in')(reflect_pad(x, 3))))
        for i in range(2):
            down = conv(self.width * 2 ** (i + 1), 3, stride=2, padding=1, name=f'down_{i}')
            x = nn.relu(instance_norm(down(x)))
        for i in range(self.num_blocks):
            x = block(self.dropout, self.dtype, name=f'block_{i}')(x, train)
        for i in range(2):
            features, name = self.width * 2 ** (1 - i), f'up_{i}'
            if self.upsample == 'nearest':
                x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
                x = conv(features, 3, padding=1, name=name)(x)
            else:
                x = conv(features, 3, up=True, name=name)(x)
            x = nn.relu(instance_norm(x))
        x = conv(self.channels, 7, bias=True, name='out')(reflect_pad(x, 3))
        return jnp.tanh(x.astype(jnp.float32))


class UNetGenerator(nn.Module):
    """pix2pix's (Isola et al. 2017) generator: `num_downs` halvings, with skip connections.

    num_downs 8 is the reference's unet_256, 7 its unet_128. Takes sides that are multiples of
    2**num_downs. Dropout, where wanted, follows the up-convolutions of the widest middle layers.
    """

    channels: int
    width: int = 64
    num_downs: int = 8
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        conv = functools.partial(Conv, kernel=4, dtype=self.dtype)
        widths = [self.width * min(2**i, 8) for i in range(self.num_downs)]
        innermost = self.num_downs - 1
        skips = []
        for i, features in enumerate(widths):
            plain = i in (0, innermost)  # no norm at either end, hence a bias
            x = x if i == 0 else nn.leaky_relu(x, 0.2)
            x = conv(features, stride=2, padding=1, bias=plain, name=f'down_{i}')(x)
            x = x if plain else instance_norm(x)
            skips.append(x)
        x = skips.pop()
        for i in reversed(range(1, self.num_downs)):
            x = instance_norm(conv(widths[i - 1], up=True, name=f'up_{i}')(nn.relu(x)))
            if 4 <= i < innermost:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = jnp.concatenate([skips.pop(), x], axis=-1)
        x = conv(self.channels, up=True, bias=True, name='up_0')(nn.relu(x))
        return jnp.tanh(x.astype(jnp.float32))


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches: (n, h, w, c) to logits (n, h', w', 1), float32.

    `num_layers` strided blocks and one more of stride 1: 3 see patches of 70x70 pixels, the paper's
    choice (1 to 5 see 16, 34, 70, 142, 286). `last_stride=2` makes the last block strided too and
    pads the far layer at one side, as huggan's code does.
    """

    width: int = 64
    num_layers: int = 3
    last_stride: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv = functools.partial(Conv, kernel=4, padding=1, dtype=self.dtype)
        x = nn.leaky_relu(conv(self.width, stride=2, bias=True, name='conv_0')(x), 0.2)
        for i in range(1, self.num_layers + 1):
            stride = 2 if i < self.num_layers else self.last_stride
            x = conv(self.width * min(2**i, 8), stride=stride, name=f'conv_{i}')(x)
            x = nn.leaky_relu(instance_norm(x), 0.2)
        padding = 1 if self.last_stride == 1 else (2, 1)
        x = conv(1, padding=padding, bias=True, name='out')(x)
        return x.astype(jnp.float32)


class PixelDiscriminator(nn.Module):
    """Judges each pixel by itself, with 1x1 convolutions: logits (n, h, w, 1), float32."""

    width: int = 64
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv = functools.partial(Conv, kernel=1, dtype=self.dtype)
        x = nn.leaky_relu(conv(self.width, bias=True, name='conv_0')(x), 0.2)
        x = nn.leaky_relu(instance_norm(conv(self.width * 2, name='conv_1')(x)), 0.2)
        return conv(1, bias=True, name='out')(x).astype(jnp.float32)


def make_generator(
    channels: int,
    *,
    kind: str = 'resnet',
    width: int = 64,
    num_blocks: int = 9,
    num_downs: int = 8,
    upsample: str = 'transpose',
    dropout: float = 0.0,
    remat: bool = False,
    dtype: str = 'float32',
) -> nn.Module:
    """A generator that emits `channels`; the keyword arguments are `config.generator`.

    Raises:
      ValueError: a kind or a way of up-sampling that does not exist, or a size that makes no sense.
    """
    _check_choice('generator.kind', kind, ('resnet', 'unet'))
    _check_choice('generator.upsample', upsample, ('transpose', 'nearest'))
    _check_choice('dtype', dtype, ('float32', 'bfloat16'))
    _check_at_least('generator.width', width, 1)
    if not 0 <= dropout < 1:
        raise ValueError(f'generator.dropout is {dropout}; it must be at least 0 and below 1.')
    if kind == 'resnet':
        _check_at_least('generator.num_blocks', num_blocks, 0)
        return ResNetGenerator(
            channels, width, num_blocks, upsample, dropout, remat, jnp.dtype(dtype)
        )
    if remat:
        raise ValueError("generator.remat is True, but only kind 'resnet' has it; set it to False.")
    _check_at_least('generator.num_downs', num_downs, 5)
    return UNetGenerator(channels, width, num_downs, dropout, jnp.dtype(dtype))


def make_discriminator(
    *, kind: str = 'patch', width: int = 64, num_layers: int = 3, dtype: str = 'float32'
) -> nn.Module:
    """A discriminator; the keyword arguments are `config.discriminator`.

    Raises:
      ValueError: a kind that does not exist, or a size that makes no sense.
    """
    _check_choice('discriminator.kind', kind, ('patch', 'huggan', 'pixel'))
    _check_choice('dtype', dtype, ('float32', 'bfloat16'))
    _check_at_least('discriminator.width', width, 1)
    if kind == 'pixel':
        return PixelDiscriminator(width, jnp.dtype(dtype))
    _check_at_least('discriminator.num_layers', num_layers, 1)
    return PatchDiscriminator(width, num_layers, 2 if kind == 'huggan' else 1, jnp.dtype(dtype))


class Networks(NamedTuple):
    """The modules, without parameters: generators {'a2b', 'b2a'}, discriminators {'a', 'b'}."""

    generators: dict[str, nn.Module]
    discriminators: dict[str, nn.Module]


def make_networks(
    channels: Mapping[str, int],
    generator: Mapping,
    discriminator: Mapping,
    dtype: str = 'float32',
) -> Networks:
    """The four networks of a run.

    Args:
      channels: how many an image of domain 'a' and of 'b' has.
      generator, discriminator: keyword arguments of `make_generator` and `make_discriminator`.
      dtype: type that convolutions compute in, 'float32' or 'bfloat16'.
    """
    generators = {
        'a2b': make_generator(channels['b'], dtype=dtype, **generator),
        'b2a': make_generator(channels['a'], dtype=dtype, **generator),
    }
    judge = make_discriminator(dtype=dtype, **discriminator)
    return Networks(generators, {'a': judge, 'b': judge})


def size_multiple(generator: nn.Module) -> int:
    """The number that both sides of an image must be a multiple of."""
    return 2**generator.num_downs if isinstance(generator, UNetGenerator) else 4


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f'{name} is {value!r}; choose one of {", ".join(map(repr, choices))}.')


def _check_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f'{name} is {value}; it must be at least {least}.')
