import contextlib
import errno
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cyclegan_jax.workdir import WorkdirError, compare_configs, open_workdir, write_json

CONFIG = {
    'seed': 0,
    'batch_size': 1,
    'max_steps': None,
    'log_every': 100,
    'keep_checkpoints': 2,
    'data': {'path': 'here', 'crop_size': (256, 512), 'num_threads': 4},
    'generator': {'kind': 'resnet', 'width': 64},
    'schedule': {'num_epochs': 200},
}

HOLD = """
import sys
from cyclegan_jax.workdir import open_workdir
with open_workdir(sys.argv[1]):
    print('locked', flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that works in `tmp_path`."""
    process = subprocess.Popen(
        [sys.executable, '-c', HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b'locked\n'
    yield process
    process.kill()
    process.communicate()


def error_of(path):
    with pytest.raises(WorkdirError) as info, open_workdir(path):
        pass
    assert '\n' not in str(info.value)
    return str(info.value)


def test_makes_the_directory_with_its_parents(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_workdir('runs/deep') as workdir:
        assert workdir == tmp_path / 'runs' / 'deep'
        assert [entry.name for entry in workdir.iterdir()] == ['run.lock']


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / 'notes.txt').touch()
    assert f'{tmp_path}/notes.txt is a file' in error_of(tmp_path / 'notes.txt')
    assert f'{tmp_path}/notes.txt' in error_of(tmp_path / 'notes.txt' / 'run')


def test_a_read_only_directory_is_refused():
    with tempfile.TemporaryDirectory() as outer:  # tmp_path is hidden from other users
        workdir = Path(outer, 'run')
        workdir.mkdir()
        with open_workdir(workdir):
            pass  # the lock file is there now: it can be opened, the directory not written
        (workdir / 'run.lock').chmod(0o666)
        Path(outer).chmod(0o755)
        workdir.chmod(0o555)
        root = os.geteuid() == 0
        if root:  # who may write everywhere
            os.seteuid(65534)
        try:
            assert 'Permission denied' in error_of(workdir)
        finally:
            if root:
                os.seteuid(0)
            workdir.chmod(0o755)


@contextlib.contextmanager
def full_disk(bytes_left):
    """Writing fails as on a full disk, with another error number."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_a_full_disk_is_refused(tmp_path):
    with full_disk(bytes_left=1000):
        error = error_of(tmp_path)
    assert 'cannot be written: File too large' in error


def test_a_second_process_is_refused_and_told_who_is_there(tmp_path, holder):
    assert f'in use by process {holder.pid} on ' in error_of(tmp_path)


def test_the_lock_of_a_killed_process_is_free(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with open_workdir(tmp_path) as workdir:
        assert (workdir / 'run.lock').read_text().startswith(f'process {os.getpid()} on ')


def test_the_lock_ends_with_the_block(tmp_path):
    with pytest.raises(RuntimeError, match='halfway'), open_workdir(tmp_path):
        raise RuntimeError('halfway')
    with open_workdir(tmp_path):
        assert 'in use by process' in error_of(tmp_path)


def test_a_file_system_without_locks_only_warns(tmp_path, monkeypatch, caplog):
    def flock(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, 'flock', flock)
    with open_workdir(tmp_path):
        assert 'no locks' in caplog.text


def test_write_json_replaces_the_file_whole_or_not_at_all(tmp_path):
    path = tmp_path / 'config.json'
    write_json(path, CONFIG)
    assert json.loads(path.read_text())['generator'] == {'kind': 'resnet', 'width': 64}
    with pytest.raises(TypeError):
        write_json(path, {'not json': object()})
    assert [entry.name for entry in tmp_path.iterdir()] == ['config.json']
    assert json.loads(path.read_text())['seed'] == 0
    with full_disk(bytes_left=10), pytest.raises(OSError, match='File too large'):
        write_json(path, {'seed': 1})
    assert json.loads(path.read_text())['seed'] == 0
    write_json(path, {'seed': 1})
    assert json.loads(path.read_text()) == {'seed': 1}


def changed(**fields):
    return CONFIG | {
        name: CONFIG[name] | value if isinstance(value, dict) else value
        for name, value in fields.items()
    }


def test_the_same_config_read_back_from_json_is_equal():
    assert compare_configs(json.loads(json.dumps(CONFIG)), CONFIG) == ([], [])


def test_fields_that_decide_the_run_conflict_and_all_are_named():
    current = changed(
        seed=1, batch_size=8, generator={'width': 32, 'kind': 'unet'}, data={'crop_size': 128}
    )
    conflicts, changes = compare_configs(CONFIG, current)
    assert conflicts == [
        'seed: checkpoint has 0, config asks 1',
        'batch_size: checkpoint has 1, config asks 8',
        'data.crop_size: checkpoint has [256, 512], config asks 128',
        'generator.kind: checkpoint has resnet, config asks unet',
        'generator.width: checkpoint has 64, config asks 32',
    ]
    assert changes == []


def test_a_run_may_be_longer_or_elsewhere_and_report_otherwise():
    current = changed(
        max_steps=10,
        log_every=5,
        keep_checkpoints=9,
        schedule={'num_epochs': 300},
        data={'path': 'there', 'num_threads': 1},
    )
    conflicts, changes = compare_configs(CONFIG, current)
    assert conflicts == []
    assert 'schedule.num_epochs: checkpoint has 200, config asks 300' in changes
    assert len(changes) == 6


def test_a_field_that_only_one_version_of_the_program_knows_does_not_stop_a_run():
    assert compare_configs(CONFIG, changed(generator={'attention': True})) == (
        [],
        ['generator.attention: new'],
    )
    assert compare_configs(changed(old=1), CONFIG) == ([], ['old: no longer there'])
