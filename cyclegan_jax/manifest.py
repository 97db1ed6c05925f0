"""A list of hashes that tells whether the files of a folder are what was written.

The list is `SHA256SUMS` in the folder itself, so that it goes where the folder goes, and
`sha256sum -c SHA256SUMS` checks it by hand. Files that it does not name are nobody's concern.
"""

import errno
import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cyclegan_jax.storage import flush, in_bucket, objects, write_bytes

NAME = 'SHA256SUMS'

# The file system has lost it. All else is no fault of the file: too many are open, or it belongs
# to another user.
_LOST = (errno.ENOENT, errno.ENOTDIR, errno.EIO)
_READERS = 16  # files of a bucket that are read side by side


def seal(folder: Path) -> None:
    """Waits until all below `folder` is on the disk, then lists the hashes of the files.

    A loss of power can empty a file that was not flushed. So where the list is, the rest is.
    """
    if not in_bucket(folder):
        paths = folder.rglob('*')
        for path in sorted(paths, key=lambda path: path.is_dir()):  # files, then their folders
            flush(path)
    names = sorted(_names(folder))
    sums = zip(_sums(folder, names), names, strict=True)
    lines = [f'{digest}  {name}\n' for digest, name in sums]
    write_bytes(folder / NAME, ''.join(lines).encode())


def is_sealed(folder: Path) -> bool:
    return (folder / NAME).exists()


def first_damaged(folder: Path) -> Path | None:
    """The first file that is gone or has changed since the folder was sealed."""
    path = folder / NAME
    try:
        there = _names(folder)
        lines = path.read_bytes().decode(errors='replace').splitlines()
        if not lines:
            return path
        sums = {name: digest for digest, _, name in (line.partition('  ') for line in lines)}
        if gone := [name for name in sums if name not in there]:
            return folder / gone[0]
        found = _sums(folder, sums)
        for name, digest in sums.items():
            path = folder / name
            if next(found) != digest:
                return path
    except OSError as error:
        if error.errno not in _LOST and not isinstance(error, FileNotFoundError):
            raise
        return path
    return None


def _names(folder: Path) -> set[str]:
    """The files below a folder, as SHA256SUMS names them."""
    if in_bucket(folder):
        paths = objects(folder)
    else:
        paths = [path for path in folder.rglob('*') if path.is_file()]
    return {path.relative_to(folder).as_posix() for path in paths}


def _sums(folder: Path, names: Iterable[str]) -> Iterator[str]:
    paths = [folder / name for name in names]
    if not in_bucket(folder):
        yield from map(_sha256, paths)
        return
    with ThreadPoolExecutor(_READERS) as pool:  # each is mostly a wait
        yield from pool.map(_sha256, paths)


def _sha256(path: Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
