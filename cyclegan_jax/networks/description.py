"""What a network tells of itself, to whoever checks, saves, loads or exports it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn


class TorchLayer(NamedTuple):
    """One convolution: `key`.weight and `key`.bias in PyTorch, the parameters at `path` here."""

    key: str
    path: tuple[str, ...]
    up: bool = False  # a transposed convolution


class Described(nn.Module):
    """A network whose fields are those of the config that it reads, with their defaults.

    Beside them, a generator has `channels`, and all have `dtype`. Fields called num_... count
    layers. The rest is what others ask; a network answers what does not fit.
    """

    size_multiple = 1  # both sides of an image must be multiples of it
    smallest = 1  # pixels that the shorter side of an image must have
    torch_code = None  # the PyTorch code that has this network: TORCH_CODE, HUGGAN_CODE
    torch_flags = None  # that have TORCH_CODE build it, such as '--netG resnet_9blocks --ngf 64'

    @nn.nowrap
    def check(self) -> None:
        """Raises UserError, naming the config's field, if these fields make no network."""

    @nn.nowrap
    def torch_layers(self) -> list[TorchLayer]:
        """Its convolutions as `torch_code` names them, from the image to the answer."""
        return []

    @classmethod
    def torch_fields(cls, weights: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
        """The fields of the network whose state dict has convolutions of these keys and shapes.

        None if it is another kind of network.

        Args:
          weights: shape of each tensor of rank 4, by its key without '.weight'.
        """
        return None


TORCH_CODE = 'pytorch-CycleGAN-and-pix2pix'
HUGGAN_CODE = 'huggan'
