"""Random weights for the FID network, the same with every version of numpy."""

import numpy as np

from cyclegan_jax.evaluation import inception


def random_state_dict() -> dict[str, np.ndarray]:
    """A state dict of pytorch-fid's layout that keeps activations near 1 through all 94 layers."""
    random = np.random.RandomState(0)
    state = {'fc.weight': np.zeros((1008, 2048), np.float32), 'fc.bias': np.zeros(1008, np.float32)}
    for unit, shape in inception.kernel_shapes().items():
        kernel = random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        state[f'{unit}.conv.weight'] = kernel.astype(np.float32)
        for name, low in (
            ('weight', 0.5),
            ('bias', -0.1),
            ('running_mean', -0.1),
            ('running_var', 0.5),
        ):
            high = 1.5 if low > 0 else 0.1
            state[f'{unit}.bn.{name}'] = random.uniform(low, high, shape[0]).astype(np.float32)
        state[f'{unit}.bn.num_batches_tracked'] = np.array(1)
    return state


def blocks(count: int, height: int, width: int) -> np.ndarray:
    """uint8 (count, height, width, 3) of coloured 8 x 8 blocks, with a gradient over them."""
    random = np.random.RandomState(1)
    small = random.randint(0, 200, (count, -(-height // 8), -(-width // 8), 3))
    large = np.kron(small, np.ones((1, 8, 8, 1), int))[:, :height, :width]
    return (large + np.arange(width)[:, None] * 55 // width).astype(np.uint8)
