"""The workdir of a run in a bucket: a lock that runs out, and small files that are copied over.

A bucket has no locks of a kernel, and nothing can be appended to its files. So the log,
TensorBoard, samples and the config are written to a folder of this machine, and copied as they
change; and the lock is an object that its holder renews. One that is not renewed for some minutes
is free.
"""

import contextlib
import json
import math
import os
import shutil
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorstore
from absl import logging

from cyclegan_jax.errors import UserError, describe
from cyclegan_jax.storage import in_bucket

_LOCK = 'run.lock'
_RENEW_EVERY = 20.0  # seconds
_RUNS_OUT = 120.0  # seconds without a renewal, after which another may take it
_LONG_AGO = 600.0  # seconds that no two clocks differ by: such a lock need not be watched
_COPY_EVERY = 1.0  # seconds
_LARGE = 2**24  # bytes; files that outgrow this, as TensorBoard's, only when a checkpoint is saved
_TIMEOUT = 60.0  # seconds for one access to the lock
_KEPT = 'metrics.jsonl'  # what a run that goes on reads of its files


@contextlib.contextmanager
def open_bucket(path: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Takes the lock of a workdir in a bucket, and holds it.

    Yields:
      A folder of this machine, of which every file comes to the workdir within seconds; and a
      function that copies them now, and raises UserError if the lock was lost.

    Raises:
      UserError: it cannot be read or written, or another process works in it. Whether it does can
        take minutes to see, if that one has died.
    """
    try:
        path.exists()  # gcsfs gives up in a minute, tensorstore later
        lock = Lock(_store(path), str(path))
        lock.take()
    except UserError:
        raise
    except Exception as error:  # of a library for each way to fail
        raise UserError(
            f'workdir {path} cannot be written: {describe(error)}; check the name of the bucket, '
            'your right to write there, and your login (gcloud auth application-default login).'
        ) from error
    files = Path(tempfile.mkdtemp(prefix='cyclegan_jax_'))
    copies = Copies(files, path)

    def copy() -> None:
        lock.check()
        copies.update()

    try:
        with repeated(lock.renew, _RENEW_EVERY):
            copies.fetch()
            try:
                with repeated(lambda: lock.lost or copies.update(_LARGE), _COPY_EVERY):
                    yield files, copy
            finally:
                if not lock.lost and copies.update():
                    shutil.rmtree(files, ignore_errors=True)
                else:
                    logging.warning('Not all files could be copied to %s: see %s', path, files)
    finally:
        lock.release()


@contextlib.contextmanager
def repeated(call: Callable[[], object], seconds: float) -> Iterator[None]:
    """Calls in a thread of its own, every so many seconds, until the block ends."""
    ended = threading.Event()

    def run():
        while not ended.wait(seconds):
            call()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _store(path: Path) -> tensorstore.KvStore:
    assert in_bucket(path)
    bucket, _, folder = str(path).partition('://')[2].partition('/')
    spec = {'driver': 'gcs', 'bucket': bucket, 'path': f'{folder}/' if folder else ''}
    return tensorstore.KvStore.open(spec).result(timeout=_TIMEOUT)


class Lock:
    """An object that says who works here; written only where it is as this process last saw it.

    Args:
      store: where it lies; any that can write under a condition.
      where: what errors call the place.

    Attributes:
      lost: another has taken it, since it was not renewed in time, or has removed it.
    """

    def __init__(self, store: tensorstore.KvStore, where: str):
        self._store, self._where = store, where
        self._id = uuid.uuid4().hex
        self._generation: bytes | None = None  # of the object as it was last written here
        self.lost = False

    def take(self) -> None:
        """Raises UserError if another process holds it; waits to see whether that one lives."""
        seen = self._read()
        if seen.state == 'value':
            holder = _Holder(seen.value)
            if abs(time.time() - holder.time) < _LONG_AGO:
                logging.warning(
                    '%s is in use by %s; waiting up to %d s to see whether it still runs.',
                    self._where,
                    holder,
                    _RUNS_OUT,
                )
                seen = self._watch(seen)
        if not self._write(seen.stamp.generation):
            self._refuse(self._read())

    def _watch(self, seen: tensorstore.KvStore.ReadResult) -> tensorstore.KvStore.ReadResult:
        """The object once it is gone or has run out. Clocks of other machines are not asked."""
        began = time.monotonic()
        while time.monotonic() - began < _RUNS_OUT:
            time.sleep(min(1.0, _RUNS_OUT / 10))
            now = self._read()
            if now.state != 'value':
                return now
            if now.stamp.generation != seen.stamp.generation:
                self._refuse(now)
        return seen

    def renew(self) -> None:
        try:
            if not self.lost and not self._write(self._generation):
                # An answer may have been lost on the way, not the lock.
                now = self._read()
                if _Holder(now.value).id == self._id:
                    self._generation = now.stamp.generation
                else:
                    self.lost = True
        except Exception as error:  # the next time may do
            logging.warning('%s: the lock could not be renewed: %s', self._where, describe(error))

    def check(self) -> None:
        """Raises UserError if it was lost: then another process may write here."""
        if self.lost:
            raise UserError(
                f'workdir {self._where} was taken by another process, as this one could not renew '
                f'its lock for {_RUNS_OUT:.0f} s; nothing more is written there.'
            )

    def release(self) -> None:
        with contextlib.suppress(Exception):  # else it runs out
            condition = {'if_equal': self._generation}
            self._store.write(_LOCK, None, **condition).result(timeout=_TIMEOUT)

    def _refuse(self, found: tensorstore.KvStore.ReadResult) -> None:
        raise UserError(
            f'workdir {self._where} is in use by {_Holder(found.value)}; wait for it, stop it, or '
            'choose another --workdir.'
        )

    def _read(self) -> tensorstore.KvStore.ReadResult:
        return self._store.read(_LOCK).result(timeout=_TIMEOUT)

    def _write(self, generation: bytes) -> bool:
        """False if the object is not of this generation."""
        says = {'process': os.getpid(), 'host': socket.gethostname(), 'time': round(time.time())}
        text = json.dumps({**says, 'id': self._id}).encode()
        stamp = self._store.write(_LOCK, text, if_equal=generation).result(timeout=_TIMEOUT)
        if stamp.generation:
            self._generation = stamp.generation
        return bool(stamp.generation)


class _Holder:
    """Who holds a lock, by what the object says; it may say anything."""

    def __init__(self, text: bytes):
        try:
            says = dict(json.loads(text))
        except (ValueError, TypeError):
            says = {}
        self.id, self.time = says.get('id'), float(says.get('time') or 0)
        self._name = f'process {says.get("process", "?")} on {says.get("host", "?")}'

    def __str__(self) -> str:
        return f'{self._name}, which said so {max(0, time.time() - self.time):.0f} s ago'


class Copies:
    """Copies the files of a folder to a bucket as they change."""

    def __init__(self, files: Path, bucket: Path):
        self._files, self._bucket = files, bucket
        self._copied: dict[Path, tuple[int, int]] = {}  # size and time of what the bucket has
        self._one_at_a_time = threading.Lock()
        self._failed = False

    def fetch(self) -> None:
        """What a run that goes on reads: the log, and which samples there are, by name."""
        if (lines := self._bucket / _KEPT).exists():
            self._note(_KEPT, lines.read_bytes())
        if (samples := self._bucket / 'samples').exists():
            for sample in samples.iterdir():
                if sample.suffix == '.png':
                    self._note(f'samples/{sample.name}', b'')

    def _note(self, name: str, content: bytes) -> None:
        path = self._files / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        self._copied[path] = _state(path)

    def update(self, below: float = math.inf) -> bool:
        """Copies what has changed, of files with fewer bytes; False if that failed.

        A failure is one warning, and tried again the next time.
        """
        with self._one_at_a_time:
            try:
                for path in sorted(self._files.rglob('*')):
                    # One with a point is not whole yet.
                    if path.is_file() and not path.name.startswith('.'):
                        self._copy(path, below)
            except Exception as error:  # of a library for each way to fail
                if not self._failed:
                    logging.warning(
                        'Could not copy to %s (%s); training goes on.',
                        self._bucket,
                        describe(error),
                    )
                self._failed = True
                return False
            self._failed = False
            return True

    def _copy(self, path: Path, below: float) -> None:
        state = _state(path)  # before it is read: what is written meanwhile is copied next time
        if self._copied.get(path) != state and state[0] < below:
            target = self._bucket / path.relative_to(self._files).as_posix()
            target.write_bytes(path.read_bytes())
            self._copied[path] = state


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
