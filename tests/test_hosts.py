"""Processes of one run: what they agree on, and how they end together. A store stands in for JAX's.

That a process is killed or stopped for real is tested in test_hosts_processes.py.
"""

import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time

import jax
import pytest

from cyclegan_jax import abort, hosts
from cyclegan_jax import watch as watching
from cyclegan_jax.errors import UserError
from cyclegan_jax.watch import RESTART, Watch


class Store:
    """The key-value store of JAX's coordination service, for threads that stand for processes."""

    def __init__(self):
        self.values, self.changed = {}, threading.Condition()

    def key_value_set(self, key, value, allow_overwrite=False):
        with self.changed:
            if key in self.values and not allow_overwrite:
                raise jax.errors.JaxRuntimeError(f'ALREADY_EXISTS: {key}')
            self.values[key] = value
            self.changed.notify_all()

    def blocking_key_value_get(self, key, timeout_in_ms):
        with self.changed:
            if not self.changed.wait_for(lambda: key in self.values, timeout_in_ms / 1000):
                raise jax.errors.JaxRuntimeError(f'DEADLINE_EXCEEDED: {key}')
            return self.values[key]

    def key_value_dir_get(self, prefix):
        with self.changed:
            return [(key, text) for key, text in self.values.items() if key.startswith(prefix)]


def test_multihost_without_a_cluster_is_an_error_and_not_a_run_of_one():
    code = 'from cyclegan_jax import hosts; hosts.joined().__enter__()'
    environment = {k: v for k, v in os.environ.items() if not k.startswith('JAX_COORDINATOR')}
    result = subprocess.run(
        [sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert 'UserError: --multihost found no other processes' in result.stderr


def test_who_waits_in_vain_says_so():
    code = """
from cyclegan_jax import hosts
hosts._PATIENCE, hosts._ARRIVAL = 0.2, 1
hosts.joined().__enter__()
"""
    with socket.socket() as probe:
        probe.bind(('localhost', 0))
        address = f'localhost:{probe.getsockname()[1]}'
    environment = {
        **os.environ,
        'JAX_COORDINATOR_ADDRESS': address,
        'JAX_NUM_PROCESSES': '2',
        'JAX_PROCESS_ID': '0',
    }
    done = subprocess.run(
        [sys.executable, '-c', code], env=environment, capture_output=True, text=True
    )
    warning, error = done.stderr.splitlines()
    assert done.returncode == RESTART
    assert warning.startswith('warning: waiting until all 2 processes are here')
    assert f'see that it reaches process 0 at {address}' in error


class Exited(BaseException):
    pass


class Cluster:
    """Runs a function as each of some processes, in threads; each has its number and its calls."""

    def __init__(self, monkeypatch, size):
        self.size, self.store, self._here = size, Store(), threading.local()
        self._rounds = [itertools.count() for _ in range(size)]
        monkeypatch.setattr(hosts, 'index', lambda: self._here.index)
        monkeypatch.setattr(hosts, 'count', lambda: size)
        monkeypatch.setattr(hosts, '_client', lambda: self.store)
        monkeypatch.setattr(hosts, '_rounds', self)
        monkeypatch.setattr(hosts.socket, 'gethostname', lambda: f'host{self._here.index}')

    def __next__(self):
        return next(self._rounds[self._here.index])

    def be(self, index):
        self._here.index = index

    def __call__(self, function):
        outcomes = [None] * self.size

        def run(index):
            self.be(index)
            try:
                outcomes[index] = function(index)
            except Exception as error:
                outcomes[index] = error

        threads = [threading.Thread(target=run, args=(i,)) for i in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return outcomes


@pytest.fixture
def three(monkeypatch):
    return Cluster(monkeypatch, 3)


def test_what_process_0_finds_all_have_and_its_mistake_too(three):
    assert three(lambda i: hosts.on_first(lambda: [i, (1, 2)])) == [[0, [1, 2]]] * 3

    def fail():
        raise UserError('the disk is full')

    assert [str(e) for e in three(lambda _: hosts.on_first(fail))] == ['the disk is full'] * 3


def test_those_that_agree_go_on(three):
    assert three(lambda _: hosts.agree({'seed': 1, 'size': (2, 3)}, '')) == [None] * 3


def test_a_disagreement_is_one_line_on_all_that_names_the_host_and_what_differs(three):
    told = three(lambda i: hosts.agree({'seed': int(i == 1), 'x': 1}, 'start the same.'))
    assert {str(error) for error in told} == {
        'the processes differ from process 0 (host0): on process 1 (host1) seed is 1, not 0; '
        'start the same.'
    }


def test_a_folder_that_only_looks_the_same_is_told_and_nothing_is_left_in_it(
    three, tmp_path, monkeypatch
):
    monkeypatch.setattr(hosts, '_SIGHT', 0.3)
    for name in 'ab':
        (tmp_path / name).mkdir()
    assert three(lambda _: hosts.check_shared(tmp_path / 'a')) == [None] * 3
    told = three(lambda i: hosts.check_shared(tmp_path / ('b' if i == 2 else 'a')))
    assert all('process 2 (host2)' in str(e) and '--workdir must be' in str(e) for e in told)
    assert not [*tmp_path.glob('*/.*'), *tmp_path.glob('*/*')]


def test_alone_nothing_is_asked(monkeypatch):
    monkeypatch.setattr(hosts, '_client', lambda: None)
    hosts.agree({'x': 1}, '')
    assert hosts.on_first(lambda: (1, 2)) == [1, 2]


@pytest.fixture
def watch(three, monkeypatch, capsys):
    """Makes the watch of process `index`; gives how it ended, without threads of its own."""
    ended = []

    def end(status):
        ended.append(status)
        raise Exited

    monkeypatch.setattr(watching, 'end_process', end)
    monkeypatch.setattr(watching, 'SILENCE', 0.4)
    monkeypatch.setattr(watching, '_BEAT', 0.05)
    real = time.sleep
    monkeypatch.setattr(watching.time, 'sleep', lambda seconds: real(min(seconds, 0.02)))

    def run(index, thread, others=()):
        three.be(index)
        made = Watch(three.store, index, 3)
        made.latest = lambda: 40
        for other in range(3):
            three.store.key_value_set(f'cyclegan_jax/alive/{other}', f'0 host{other}', True)
        made._hear(dict(three.store.key_value_dir_get('cyclegan_jax/alive/')))
        with pytest.raises(Exited):
            getattr(made, thread)()
        return ended.pop(), capsys.readouterr().err

    return run


def test_one_that_is_silent_is_named_and_the_others_are_told(watch, three):
    status, told = watch(0, '_look')
    assert (status, told.count('\n')) == (RESTART, 1)
    assert 'process 1 (host1) gave no sign of life' in told
    assert 'the same command goes on from step 40' in told
    assert json.loads(three.store.values['cyclegan_jax/end'])['status'] == RESTART
    # and so the others end:
    status, other = watch(2, '_talk')
    assert (status, other.count('\n')) == (RESTART, 1) and 'process 1 (host1)' in other


def test_a_mistake_of_one_ends_the_others_with_its_line_and_status(watch, three):
    three.be(1)
    Watch(three.store, 1, 3).fail(UserError('x.png is damaged'))
    status, told = watch(2, '_talk')
    assert (status, told) == (2, 'error: process 1 (host1) ended: x.png is damaged\n')


def test_when_the_store_is_gone_process_0_is(watch, three, monkeypatch):
    def gone(*_):
        raise jax.errors.JaxRuntimeError('UNAVAILABLE: Socket closed')

    monkeypatch.setattr(three.store, 'blocking_key_value_get', gone)
    status, told = watch(1, '_talk')
    assert status == RESTART and 'process 0 (host0) is gone' in told


ABORTS = """
import ctypes, os, sys
from cyclegan_jax import abort
def lost():
    print('process 0 is gone', file=sys.stderr)
    os._exit(75)
abort.listen(lost)
os.write(2, b'a word of the compiler\\n')
os.write(2, b'E1125 coordination_service_agent.cc:289] Polled an error\\n')
os.write(2, b'F1125 client.h:80] the JAX distributed service detected fatal errors\\n')
ctypes.CDLL(None).abort()  # without Python's lock, as threads of XLA are
"""


def test_who_is_done_waits_for_the_others(three):
    left = []

    def run(index):
        made = Watch(three.store, index, 3)
        for thread in made._threads:
            thread.start()
        time.sleep(0.2 * index)
        left.append(len(three.store.key_value_dir_get('cyclegan_jax/done/')))
        made.leave()
        return made.left

    assert three(run) == [True] * 3 and left == [0, 1, 2]


def test_the_abort_of_the_client_becomes_one_line():
    done = subprocess.run([sys.executable, '-c', ABORTS], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (75, 'a word of the compiler\nprocess 0 is gone\n')


def test_stderr_is_given_back(capfd, monkeypatch):
    # Whose traces of crashes of later tests would else go where none looks.
    monkeypatch.setattr(abort.faulthandler, 'is_enabled', lambda: False)
    stderr = sys.stderr
    abort.listen(lambda: None)
    abort.stop_listening()
    assert sys.stderr is stderr
    print('said', file=sys.stderr)
    assert capfd.readouterr().err == 'said\n'
