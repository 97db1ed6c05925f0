"""Checkpoints of a run: written in the background, committed at once, verified when read.

The only door to orbax. A checkpoint is a directory named by the number of finished updates, and
appears by a single rename once all is written:

    generators/      parameters of a2b and b2a: all that translation and evaluation read
    discriminators/  parameters of a and b
    training/        the rest of the state
    SHA256SUMS       of every file above; `sha256sum -c SHA256SUMS` checks it by hand

orbax restores a flipped bit without a word, so the sums are what tells good from damaged. They are
written after the commit. A checkpoint without them, because the process died in between, is used
if it can be read; a damaged one is renamed to `<step>.damaged` and the one before it is used.
"""

import contextlib
import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from cyclegan_jax import manifest
from cyclegan_jax.storage import write_json

_BEST = 'best.json'

# For a failed write orbax logs a traceback from each of its threads, hundreds of lines, before it
# raises the same error to us; for a good one, twenty lines of progress.
logging.get_absl_logger().addFilter(lambda record: '/orbax/checkpoint/' not in record.pathname)


class CheckpointError(ValueError):
    """A checkpoint cannot be written, found or used; the message is one line."""


class DamagedError(CheckpointError):
    """The files of a checkpoint are not what was written."""


class Checkpoints(contextlib.AbstractContextManager):
    """The checkpoints of one run, in one directory; the newest `keep` (at least 1) stay.

    With several processes all make the same calls, on a directory that they share. `save`,
    `newest_good` and `restore` change the directory and belong to the run that trains. The other
    methods only read, and may be called beside it.
    """

    def __init__(self, directory: str | Path, *, keep: int = 2):
        if keep < 1:
            raise ValueError(f'keep_checkpoints is {keep}; it must be at least 1.')
        self.directory = Path(directory).absolute()
        self._keep = keep
        self._worker = ThreadPoolExecutor(1, 'checkpoint')
        self._pending: Future | None = None

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there, oldest first."""
        names = [path.name for path in self.directory.glob('[0-9]*') if path.is_dir()]
        return sorted(int(name) for name in names if re.fullmatch('0|[1-9][0-9]*', name))

    def latest(self) -> int | None:
        return max(self.steps(), default=None)

    def metadata(self, step: int) -> dict:
        """What was saved as metadata with `step`."""
        return _inspect(self.directory / str(step)).custom_metadata

    def best_record(self) -> dict | None:
        """{'step', ...}: what was given to `save` with the best checkpoint, if there is one."""
        path = self.directory / _BEST
        return json.loads(path.read_text()) if path.exists() else None

    def best(self) -> int:
        """Step of the best checkpoint; raises CheckpointError if there is none."""
        record = self.best_record()
        if record is None or record['step'] not in self.steps():
            raise CheckpointError(
                f'{self.directory} has no best checkpoint; a run keeps one if its config sets '
                'evaluate_every and keep_best.'
            )
        return record['step']

    def save(self, step: int, state: Any, metadata: dict, best: dict | None = None) -> None:
        """Starts to write a checkpoint of `state`, which may be donated as soon as this returns.

        A step that is there already is left as it is. An earlier save is waited for first; raises
        CheckpointError if that one, or this, failed.

        Args:
          state: dataclass with `generators`, `discriminators` and other fields of jax.Arrays.
          metadata: JSON values; with several processes, those of process 0 are kept.
          best: why this is the best checkpoint so far, for `best_record`. It stays until the next.
        """
        self.wait()
        if step in self.steps():
            return
        context = ocp.Context()
        # A directory that cannot be made in the background blocks the exit for five minutes.
        context.asynchronous.create_directories_asynchronously = False
        with self._writing(step), context, jax.transfer_guard('allow'):  # orbax uses np.asarray
            self.directory.mkdir(parents=True, exist_ok=True)
            size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
            free = shutil.disk_usage(self.directory).free
            if size > free:  # said here, where it is one line; from within orbax it is hundreds
                raise OSError(f'it takes {size / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free')
            response = ocp.save_checkpointables_async(
                self.directory / str(step), _split(state), custom_metadata=metadata
            )
        self._pending = self._worker.submit(self._finish, step, response, best)

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

        Sets damaged ones aside, and removes what a process that died left half written. Process 0
        decides for all, so that none restores another step than its peers. Raises CheckpointError
        if all are damaged, on the next start too: a run never begins anew because it lost them.
        """
        newest = -1
        if jax.process_index() == 0:
            for unfinished in self.directory.glob('*.orbax-checkpoint-tmp*'):
                shutil.rmtree(unfinished, ignore_errors=True)
            for step in reversed(self.steps()):
                try:
                    _check(self.directory / str(step))
                    _inspect(self.directory / str(step))
                except DamagedError as error:
                    self._set_aside(step, error)
                else:
                    newest = step
                    break
        newest = int(multihost_utils.broadcast_one_to_all(np.int32(newest)))
        if newest >= 0:
            return newest
        if damaged := sorted(path.name for path in self.directory.glob('*.damaged')):
            raise CheckpointError(
                f'all checkpoints in {self.directory} are damaged: {", ".join(damaged)}; bring '
                'back a good copy of one, or start again in another workdir.'
            )
        return None

    def restore(self, abstract_state: Any) -> tuple[Any, dict, int] | None:
        """Reads `newest_good`: `(state, metadata, step)`, or None if nothing was ever saved.

        Raises CheckpointError if all are damaged, or an array has another name, shape or dtype.

        Args:
          abstract_state: the state as jax.ShapeDtypeStructs with shardings: where the arrays are
            placed, whatever devices they were saved from.
        """
        wanted = _split(abstract_state)
        while (step := self.newest_good()) is not None:
            path = self.directory / str(step)
            try:
                saved = _inspect(path)
                _require_fit(path, saved.metadata, wanted)
                with _reading(path):
                    parts = ocp.load_checkpointables(path, wanted)
            except DamagedError as error:
                self._set_aside(step, error)
                continue
            fields = parts.pop('training') | parts
            return dataclasses.replace(abstract_state, **fields), saved.custom_metadata, step
        return None

    def restore_networks(
        self, step: int | None = None, *, discriminators: bool = False
    ) -> tuple[dict, dict, int]:
        """Reads parameters alone, to one device: `({'a2b', 'b2a'[, 'a', 'b']}, metadata, step)`.

        Takes the newest good checkpoint, or that of `step`, and changes nothing on disk. Raises
        CheckpointError if there is none or it is damaged.
        """
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        found = self.steps()
        if step is not None and step not in found:
            raise CheckpointError(
                f'{self.directory} has no checkpoint of step {step}; there are {found or "none"}.'
            )
        candidates = found[::-1] if step is None else [step]
        names = ['generators', 'discriminators'][: 1 + discriminators]
        for candidate in candidates:
            path = self.directory / str(candidate)
            try:
                _check(path)
                saved = _inspect(path)
                wanted = jax.tree.map(
                    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
                    {name: saved.metadata[name] for name in names},
                )
                with _reading(path):
                    parts = ocp.load_checkpointables(path, wanted)
            except DamagedError as error:
                logging.warning('Passing over a damaged checkpoint: %s', error)
                continue
            networks = {k: v for name in names for k, v in parts[name].items()}
            return networks, saved.custom_metadata, candidate
        raise CheckpointError(f'no good checkpoint in {self.directory} among {candidates}.')

    def _finish(self, step: int, response: ocp.AsyncResponse, best: dict | None) -> None:
        with self._writing(step):
            response.result()
            if jax.process_index() == 0:
                manifest.write(self.directory / str(step))
                if best is not None:
                    write_json(self.directory / _BEST, {'step': step, **best})
                kept = (self.best_record() or {}).get('step')
                for old in self.steps()[: -self._keep]:
                    if old != kept:
                        shutil.rmtree(self.directory / str(old))

    @contextlib.contextmanager
    def _writing(self, step: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise CheckpointError(
                f'checkpoint {step} could not be written to {self.directory}: {_one_line(error)}; '
                f'intact are {self.steps() or "none"}; make room, and run the same command again.'
            ) from error

    def _set_aside(self, step: int, error: Exception) -> None:
        if jax.process_index() == 0:
            aside = self.directory / f'{step}.damaged'
            shutil.rmtree(aside, ignore_errors=True)
            (self.directory / str(step)).rename(aside)
            logging.error('Checkpoint %d is damaged, and now called %s: %s', step, aside, error)


def _split(state: Any) -> dict[str, Any]:
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    networks = {name: fields.pop(name) for name in ('generators', 'discriminators')}
    return networks | {'training': fields}


def _check(path: Path) -> None:
    """Raises DamagedError unless the files are those that were written."""
    if damaged := manifest.first_damaged(path):
        raise DamagedError(f'{damaged} is gone or has changed since it was written.')


def _inspect(path: Path) -> ocp.CheckpointMetadata[dict[str, Any]]:
    """Names, shapes and dtypes of the arrays, and the run's metadata."""
    parts = {'generators', 'discriminators', 'training'}
    with _reading(path):
        saved = ocp.checkpointables_metadata(path)
    if saved.commit_timestamp_nsecs is None or not saved.metadata.keys() >= parts:
        raise DamagedError(f'{path} is incomplete.')
    return saved


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """A failure means damage, unless the files agree with their sums: memory may have run out."""
    try:
        yield
    except Exception as error:
        blame = CheckpointError if (path / manifest.NAME).exists() else DamagedError
        raise blame(f'{path} could not be read: {_one_line(error)}') from error


def _one_line(error: Exception) -> str:
    return ' '.join(str(error).split())[:300] or type(error).__name__


def _require_fit(path: Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """orbax casts another dtype in silence, and reports another shape in terms of its own."""
    has, want = _describe(saved), _describe(wanted)
    lines = [
        f'{name}: checkpoint has {has.get(name, "nothing")}, this run {want.get(name, "nothing")}'
        for name in sorted({name for name, _ in has.items() ^ want.items()})
    ]
    if lines:
        more = f'; and {len(lines) - 4} more' if len(lines) > 4 else ''
        raise CheckpointError(
            f'{path} does not fit: {"; ".join(lines[:4])}{more}; go on with the config that it was '
            'saved with, or use another workdir.'
        )


def _describe(parts: dict[str, Any]) -> dict[str, str]:
    """`{'generators.a2b.Conv_0.kernel': 'float32[7, 7, 3, 64]', ...}`."""
    described = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(parts):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.eval_shape(jax.random.key_data, leaf)  # as it is saved
        name = jax.tree_util.keystr(keys, simple=True, separator='.')
        described[name] = f'{leaf.dtype}{list(leaf.shape)}'
    return described
