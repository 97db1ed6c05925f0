"""A list of hashes that tells whether the files of a folder are what was written.

The list is `SHA256SUMS` in the folder itself, so that it goes where the folder goes, and
`sha256sum -c SHA256SUMS` checks it by hand. Files that it does not name are nobody's concern.
"""

import errno
import hashlib
from pathlib import Path

from cyclegan_jax.storage import flush, whole

NAME = 'SHA256SUMS'

# The file system has lost it. All else is no fault of the file: too many are open, or it belongs
# to another user.
_LOST = (errno.ENOENT, errno.ENOTDIR, errno.EIO)


def seal(folder: Path) -> None:
    """Waits until all below `folder` is on the disk, then lists the hashes of the files.

    A loss of power can empty a file that was not flushed. So where the list is, the rest is.
    """
    paths = sorted(folder.rglob('*'), key=lambda path: path.is_dir())  # files, then their folders
    for path in paths:
        flush(path)
    names = sorted(path.relative_to(folder).as_posix() for path in paths if path.is_file())
    lines = [f'{_sha256(folder / name)}  {name}\n' for name in names]
    with whole(folder / NAME) as temporary:
        temporary.write_text(''.join(lines))


def is_sealed(folder: Path) -> bool:
    return (folder / NAME).exists()


def first_damaged(folder: Path) -> Path | None:
    """The first file that is gone or has changed since the folder was sealed."""
    path = folder / NAME
    try:
        names = {f.relative_to(folder).as_posix() for f in folder.rglob('*') if f.is_file()}
        lines = path.read_text(errors='replace').splitlines()
        if not lines:
            return path
        for digest, _, name in (line.partition('  ') for line in lines):
            path = folder / name
            if name not in names or _sha256(path) != digest:
                return path
    except OSError as error:
        if error.errno not in _LOST:
            raise
        return path
    return None


def _sha256(path: Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
