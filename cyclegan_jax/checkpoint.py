"""The checkpoints of a run: written in the background, committed at once, verified when read.

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
import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
from absl import logging

from cyclegan_jax import checkpoint_format, hosts, manifest
from cyclegan_jax.checkpoint_folders import open_folders
from cyclegan_jax.checkpoint_format import CheckpointError, DamagedError, Saved
from cyclegan_jax.errors import check_at_least, describe, shortlist
from cyclegan_jax.storage import absolute, as_path, check_writable, free, in_bucket, write_json

_MOST_FILES = 100  # and folders, in a checkpoint; there are about 50

_on_first = functools.partial(hosts.on_first, error=CheckpointError)


class Checkpoints(contextlib.AbstractContextManager):
    """The checkpoints of one run, in one directory; the newest `keep` and the best stay.

    With several processes all make the same calls, on a directory that they share, of which
    process 0 alone decides what is there. `save`, `newest_good` and `restore` change the directory
    and belong to the run that trains. The other methods only read, and may be called beside it.

    Args:
      before_commit: called on process 0 before a new one counts, which it does not if this raises.
    """

    def __init__(self, directory: str | Path, *, keep: int = 2, before_commit=lambda: None):
        check_at_least('keep_checkpoints', keep, 1)
        self.directory = absolute(as_path(directory))
        self._folders = open_folders(self.directory)
        self._path = self._folders.path
        self._before_commit = before_commit
        self._note = self.directory.with_name(f'{self.directory.name}.json')
        self._keep = keep
        self._worker = ThreadPoolExecutor(1, 'checkpoint')
        self._pending: Future | None = None
        self._verified: int | None = None  # just now, so that its files are not hashed again
        self._saved: Saved | None = None  # what it says, so that it is not read again

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there, oldest first."""
        return self._folders.steps()

    def latest(self) -> int | None:
        return max(self.steps(), default=None)

    def metadata(self, step: int) -> dict:
        """What was saved as metadata with `step`."""
        return self._inspect(step).metadata

    def best_record(self) -> dict | None:
        """{'step', ...}: what was given to `save` with the best checkpoint, if it is there."""
        return _on_first(self._best_record)

    def best(self) -> int:
        """Step of the best checkpoint; raises CheckpointError if there is none."""
        if (record := self._best_record(self.newest_sound())) is None:
            raise CheckpointError(
                f'{self.directory} has no best checkpoint; a run keeps one if its config sets '
                'evaluate_every and keep_best.'
            )
        return record['step']

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

    def newest_sound(self) -> int:
        """As `newest_good`, for one that only reads; raises CheckpointError if there is none."""
        self._verified = next(self._sound())
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

    def restore_networks(
        self,
        step: int | None = None,
        *,
        discriminators: bool = False,
        weights: str | None = None,
        shapes: Callable[[dict], Mapping[str, Any]] | None = None,
    ) -> tuple[dict, dict, int]:
        """Reads parameters alone, to one device: `({'a2b', 'b2a'[, 'a', 'b']}, metadata, step)`.

        Takes the newest good checkpoint, or that of `step`, and changes nothing on disk. Raises
        CheckpointError if there is none, it is damaged, or does not fit.

        Args:
          weights: 'trained', or their 'average', the default where one is kept.
          shapes: from the metadata to the parameters as jax.ShapeDtypeStructs, under the names of
            what is returned: what the networks that the metadata describes must find.
        """
        if step is not None and step not in (found := self.steps()):
            there = shortlist(reversed(found)) or 'none'
            raise CheckpointError(
                f'{self.directory} has no checkpoint of step {step}; there are {there}.'
            )
        for candidate in self._sound(step):
            try:
                saved = self._inspect(candidate)
                params = checkpoint_format.load_networks(saved, discriminators, weights, shapes)
            except DamagedError as error:
                self._pass_over(candidate, error)
            else:
                return params, saved.metadata, candidate
        raise AssertionError('_sound raises where it ends')

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

    def _best_record(self, newest: float = math.inf) -> dict | None:
        steps = self.steps()
        for step in reversed([step for step in steps if step <= newest]):
            with contextlib.suppress(CheckpointError):  # that of the one before is as good
                record = self._inspect(step).best_record()
                return record if record and record['step'] in steps else None
        return None

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

    def _by_trust(self) -> list[int]:
        """Newest first, those that can be verified before the others.

        Programs up to 0.1.0 wrote the sums after the rename, and could die in between.
        """
        return sorted(self.steps(), key=lambda s: (manifest.is_sealed(self._path(s)), s))[::-1]

    def _sound(self, step: int | None = None) -> Iterator[int]:
        """Checkpoints with sound files, the best to take first; or only `step`.

        Lists them anew each time, since the run may delete what was there a moment ago.
        """
        tried = []
        while left := [s for s in (self._by_trust() if step is None else [step]) if s not in tried]:
            tried.append(left[0])
            try:
                self._verify(left[0])
            except DamagedError as error:
                self._pass_over(left[0], error)
            else:
                if step is None and left[0] != self.latest():
                    logging.warning('Checkpoint %d is used, not the newest.', left[0])
                yield left[0]
        raise CheckpointError(f'no good checkpoint in {self.directory} among {tried}.')

    def _verify(self, step: int) -> None:
        """Raises DamagedError unless the files are those that were written, as far as known."""
        path = self._path(step)
        known, self._verified = self._verified, None
        if step == known:
            return
        self._saved = None
        if damaged := manifest.is_sealed(path) and manifest.first_damaged(path):
            raise DamagedError(f'{damaged} is gone or has changed since it was written.')
        saved = self._inspect(step)
        if not manifest.is_sealed(path):
            if jax.process_count() == 1:  # orbax would wait for the others
                checkpoint_format.check_readable(saved)
            logging.warning('%s has no SHA256SUMS: what it holds cannot be verified.', path)

    def _inspect(self, step: int) -> Saved:
        if self._saved is None or self._saved.path != self._path(step):
            self._saved = checkpoint_format.inspect(self._path(step))
        return self._saved

    def _pass_over(self, step: int, error: DamagedError) -> None:
        if self._path(step).exists():  # or else the run has just deleted it
            logging.warning('Passing over a damaged checkpoint: %s', error)

    def _set_aside(self, step: int, reason: object) -> None:
        aside = self._folders.set_aside(step)
        logging.error('Checkpoint %d is damaged, and set aside as %s: %s', step, aside, reason)
