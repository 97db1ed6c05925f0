"""Weights in and out: PyTorch's state dicts, safetensors, the Hugging Face hub."""

from cyclegan_jax.interop.pretrained import (
    disagreements,
    load_checkpoint,
    load_pretrained,
    save_pretrained,
    shown_weights,
)
from cyclegan_jax.interop.state_dict import (
    Network,
    describe_spec,
    from_state_dict,
    full_spec,
    generators,
    make_module,
    param_shapes,
    to_state_dict,
)

__all__ = [
    'Network',
    'describe_spec',
    'disagreements',
    'from_state_dict',
    'full_spec',
    'generators',
    'load_checkpoint',
    'load_pretrained',
    'make_module',
    'param_shapes',
    'save_pretrained',
    'shown_weights',
    'to_state_dict',
]
