"""Generators and discriminators.

The same four networks have three sets of names:

| here               | maps or judges | paper | pytorch-CycleGAN-and-pix2pix |
|--------------------|----------------|-------|------------------------------|
| generators.a2b     | a to b         | G     | G_A                          |
| generators.b2a     | b to a         | F     | G_B                          |
| discriminators.b   | images of b    | D_Y   | D_A                          |
| discriminators.a   | images of a    | D_X   | D_B                          |

Images are (n, h, w, c), float32 in [-1, 1]. Convolutions before an instance norm have no bias.

A new kind of network is a module of its own, a `Described`, and a line in one of the tables below.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from cyclegan_jax.errors import UserError, check_at_least, check_choice
from cyclegan_jax.networks.description import HUGGAN_CODE, TORCH_CODE, Described
from cyclegan_jax.networks.discriminators import (
    HugganDiscriminator,
    PatchDiscriminator,
    PixelDiscriminator,
    TwoScaleDiscriminator,
)
from cyclegan_jax.networks.resnet import ResNetGenerator
from cyclegan_jax.networks.unet import UNetGenerator

__all__ = [
    'HUGGAN_CODE',
    'KINDS',
    'TORCH_CODE',
    'Described',
    'Networks',
    'fields_of',
    'make_discriminator',
    'make_generator',
    'make_networks',
]

GENERATORS = {'resnet': ResNetGenerator, 'unet': UNetGenerator}
DISCRIMINATORS = {
    'patch': PatchDiscriminator,
    'huggan': HugganDiscriminator,
    'two_scale': TwoScaleDiscriminator,
    'pixel': PixelDiscriminator,
}
KINDS = {'generator': GENERATORS, 'discriminator': DISCRIMINATORS}  # by role, the first is usual


def make_generator(channels: int, *, dtype: str = 'float32', **fields: Any) -> Described:
    """A generator that emits `channels`; `fields` are `config.generator`.

    Fields that only other kinds read are accepted, as a config holds those of all.

    Raises:
      UserError: a kind, a field or a choice that does not exist, or a size that makes no sense.
    """
    return _make('generator', fields, channels=channels, dtype=dtype)


def make_discriminator(*, dtype: str = 'float32', **fields: Any) -> Described:
    """A discriminator; `fields` are `config.discriminator`. Otherwise like `make_generator`."""
    return _make('discriminator', fields, dtype=dtype)


def fields_of(role: str, kind: str | None = None) -> dict[str, Any]:
    """What a kind of network reads of the config: each field's default.

    kind: by default all kinds of that role.
    """
    kinds = KINDS[role]
    return {
        field.name: field.default
        for network in (kinds.values() if kind is None else [kinds[kind]])
        for field in dataclasses.fields(network)
        if field.name not in ('channels', 'dtype', 'parent', 'name')
    }


def _make(role: str, fields: Mapping[str, Any], *, dtype: str, **more: int) -> Described:
    kinds = KINDS[role]
    fields = {'kind': next(iter(kinds))} | dict(fields)
    kind = fields.pop('kind')
    check_choice(f'{role}.kind', kind, list(kinds))
    check_choice('dtype', dtype, ('float32', 'bfloat16'))
    for name in fields:
        check_choice(f'a field of {role}', name, sorted(fields_of(role)))
    own = fields_of(role, kind)
    for name in ('remat', 'global_skip'):
        if fields.get(name) and name not in own:
            raise UserError(
                f'{role}.{name} is True, but kind {kind!r} does not have it; set it False.'
            )
    read = {name: value for name, value in fields.items() if name in own}
    network = kinds[kind](**read, **more, dtype=jnp.dtype(dtype))
    check_at_least(f'{role}.width', getattr(network, 'width', 1), 1)
    if not 0 <= (dropout := getattr(network, 'dropout', 0)) < 1:
        raise UserError(f'{role}.dropout is {dropout}; it must be at least 0 and below 1.')
    network.check()
    return network


class Networks(NamedTuple):
    """The modules, without parameters: generators {'a2b', 'b2a'}, discriminators {'a', 'b'}."""

    generators: dict[str, Described]
    discriminators: dict[str, Described]

    @property
    def channels(self) -> dict[str, int]:
        """How many an image of domain 'a' and of 'b' has."""
        return {'a': self.generators['b2a'].channels, 'b': self.generators['a2b'].channels}


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

    Raises:
      UserError: as `make_generator`, or a global skip between unlike numbers of channels.
    """
    if generator.get('global_skip') and channels['a'] != channels['b']:
        raise UserError(
            f'generator.global_skip adds an image to its translation, but domain a has '
            f'{channels["a"]} channels and b {channels["b"]}; set it False.'
        )
    generators = {
        'a2b': make_generator(channels['b'], dtype=dtype, **generator),
        'b2a': make_generator(channels['a'], dtype=dtype, **generator),
    }
    judge = make_discriminator(dtype=dtype, **discriminator)
    return Networks(generators, {'a': judge, 'b': judge})
