"""The checkpoints of the run that writes them: in the background, each committed at once.

A checkpoint is a directory named by the number of finished updates. It is made in this order, each
step on the disk before the next, so that neither a kill nor a loss of power costs one that was
there before:

1. orbax writes `<step>.tmp`, and flushes only some of it.
2. All of it is flushed, and the sums are written.
3. It is renamed to `<step>`: from here on it is a checkpoint.
4. `checkpoints.json` notes, beside the directory, that there was one.
5. Older ones are renamed to `<step>.tmp`, and deleted.

In a bucket the order is the same; `checkpoint_folders` says what stands for the renaming. orbax's
own Checkpointer cannot keep this order: what its PreservationPolicy gives up, it deletes as soon as
it has renamed the next.

Which checkpoint is the best so far stands in the metadata of each, and so is committed with it.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
from absl import logging

from cyclegan_jax import checkpoint_format, hosts, manifest
from cyclegan_jax.checkpoint_format import CheckpointError, DamagedError
from cyclegan_jax.checkpoint_reader import CheckpointReader
from cyclegan_jax.errors import check_at_least, describe, shortlist
from cyclegan_jax.storage import check_writable, free, in_bucket, write_json

_MOST_FILES = 100  # and folders, in a checkpoint; there are about 50

_on_first = functools.partial(hosts.on_first, error=CheckpointError)


class Checkpoints(CheckpointReader, contextlib.AbstractContextManager):
    """The checkpoints of one run, in one directory; the newest `keep` and the best stay.

    With several processes all make the same calls, on a directory that they share, of which
    process 0 alone decides what is there.

    Args:
      before_commit: called on process 0 before a new one counts, which it does not if this raises.
    """

    def __init__(self, directory: str | Path, *, keep: int = 2, before_commit=lambda: None):
        check_at_least('keep_checkpoints', keep, 1)
        super().__init__(directory)
        self._before_commit = before_commit
        self._note = self.directory.with_name(f'{self.directory.name}.json')
        self._keep = keep
        self._worker = ThreadPoolExecutor(1, 'checkpoint')
        self._pending: Future | None = None

    def best_record(self) -> dict | None:
        """{'step', ...}: what was given to `save` with the best checkpoint, if it is there."""
        return _on_first(self._best_record)

    def save(self, step: int, state: Any, metadata: dict, best: Mapping | None = None) -> None:
        """Starts to write a checkpoint of `state`, which may be donated as soon as this returns.

        A step that is there already is left as it is. An earlier save is waited for first; raises
        CheckpointError if that one, or this, failed.

        Args:
          state: dataclass with `generators`, `discriminators` and other fields of jax.Arrays.
          metadata: JSON values; with several processes, those of process 0 are kept.
          best: why this is the best checkpoint so far, for `best_record`. It stays until the next.
        """
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        if not _on_first(lambda: self._make_ready(step, size)):
            return
        self.wait()  # process 0 has, to tell the others if it failed
        record = {'step': step, **best} if best is not None else self.best_record()
        with self._writing(step, size):
            path = self._folders.unfinished(step)
            response = checkpoint_format.write(path, state, metadata, record)
        self._pending = self._worker.submit(self._finish, step, size, response.result)

    def check(self) -> None:
        """Raises CheckpointError if a save has failed by now; waits for nothing."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Returns when nothing is being written; raises CheckpointError if the last save failed."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Ends the background thread when all is written; raises like `wait`."""
        self._worker.shutdown()
        self.wait()

    def __exit__(self, *_: object) -> None:
        self.close()

    def newest_good(self) -> int | None:
        """Step of the newest checkpoint with sound files, or None if nothing was ever saved.

        Sets damaged ones aside, and removes what a process that died left half written. Raises
        CheckpointError if all are damaged or gone, on the next start too: a run never begins anew
        because it lost them. Also if the directory cannot be written, or holds one of a newer
        format.
        """
        self._verified = _on_first(self._find_good)
        return self._verified

    def restore(self, abstract_state: Any) -> tuple[Any, dict, int] | None:
        """Reads `newest_good`: `(state, metadata, step)`, or None if nothing was ever saved.

        Raises CheckpointError as that does, or if an array has another name, shape or dtype.

        Args:
          abstract_state: the state as jax.ShapeDtypeStructs with shardings: where the arrays are
            placed, whatever devices they were saved from. A field that checkpoints of older
            programs lack says what it is there: its metadata have 'later', a function of the other
            fields, by name. The arrays are copied, and placed.
        """
        if (step := self.newest_good()) is None:
            return None
        saved = self._inspect(step)
        self._verified = self._saved = None
        return checkpoint_format.load(saved, abstract_state), saved.metadata, step

    def _make_ready(self, step: int, size: int) -> bool:
        """Makes room for a checkpoint; False if it is there already."""
        self.wait()
        with self._writing(step, size):
            if step in self.steps():
                return False
            self._folders.begin(step)
            # Said here, where it is one line; from within orbax it is hundreds.
            room, files = free(self.directory)
            if room < size:
                raise OSError('the disk is full')
            if files < _MOST_FILES:
                raise OSError(f'only {files} more files can be made there')
        return True

    def _finish(self, step: int, size: int, wait: Callable[[], None]) -> None:
        with self._writing(step, size):
            wait()
            if jax.process_index() == 0:
                self._commit(step)

    def _commit(self, step: int) -> None:
        self._before_commit()
        manifest.seal(self._folders.unfinished(step))
        self._folders.commit(step)
        write_json(self._note, {'newest': step})  # flushes where both are named, too
        best = (self._best_record() or {}).get('step')
        for old in self.steps()[: -self._keep]:
            if old != best:
                self._folders.give_up(old)

    @contextlib.contextmanager
    def _writing(self, step: int, size: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise CheckpointError(
                f'checkpoint {step} could not be written to {self.directory}: {describe(error)}; '
                f'{self._what_to_do(size)} run the same command again.'
            ) from error

    def _what_to_do(self, size: int) -> str:
        if in_bucket(self.directory):
            return 'those before it are intact;'
        room = f'it takes {size / 1e6:,.3f} MB'
        with contextlib.suppress(OSError):
            room += f', and {free(self.directory)[0] / 1e6:,.3f} MB are free'
        return f'{room}; intact are {self.steps() or "none"}; make room, and'

    def _find_good(self) -> int | None:
        check_writable(self.directory)
        self._folders.remove_unfinished()
        for step in self._by_trust():
            try:
                self._verify(step)
            except DamagedError as error:
                self._set_aside(step, error)
                continue
            for newer in [s for s in self.steps() if s > step]:
                self._set_aside(newer, 'it has no SHA256SUMS, which one before it has')
            self._best_record()  # to be told now if it cannot be read
            return step
        if damaged := self._folders.damaged():
            raise CheckpointError(
                f'all checkpoints in {self.directory} are damaged: {shortlist(damaged)}; bring '
                'back a good copy of one, or start again in another workdir.'
            )
        for note in (self._note, self.directory / 'best.json'):  # the latter up to 0.1.0
            if note.exists():
                raise CheckpointError(
                    f'{self.directory} has no checkpoint, but {note} says that there were some; '
                    'bring them back, or remove that file to start again.'
                )
        return None

    def _set_aside(self, step: int, reason: object) -> None:
        aside = self._folders.set_aside(step)
        logging.error('Checkpoint %d is damaged, and set aside as %s: %s', step, aside, reason)
