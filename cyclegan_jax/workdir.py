"""The directory of a run: made, checked and locked before any work, and the config kept in it."""

import contextlib
import errno
import fcntl
import json
import os
import re
import socket
import tempfile
from collections.abc import Iterator, Mapping
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from absl import logging

# Fields that may differ on resume: how long the run is, what it reports and keeps, from where and
# how fast it reads. (Whether the images are the same is for their fingerprint to say, not for their
# path.) Every other field decides the shapes of the state or what an update computes.
_MAY_CHANGE = re.compile(
    r'accumulate|generator\.remat|max_steps|schedule\.\w+|\w+_every|evaluate_metrics|keep_\w+|'
    r'init_from|domain_[ab]|allow_data_change|'
    r'data\.(source|path|name|name_b|(test_)?split_[ab]|column_[ab]|max_images|cache|'
    r'num_threads|skip_corrupt)'
)


class WorkdirError(ValueError):
    """The workdir cannot be used; the message is one line."""


@contextlib.contextmanager
def open_workdir(path: str | Path) -> Iterator[Path]:
    """Makes the directory, checks that it can be written, and holds its lock; yields the full path.

    The lock is the kernel's, on the open file `run.lock`. It ends with the process, however that
    ends, and so is never stale. With several processes only process 0 opens the workdir.

    Raises:
      WorkdirError: it cannot be made or written, or another process works in it.
    """
    path = Path(path).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as probe:
            probe.write(bytes(4096))  # a full disk still makes empty files
        lock = (path / 'run.lock').open('a+')
    except OSError as error:
        is_file = isinstance(error, FileExistsError | NotADirectoryError)
        reason = f'{error.filename} is a file' if is_file else error.strerror
        raise WorkdirError(
            f'workdir {path} cannot be written: {reason}; choose another --workdir.'
        ) from error
    with lock:
        _lock(lock)
        yield path


def _lock(file: TextIOWrapper) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        raise WorkdirError(
            f'workdir {Path(file.name).parent} is in use by {file.read().strip()}; wait for it, '
            'stop it, or choose another --workdir.'
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        logging.warning('%s: no locks on this file system; start no second run here.', file.name)
    file.truncate(0)
    file.write(f'process {os.getpid()} on {socket.gethostname()}\n')
    file.flush()


def write_json(path: str | Path, obj: Any) -> None:
    """Writes `obj` as JSON; a reader, or the next start after a crash, never finds half a file."""
    path, text = Path(path), json.dumps(obj, indent=2) + '\n'
    temporary = path.with_name(f'{path.name}.tmp')
    with temporary.open('w') as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def compare_configs(saved: Mapping, current: Mapping) -> tuple[list[str], list[str]]:
    """Compares the config that a run was saved with to the one that asks to resume it.

    Returns:
      `(conflicts, changes)`: lists of lines such as
      'generator.width: checkpoint has 64, config asks 32'. With a
      conflict the run cannot go on. A change is fine: by _MAY_CHANGE, or because only one of the
      two has the field, when it is the program that has changed.
    """
    saved, current = dict(_flatten(saved)), dict(_flatten(current))
    conflicts, changes = [], []
    for name in dict.fromkeys([*current, *saved]):
        if name not in saved or name not in current:
            changes.append(f'{name}: {"new" if name in current else "no longer there"}')
        elif saved[name] != current[name]:
            lines = changes if _MAY_CHANGE.fullmatch(name) else conflicts
            lines.append(f'{name}: checkpoint has {saved[name]}, config asks {current[name]}')
    return conflicts, changes


def _flatten(config: Mapping, prefix: str = '') -> Iterator[tuple[str, Any]]:
    # Through JSON, as the saved one went: it turns tuples into lists.
    for name, value in json.loads(json.dumps(config)).items():
        if isinstance(value, dict):
            yield from _flatten(value, f'{prefix}{name}.')
        else:
            yield prefix + name, value
