"""The judges: of patches and of single pixels."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp

from cyclegan_jax.errors import UserError, check_choice
from cyclegan_jax.networks.description import HUGGAN_CODE, TORCH_CODE, Described, TorchLayer
from cyclegan_jax.ops import Conv, blur_down

Array = jax.Array


class PatchDiscriminator(Described):
    """Judges overlapping patches: (n, h, w, c) to logits (n, h', w', 1), float32.

    `num_layers` strided blocks and one more of stride 1: 3 see patches of 70x70 pixels, the paper's
    choice (1 to 5 see 16, 34, 70, 142, 286). With `downsample` 'blur' strides are 1, and a blur
    that halves the size follows: see `ops.blur`.
    """

    width: int = 64
    num_layers: int = 3
    downsample: str = 'stride'
    dtype: jnp.dtype = jnp.float32

    last_stride = 1
    last_padding = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv = functools.partial(Conv, kernel=4, padding=1, dtype=self.dtype)
        blurs = self.downsample == 'blur'
        first = conv(self.width, stride=1 if blurs else 2, bias=True, name='conv_0')
        x = nn.leaky_relu(first(x), 0.2)
        x = blur_down(x) if blurs else x
        for i in range(1, self.num_layers + 1):
            stride = 2 if i < self.num_layers else self.last_stride
            features, halves = self.width * min(2**i, 8), stride == 2 and blurs
            stride = 1 if halves else stride
            x = conv(features, stride=stride, norm=0.2, name=f'conv_{i}')(x)
            x = blur_down(x) if halves else x
        x = conv(1, padding=self.last_padding, bias=True, name='out')(x)
        return x.astype(jnp.float32)

    _strided_code = TORCH_CODE  # that of the network without blur

    @property
    def torch_code(self) -> str | None:
        return None if self.downsample == 'blur' else self._strided_code

    torch_last = 2  # place of the last convolution, counted from that before it: norm, ReLU

    @property
    def smallest(self) -> int:
        return 3 * 2**self.num_layers  # a window of 4 on 3 pixels and zeros at both sides

    @nn.nowrap
    def check(self) -> None:
        check_choice('discriminator.downsample', self.downsample, ('stride', 'blur'))
        if not 1 <= self.num_layers <= 16:
            raise UserError(
                f'discriminator.num_layers is {self.num_layers}; it must be at least 1 and at '
                'most 16.'
            )

    @property
    def torch_flags(self) -> str | None:
        return f'--netD n_layers --n_layers_D {self.num_layers} --ndf {self.width}'

    @nn.nowrap
    def torch_layers(self) -> list[TorchLayer]:
        if self.torch_code is None:
            return []
        places = [0, *range(2, 3 * self.num_layers + 2, 3)]
        layers = [TorchLayer(f'model.{place}', (f'conv_{i}',)) for i, place in enumerate(places)]
        return [*layers, TorchLayer(f'model.{places[-1] + 1 + self.torch_last}', ('out',))]

    @classmethod
    def torch_fields(cls, weights):
        places = [re.fullmatch(r'model\.(\d+)', key) for key in weights]
        places = sorted({int(match[1]) for match in places if match})
        num_layers = max(1, len(places) - 2)
        is_huggan = 0 in places and places[-1] == 3 * num_layers + 3
        if 0 not in places or is_huggan != (cls is HugganDiscriminator):
            return None
        return {'width': weights['model.0'][0], 'num_layers': num_layers, 'downsample': 'stride'}


class HugganDiscriminator(PatchDiscriminator):
    """The one of huggan's code: the last block is strided too, the far layer padded at one side."""

    last_stride = 2
    last_padding = (2, 1)
    _strided_code = HUGGAN_CODE
    torch_flags = None
    torch_last = 3  # norm, ReLU, padding

    @property
    def smallest(self) -> int:
        return 4 * 2**self.num_layers  # leaves the last norm 2 pixels a side


class TwoScaleDiscriminator(PatchDiscriminator):
    """Two judges of patches, the other of the image at half its size: a pair of their logits.

    The second sees patches of twice the side at little cost (Wang et al. 2018, pix2pixHD).
    """

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        fields = self.width, self.num_layers, self.downsample, self.dtype
        judge = functools.partial(PatchDiscriminator, *fields)
        return judge(name='full')(x), judge(name='half')(nn.avg_pool(x, (2, 2), (2, 2)))

    _strided_code = None
    torch_flags = None

    @property
    def smallest(self) -> int:
        return 2 * super().smallest

    @nn.nowrap
    def torch_layers(self) -> list[TorchLayer]:
        return []

    @classmethod
    def torch_fields(cls, weights):
        return None


class PixelDiscriminator(Described):
    """Judges each pixel by itself, with 1x1 convolutions: logits (n, h, w, 1), float32."""

    width: int = 64
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv = functools.partial(Conv, kernel=1, dtype=self.dtype)
        x = nn.leaky_relu(conv(self.width, bias=True, name='conv_0')(x), 0.2)
        x = conv(self.width * 2, norm=0.2, name='conv_1')(x)
        return conv(1, bias=True, name='out')(x).astype(jnp.float32)

    torch_code = TORCH_CODE

    @property
    def torch_flags(self) -> str:
        return f'--netD pixel --ndf {self.width}'

    @nn.nowrap
    def torch_layers(self) -> list[TorchLayer]:
        places = ('net.0', 'conv_0'), ('net.2', 'conv_1'), ('net.5', 'out')
        return [TorchLayer(key, (name,)) for key, name in places]

    @classmethod
    def torch_fields(cls, weights):
        return {'width': weights['net.0'][0]} if 'net.0' in weights else None
