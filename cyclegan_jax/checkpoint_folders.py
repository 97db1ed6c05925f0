"""The folders of checkpoints, named by step: how one appears at once, and goes at once.

On a disk that is a rename: `<step>.tmp` is no checkpoint yet, or none any more, `<step>.damaged` is
none because of its files. A bucket renames one file after the other. There an empty object of such
a name says so of the folder `<step>`.
"""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from cyclegan_jax.storage import flush, in_bucket


def open_folders(directory: Path) -> 'Folders':
    return BucketFolders(directory) if in_bucket(directory) else Folders(directory)


class Folders:
    """On a disk; each change is on it when the call returns."""

    def __init__(self, directory: Path):
        self.directory = directory

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there, oldest first."""
        names = [path.name for path in self.directory.glob('[0-9]*') if path.is_dir()]
        return _numbers(names)

    def path(self, step: int) -> Path:
        return self.directory / str(step)

    def unfinished(self, step: int) -> Path:
        """Where a checkpoint is written, between `begin` and `commit`."""
        return self._none(step)

    def _none(self, step: int) -> Path:
        """A name by which it is none: not yet, or not any more."""
        return self.directory / f'{step}.tmp'

    def _aside(self, step: int) -> Path:
        return self.directory / f'{step}.damaged'

    def begin(self, step: int) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.remove_unfinished()

    def commit(self, step: int) -> None:
        """From here on it is a checkpoint."""
        self.unfinished(step).rename(self.path(step))
        flush(self.directory)

    def give_up(self, step: int) -> None:
        # By one rename, so that no reader takes half of it for a checkpoint.
        self.path(step).rename(self._none(step))
        shutil.rmtree(self._none(step))

    def set_aside(self, step: int) -> Path:
        """Gives a damaged one a name under which it is none; returns that."""
        aside = self._aside(step)
        shutil.rmtree(aside, ignore_errors=True)
        self.path(step).rename(aside)
        flush(self.directory)
        return aside

    def damaged(self) -> list[str]:
        """Names of those that were set aside."""
        return sorted(path.name for path in self.directory.glob('*.damaged'))

    def remove_unfinished(self) -> None:
        """What a process that died left half written, or half deleted."""
        for pattern in ('[0-9]*.tmp', '[0-9]*.orbax-checkpoint-tmp*'):
            for path in self.directory.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)


class BucketFolders(Folders):
    def steps(self) -> list[int]:
        names = self._names()
        return [s for s in _numbers(names) if not names & {f'{s}.tmp', f'{s}.damaged'}]

    def unfinished(self, step: int) -> Path:
        return self.path(step)

    def begin(self, step: int) -> None:
        self.remove_unfinished()
        self._none(step).write_bytes(b'')
        if (damaged := self._aside(step)).exists():
            self.path(step).rmtree(missing_ok=True)
            damaged.unlink()

    def commit(self, step: int) -> None:
        self._none(step).unlink()

    def give_up(self, step: int) -> None:
        self._none(step).write_bytes(b'')
        self._remove(step)

    def set_aside(self, step: int) -> Path:
        aside = self._aside(step)
        aside.write_bytes(b'')
        return aside

    def damaged(self) -> list[str]:
        return sorted(name for name in self._names() if name.endswith('.damaged'))

    def remove_unfinished(self) -> None:
        marked = [name for name in self._names() if name.endswith('.tmp')]
        for step in _numbers(name.removesuffix('.tmp') for name in marked):
            self._remove(step)

    def _remove(self, step: int) -> None:
        self.path(step).rmtree(missing_ok=True)
        self._none(step).unlink(missing_ok=True)

    def _names(self) -> set[str]:
        try:
            return {path.name for path in self.directory.iterdir()}
        except FileNotFoundError:  # nothing lies there
            return set()


def _numbers(names: Iterable[str]) -> list[int]:
    return sorted(int(name) for name in names if re.fullmatch('0|[1-9][0-9]*', name))
