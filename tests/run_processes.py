"""Runs of main.py in processes of their own, and what they leave."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import optax
import pytest
import small_run

from cyclegan_jax import networks, sharding, train_state
from cyclegan_jax.checkpoint import Checkpoints

ROOT = Path(__file__).parents[1]
TINY = {
    **small_run.LONG,
    'log_every': 20,
    'sample_every': 1000000,
    'evaluate_every': 0,
    'checkpoint_every': 30,
}

_started = []


@pytest.fixture
def none_is_left():
    """Ends what a test has started, and closes its streams."""
    yield
    while _started:
        with _started.pop() as run:
            run.kill()


def start(workdir, *flags, devices=1, host=(), **fields):
    """Starts main.py; `host` is what goes before a command that is to run there."""
    command = [
        *host,
        sys.executable,
        'main.py',
        '--config=configs/synthetic.py',
        f'--workdir={workdir}',
    ]
    command += [f'--config.{name}={value}' for name, value in {**TINY, **fields}.items()]
    environment = os.environ | {'JAX_NUM_CPU_DEVICES': str(devices), 'PYTHONUNBUFFERED': '1'}
    for flag in [f for f in flags if '=' in f]:
        environment.update([flag.split('=')])
    command += [flag for flag in flags if '=' not in flag]
    run = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _started.append(run)
    return run


def read_until(process, pattern):
    """Reads lines of the process up to the first that has the pattern."""
    for line in process.stdout:
        if match := re.search(pattern, line):
            return match
    raise AssertionError(f'{pattern} never came; stderr: {process.stderr.read()}')


def state_of(workdir, step, batch_size=1):
    """Every leaf that was saved at a step."""
    nets = networks.make_networks(
        {'a': 3, 'b': 3}, {'width': 4, 'num_blocks': 0}, {'width': 4, 'num_layers': 1}
    )
    schedule = train_state.learning_rate_schedule(
        1.0, num_epochs=1, decay_start_epoch=1, steps_per_epoch=1
    )
    shapes = dict.fromkeys('ab', (batch_size, 16, 16, 3))
    abstract = jax.eval_shape(
        lambda: train_state.create(
            nets, optax.adam(schedule), jax.random.key(0), image_shapes=shapes, pool_size=8
        )
    )
    place = sharding.replicated(sharding.make_mesh(8))
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), abstract
    )
    state, _, found = Checkpoints(workdir / 'checkpoints').restore(abstract)
    assert found == step
    return jax.device_get(state.replace(key=jax.random.key_data(state.key)))
