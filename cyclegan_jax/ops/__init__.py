"""The arithmetic that must be fast. Each operation is one function, whatever the machine."""

from cyclegan_jax.ops.blur import blur_down, blur_up
from cyclegan_jax.ops.convolution import (
    Conv,
    conv,
    in_own_layout,
    of_repeated_pixels,
    reflect_conv,
    up_conv,
)
from cyclegan_jax.ops.norm import instance_norm
from cyclegan_jax.ops.padding import reflect_pad
from cyclegan_jax.ops.platform import after, devices, target

__all__ = [
    'Conv',
    'after',
    'blur_down',
    'blur_up',
    'conv',
    'devices',
    'in_own_layout',
    'instance_norm',
    'of_repeated_pixels',
    'reflect_conv',
    'reflect_pad',
    'target',
    'up_conv',
]
