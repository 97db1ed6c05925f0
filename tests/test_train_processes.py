"""Runs as a user starts them: stopped by signals, killed, resumed."""

import signal
import time

import jax
import numpy as np
import pytest
from run_processes import read_until, start, state_of

from cyclegan_jax.checkpoint import Checkpoints
from cyclegan_jax.log import read_metrics

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('none_is_left')]


def test_stopped_twice_and_killed_once_equals_unbroken(tmp_path):
    run = start(tmp_path / 'broken')
    read_until(run, 'step 20/')
    run.send_signal(signal.SIGTERM)
    stopped = int(read_until(run, r'Stopped by signal 15 after step (\d+)')[1])
    assert run.wait(60) == 143
    assert Checkpoints(tmp_path / 'broken' / 'checkpoints').latest() == stopped

    run = start(tmp_path / 'broken')
    read_until(run, f'Resuming after step {stopped}')
    read_until(run, 'epoch')
    run.send_signal(signal.SIGINT)
    stopped = int(read_until(run, r'Stopped by signal 2 after step (\d+)')[1])
    assert run.wait(60) == 130

    run = start(tmp_path / 'broken')
    read_until(run, f'Resuming after step {stopped}')
    read_until(run, 'epoch')
    run.kill()
    assert run.wait(60) == -signal.SIGKILL
    last = Checkpoints(tmp_path / 'broken' / 'checkpoints').latest() + 40

    for name in ('broken', 'unbroken'):
        run = start(tmp_path / name, max_steps=last)
        _, errors = run.communicate(timeout=300)
        assert run.returncode == 0, errors
    one, other = (state_of(tmp_path / name, last) for name in ('broken', 'unbroken'))
    for (path, x), y in zip(jax.tree.leaves_with_path(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))
    steps = [record['step'] for record in read_metrics(tmp_path / 'broken')]
    assert steps == sorted(set(steps)), 'steps that were trained twice are logged once'


def test_ctrl_c_while_the_step_compiles_ends_at_once_and_without_a_crash(tmp_path):
    run = start(tmp_path, 'JAX_ENABLE_COMPILATION_CACHE=0', **{'generator.num_blocks': 6})
    read_until(run, '1 device')
    time.sleep(1)
    run.send_signal(signal.SIGINT)
    output, errors = run.communicate(timeout=60)
    assert run.returncode == 130, errors
    assert 'Interrupted' in errors and 'Fatal' not in errors and 'Compiled' not in output
