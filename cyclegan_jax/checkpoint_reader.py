"""The checkpoints of a run, for those who only read: verified, and nothing is changed on disk."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from absl import logging

from cyclegan_jax import checkpoint_format, manifest
from cyclegan_jax.checkpoint_folders import open_folders
from cyclegan_jax.checkpoint_format import CheckpointError, DamagedError, Saved
from cyclegan_jax.errors import shortlist
from cyclegan_jax.storage import absolute, as_path


class CheckpointReader:
    """The checkpoints in one directory, where the run that writes them may go on meanwhile."""

    def __init__(self, directory: str | Path):
        self.directory = absolute(as_path(directory))
        self._folders = open_folders(self.directory)
        self._path = self._folders.path
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

    def best(self) -> int:
        """Step of the best checkpoint; raises CheckpointError if there is none."""
        if (record := self._best_record(self.newest_sound())) is None:
            raise CheckpointError(
                f'{self.directory} has no best checkpoint; a run keeps one if its config sets '
                'evaluate_every and keep_best.'
            )
        return record['step']

    def newest_sound(self) -> int:
        """Step of the newest one with sound files; raises CheckpointError if there is none."""
        self._verified = next(self._sound())
        return self._verified

    def restore_networks(
        self,
        step: int | None = None,
        *,
        discriminators: bool = False,
        weights: str | None = None,
        shapes: Callable[[dict], Mapping[str, Any]] | None = None,
    ) -> tuple[dict, dict, int]:
        """Reads parameters alone, to one device: `({'a2b', 'b2a'[, 'a', 'b']}, metadata, step)`.

        Takes the newest sound checkpoint, or that of `step`. Raises CheckpointError if there is
        none, it is damaged, or does not fit.

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

    def _best_record(self, newest: float = math.inf) -> dict | None:
        steps = self.steps()
        for step in reversed([step for step in steps if step <= newest]):
            with contextlib.suppress(CheckpointError):  # that of the one before is as good
                record = self._inspect(step).best_record()
                return record if record and record['step'] in steps else None
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
