"""The generator of pix2pix."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from cyclegan_jax.errors import UserError
from cyclegan_jax.networks.description import TORCH_CODE, Described, TorchLayer
from cyclegan_jax.ops import Conv

Array = jax.Array


class UNetGenerator(Described):
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
            norm = None if plain else 1
            x = x if i == 0 else nn.leaky_relu(x, 0.2)
            x = conv(features, stride=2, padding=1, bias=plain, norm=norm, name=f'down_{i}')(x)
            skips.append(x)
        x = skips.pop()
        for i in reversed(range(1, self.num_downs)):
            x = conv(widths[i - 1], up='transpose', norm=1, name=f'up_{i}')(nn.relu(x))
            if 4 <= i < innermost:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = jnp.concatenate([skips.pop(), x], axis=-1)
        x = conv(self.channels, up='transpose', bias=True, name='up_0')(nn.relu(x))
        return jnp.tanh(x.astype(jnp.float32))

    torch_code = TORCH_CODE

    @property
    def size_multiple(self) -> int:
        return 2**self.num_downs

    @property
    def smallest(self) -> int:
        return 2**self.num_downs

    @nn.nowrap
    def check(self) -> None:
        if not 5 <= self.num_downs <= 16:
            raise UserError(
                f'generator.num_downs is {self.num_downs}; it must be at least 5 and at most 16.'
            )

    @property
    def torch_flags(self) -> str | None:
        # Dropout has no key here, and tests do without it.
        name = {7: 'unet_128', 8: 'unet_256'}.get(self.num_downs)
        return name and f'--netG {name} --ngf {self.width}'

    @nn.nowrap
    def torch_layers(self) -> list[TorchLayer]:
        """Blocks are nested: each holds a down-convolution, the next block, an up-convolution."""
        inner = self.num_downs - 1
        prefixes = ['model.model', *(f'model.model.1.model{".3.model" * i}' for i in range(inner))]
        down = [
            TorchLayer(f'{prefix}.{0 if i == 0 else 1}', (f'down_{i}',))
            for i, prefix in enumerate(prefixes)
        ]
        up = [
            TorchLayer(f'{prefix}.{3 if i in (0, inner) else 5}', (f'up_{i}',), up=True)
            for i, prefix in enumerate(prefixes)
        ]
        return down + up[::-1]

    @classmethod
    def torch_fields(cls, weights):
        if 'model.model.0' not in weights:
            return None
        depth = max(key.count('.3.model') for key in weights)
        return {'width': weights['model.model.0'][0], 'num_downs': depth + 2, 'dropout': 0.0}
