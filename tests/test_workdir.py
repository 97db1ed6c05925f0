import errno
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import portalocker
import pytest
from disks import full_disk

from cyclegan_jax.workdir import WorkdirError, open_workdir

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
        assert workdir.files == tmp_path / 'runs' / 'deep'
        assert [entry.name for entry in workdir.files.iterdir()] == ['run.lock']


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
        assert (workdir.files / 'run.lock').read_text().startswith(f'process {os.getpid()} on ')


def test_the_lock_ends_with_the_block(tmp_path):
    with pytest.raises(RuntimeError, match='halfway'), open_workdir(tmp_path):
        raise RuntimeError('halfway')
    with open_workdir(tmp_path):
        assert 'in use by process' in error_of(tmp_path)


def test_a_file_system_without_locks_only_warns(tmp_path, monkeypatch, caplog):
    def flock(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(portalocker.portalocker, 'LOCKER', flock)
    with open_workdir(tmp_path):
        assert 'no locks' in caplog.text


def test_a_start_that_fails_leaves_no_new_folder(tmp_path):
    with pytest.raises(RuntimeError, match='a typo'), open_workdir(tmp_path / 'new'):
        raise RuntimeError('a typo')
    assert not (tmp_path / 'new').exists()
    (tmp_path / 'old').mkdir()
    for name, content in (('old', None), ('used', 'config.json')):
        with open_workdir(tmp_path / name) as workdir:
            if content:
                (workdir.files / content).touch()
        assert (tmp_path / name).is_dir(), 'it was there before, or something was written'
