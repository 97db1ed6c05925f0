"""A run on two processes, as on two hosts: it is the run of one, and ends where one ends."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time

import jax
import numpy as np
import pytest
from run_processes import read_until, start, state_of

from cyclegan_jax.checkpoint import Checkpoints
from cyclegan_jax.log import read_metrics

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('none_is_left')]


def two_processes(workdir, *, devices=1, other_workdir=None, other=(), hosts=((), ()), **fields):
    with socket.socket() as probe:
        probe.bind(('localhost', 0))
        address = f'{"host0" if any(hosts) else "localhost"}:{probe.getsockname()[1]}'
    return [
        start(
            other_workdir if i and other_workdir else workdir,
            '--multihost',
            f'JAX_COORDINATOR_ADDRESS={address}',
            'JAX_NUM_PROCESSES=2',
            f'JAX_PROCESS_ID={i}',
            devices=devices,
            host=hosts[i],
            batch_size=2 * devices,
            **{**fields, **(dict(other) if i else {})},
        )
        for i in range(2)
    ]


def test_two_processes_equal_one(tmp_path):
    fields = {'max_steps': 3, 'log_every': 1, 'sample_every': 3, 'evaluate_every': 3}
    runs = two_processes(tmp_path / 'two', devices=4, **fields)
    runs.append(start(tmp_path / 'one', devices=8, batch_size=8, **fields))
    for run in runs:
        _, errors = run.communicate(timeout=300)
        assert run.returncode == 0, errors
    one, two = (
        [r for r in read_metrics(tmp_path / name) if 'generator/total' in r]
        for name in ('one', 'two')
    )
    assert len(one) == len(two) == 3, 'process 0 alone writes'
    for name in one[2]:
        if name.startswith(('generator/', 'discriminator/')):
            np.testing.assert_allclose(two[2][name], one[2][name], rtol=1e-3, err_msg=name)
    states = [state_of(tmp_path / name, 3, batch_size=8) for name in ('one', 'two')]
    for x, y in zip(*(jax.tree.leaves(s.generators) for s in states), strict=True):
        np.testing.assert_allclose(x, y, atol=5e-5)
    assert (tmp_path / 'two' / 'samples' / 'step_3.png').exists()


def test_a_signal_to_one_of_two_processes_stops_both_at_one_step(tmp_path):
    runs = two_processes(tmp_path)
    read_until(runs[0], 'step 20/')
    runs[1].send_signal(signal.SIGTERM)
    stopped = int(read_until(runs[0], r'Stopped by signal 15 after step (\d+)')[1])
    began = time.monotonic()
    assert [run.wait(120) for run in runs] == [143, 143]
    assert time.monotonic() - began < 60
    assert Checkpoints(tmp_path / 'checkpoints').latest() == stopped


def ends(runs, seconds):
    """Exit statuses, and what each told of it on stderr beside warnings and gloo's greeting."""
    began = time.monotonic()
    outputs = [run.communicate(timeout=seconds)[1] for run in runs]
    assert time.monotonic() - began < seconds
    told = [
        [x for x in output.splitlines() if not re.match(r'warning: |\[Gloo\] Rank', x)]
        for output in outputs
    ]
    return [run.returncode for run in runs], told


@pytest.mark.parametrize('victim', [0, 1])
def test_a_process_that_is_killed_ends_the_other_with_one_line(tmp_path, victim):
    runs = two_processes(tmp_path)
    read_until(runs[0], 'step 40/')
    runs[victim].kill()
    statuses, told = ends(runs, 150)
    assert statuses[victim] == -signal.SIGKILL
    assert statuses[1 - victim] == 75 and len(told[1 - victim]) == 1, told
    assert f'process {victim} (' in told[1 - victim][0]
    assert 'the same command goes on from step 30' in told[1 - victim][0]


def test_a_process_that_stands_still_ends_both(tmp_path):
    runs = two_processes(tmp_path)
    read_until(runs[0], 'step 20/')
    runs[1].send_signal(signal.SIGSTOP)
    assert runs[0].wait(120) == 75
    runs[1].send_signal(signal.SIGCONT)
    statuses, told = ends(runs, 60)
    errors = [[line for line in lines if line.startswith('error: ')] for lines in told]
    assert statuses == [75, 75] and [len(lines) for lines in errors] == [1, 1], told
    assert all('process 1 (' in line for [line] in errors), told


@pytest.fixture
def hosts(tmp_path):
    """Two hosts with networks of their own, and a cable between them.

    Yields what goes before a command that is to run there, of each; and what pulls the cable.
    """
    if os.geteuid() or not shutil.which('ip'):
        pytest.skip('needs root and iproute2')
    names = [f'cyclegan{os.getpid()}-{i}' for i in range(2)]

    def ip(command):
        return subprocess.run(['ip', *command.split()], check=True, capture_output=True)

    (tmp_path / 'hosts').write_text('127.0.0.1 localhost\n10.0.0.1 host0\n10.0.0.2 host1\n')
    inside = 'mount --bind "$0" /etc/hosts && hostname "$1" && shift && exec "$@"'
    try:
        try:
            for name in names:
                ip(f'netns add {name}')
            ip(f'link add cable netns {names[0]} type veth peer name cable netns {names[1]}')
            ip(f'netns exec {names[0]} unshare --mount --uts true')
        except subprocess.CalledProcessError as error:
            pytest.skip(f'needs network namespaces: {error.stderr.decode().strip()}')
        for i, name in enumerate(names):
            ip(f'-n {name} addr add 10.0.0.{i + 1}/24 dev cable')
            ip(f'-n {name} link set lo up')
            ip(f'-n {name} link set cable up')
        enter = ('unshare', '--mount', '--uts', 'bash', '-c', inside, str(tmp_path / 'hosts'))
        yield (
            [('ip', 'netns', 'exec', name, *enter, f'host{i}') for i, name in enumerate(names)],
            lambda: ip(f'-n {names[1]} link set cable down'),
        )
    finally:
        for name in names:
            subprocess.run(['ip', 'netns', 'del', name], capture_output=True)


def test_hosts_that_cannot_reach_each_other_end_and_each_names_the_other(tmp_path, hosts):
    prefixes, pull_the_cable = hosts
    runs = two_processes(tmp_path / 'run', hosts=prefixes)
    read_until(runs[0], 'step 40/')
    pull_the_cable()
    statuses, told = ends(runs, 120)
    assert statuses == [75, 75] and [len(lines) for lines in told] == [1, 1], told
    for i, (line,) in enumerate(told):
        assert f'process {1 - i} (host{1 - i}) gave no sign of life' in line
        assert re.search(r'the same command goes on from step \d+', line)


@pytest.mark.parametrize('what', ['config', 'workdir'])
def test_processes_that_differ_end_before_they_compile(tmp_path, what):
    fields, said = {
        'config': ({'other': {'optimizer.learning_rate': 0.1}}, 'optimizer.learning_rate is 0.1'),
        'workdir': ({'other_workdir': tmp_path / 'other'}, 'must be on a disk'),
    }[what]
    statuses, told = ends(two_processes(tmp_path / 'run', **fields), 150)
    assert statuses == [2, 2] and [len(lines) for lines in told] == [1, 1], told
    assert all('process 1 (' in lines[0] and said in lines[0] for lines in told), told
