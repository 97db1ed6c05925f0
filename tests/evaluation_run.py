"""A run that was never trained: what evaluation needs of a workdir, made in a second or two."""

import json
from pathlib import Path

import jax
import optax

from configs import synthetic
from cyclegan_jax import networks, train_state
from cyclegan_jax.checkpoint import Checkpoints


def tiny_config(**data):
    config = synthetic.get_config()
    config.data.update(load_size=32, crop_size=32, max_images=12, name='labels', **data)
    config.generator.update(width=4, num_blocks=0)
    config.discriminator.update(width=4, num_layers=1)
    return config


def write_run(
    workdir: Path, steps: tuple[int, ...], dtype: str = 'float32', average: bool = False
) -> None:
    """A workdir with a checkpoint for each step, of other random parameters each."""
    config = tiny_config()
    config.dtype = dtype
    config.average = 0.9 * average
    nets = networks.make_networks(
        {'a': 3, 'b': 3}, config.generator, config.discriminator, config.dtype
    )
    shapes = dict.fromkeys('ab', (1, 32, 32, 3))
    workdir.mkdir()
    (workdir / 'config.json').write_text(json.dumps(config.to_dict()))
    with Checkpoints(workdir / 'checkpoints', keep=len(steps)) as checkpoints:
        for step in steps:
            state = train_state.create(
                nets, optax.adam(0.0), jax.random.key(step), image_shapes=shapes, pool_size=0
            )
            if average:
                state = state.replace(average=jax.tree.map(lambda x: x / 2, state.generators))
            lengths = {'a': 12, 'b': 12}
            checkpoints.save(step, state, {'config': config.to_dict(), 'lengths': lengths})
