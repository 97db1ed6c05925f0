"""Saving in other processes: one that is killed, two that share a directory."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from checkpoint_state import abstract, equal, make

from cyclegan_jax.checkpoint import Checkpoints


def start(code, *args, devices=2):
    environment = {
        'JAX_PLATFORMS': 'cpu',
        'JAX_NUM_CPU_DEVICES': str(devices),
        'PYTHONPATH': f'{Path(__file__).parents[1]}:{Path(__file__).parent}',
    }
    return subprocess.Popen(
        [sys.executable, '-c', code, *map(str, args)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


SAVE_FOREVER = """
import itertools, sys
from checkpoint_state import METADATA, Checkpoints, abstract, equal, make

checkpoints = Checkpoints(sys.argv[1], keep=2)
restored = checkpoints.restore(abstract())
first = 1
if restored:
    state, metadata, step = restored
    assert equal(state, make(step)), 'the restored state is not the one that was saved'
    assert metadata['saved_at'] == step
    first = step + 1
print('from', first, flush=True)
for step in itertools.count(first):
    checkpoints.save(step, make(step), METADATA | {'saved_at': step})
    print(step, flush=True)
"""


def kill_while_saving(directory, kills, seed=0):
    """Kills a process that saves all the time; each start goes on from the last commit."""
    rng = np.random.default_rng(seed)
    started = 0
    for _ in range(kills):
        process = start(SAVE_FOREVER, directory)
        try:
            word, first = process.stdout.readline().split()
            assert word == 'from'
            # Returning from the save of step n means that n - 1 is committed.
            assert int(first) >= started
            for _ in range(3):
                started = int(process.stdout.readline())
            time.sleep(rng.uniform(0, 0.3))
        finally:
            process.kill()
            rest, _ = process.communicate()
        started = int((rest.split() or [started])[-1])
    checkpoints = Checkpoints(directory)
    state, metadata, step = checkpoints.restore(abstract())
    assert step >= started - 1
    assert metadata['saved_at'] == step
    assert equal(state, make(step))
    assert not list(checkpoints.directory.glob('*.damaged'))
    assert not list(checkpoints.directory.glob('*tmp*'))


def test_killed_while_saving(tmp_path):
    kill_while_saving(tmp_path, kills=1)


@pytest.mark.slow
def test_killed_while_saving_again_and_again(tmp_path):
    kill_while_saving(tmp_path, kills=5, seed=1)


TWO_PROCESSES = """
import sys
import jax
directory, port, index = sys.argv[1], sys.argv[2], int(sys.argv[3])
jax.distributed.initialize(f'localhost:{port}', num_processes=2, process_id=index)
from checkpoint_state import METADATA, Checkpoints, abstract, equal, make, message
from test_checkpoint_damage import flip

assert jax.process_count() == 2 and len(jax.devices()) == 4
checkpoints = Checkpoints(directory, keep=2)
assert checkpoints.restore(abstract()) is None
for step in (1, 2, 3):
    checkpoints.save(step, make(step), METADATA | {'process': index})
    checkpoints.save(step, make(step), METADATA)  # once is enough
checkpoints.close()
state, metadata, step = checkpoints.restore(abstract())
assert step == 3 and equal(state, make(3)), step
assert metadata['process'] == 0
assert not equal(state, make(2))

if index == 0:
    flip(checkpoints.directory / '3')
state, _, step = checkpoints.restore(abstract())
assert step == 2 and equal(state, make(2)), step

# What process 0 finds wrong, both tell.
if index == 0:
    (checkpoints.directory / 'dangling').symlink_to('gone')
assert 'cannot be written' in message(Checkpoints(checkpoints.directory / 'dangling').newest_good)
print('passed')
"""


@pytest.mark.slow
def test_two_processes_share_a_directory(tmp_path):
    with socket.socket() as probe:
        probe.bind(('localhost', 0))
        port = probe.getsockname()[1]
    processes = [start(TWO_PROCESSES, tmp_path, port, index) for index in range(2)]
    try:
        outputs = [process.communicate(timeout=60)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [output.splitlines()[-1:] for output in outputs] == [['passed'], ['passed']]
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.steps() == [2]
    assert equal(checkpoints.restore(abstract())[0], make(2))  # one process, eight devices
