"""The folder of a run: made, checked and locked before any work."""

import contextlib
import dataclasses
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from io import TextIOWrapper
from pathlib import Path

import portalocker
from absl import logging

from cyclegan_jax.errors import UserError
from cyclegan_jax.storage import absolute, as_path, in_bucket, probe

_LOCK = 'run.lock'


class WorkdirError(UserError):
    """The workdir cannot be used."""


@dataclasses.dataclass(frozen=True)
class Workdir:
    """What process 0 has of the workdir.

    files: where it writes small files, on this machine: in the workdir itself, or in a folder from
      which they are copied to a bucket as they change.
    copy: does that now; raises UserError if another process has taken the workdir.
    """

    files: Path
    copy: Callable[[], None] = lambda: None


@contextlib.contextmanager
def open_workdir(path: str | Path) -> Iterator[Workdir]:
    """Makes the directory, checks that it can be written, and holds its lock.

    The lock is the kernel's, on the open file `run.lock`. It ends with the process, however that
    ends, and so is never stale. In a bucket it is one that runs out: see `bucket`. With several
    processes only process 0 opens the workdir. A directory made here that stays empty is removed: a
    start that failed leaves nothing.

    Raises:
      WorkdirError: it cannot be made or written, or another process works in it; of one in a bucket
        a UserError.
    """
    path = absolute(as_path(path, '--workdir'))
    if in_bucket(path):
        from cyclegan_jax.bucket import open_bucket  # with tensorstore, which is large

        with open_bucket(path) as (files, copy):
            yield Workdir(files, copy)
        return
    new = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe(path)
        lock = (path / _LOCK).open('a+')
    except OSError as error:
        is_file = isinstance(error, FileExistsError | NotADirectoryError)
        reason = f'{error.filename} is a file' if is_file else error.strerror
        raise WorkdirError(
            f'workdir {path} cannot be written: {reason}; choose another --workdir.'
        ) from error
    with lock:
        _lock(lock)
        try:
            yield Workdir(path)
        finally:
            if new and [entry.name for entry in path.iterdir()] == [_LOCK]:
                shutil.rmtree(path, ignore_errors=True)


def _lock(file: TextIOWrapper) -> None:
    try:
        portalocker.lock(file, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
    except portalocker.AlreadyLocked as error:
        file.seek(0)
        holder = 'another process'
        with contextlib.suppress(OSError):  # Windows lets nobody else read a locked file
            holder = file.read().strip() or holder
        raise WorkdirError(
            f'workdir {Path(file.name).parent} is in use by {holder}; wait for it, stop it, or '
            'choose another --workdir.'
        ) from error
    except portalocker.LockException:
        logging.warning('%s: no locks on this file system; start no second run here.', file.name)
    file.truncate(0)
    file.write(f'process {os.getpid()} on {socket.gethostname()}\n')
    file.flush()
