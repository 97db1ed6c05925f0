"""A list of hashes that tells whether the files of a folder are what was written.

The list is `SHA256SUMS` in the folder itself, so that it goes where the folder goes, and
`sha256sum -c SHA256SUMS` checks it by hand.
"""

import hashlib
import os
from pathlib import Path

NAME = 'SHA256SUMS'


def write(folder: Path) -> None:
    """Hashes every file below `folder`; the list appears whole or not at all."""
    names = sorted(f.relative_to(folder).as_posix() for f in folder.rglob('*') if f.is_file())
    temporary = folder / f'{NAME}.tmp'
    with temporary.open('w') as file:
        file.writelines(f'{_sha256(folder / name)}  {name}\n' for name in names)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / NAME)


def first_damaged(folder: Path) -> Path | None:
    """The first file that is gone or has changed; None if there is none, or no list."""
    path = folder / NAME
    lines = path.read_text(errors='replace').splitlines() if path.exists() else []
    for digest, _, name in (line.partition('  ') for line in lines):
        if not (folder / name).is_file() or _sha256(folder / name) != digest:
            return folder / name
    return None


def _sha256(path: Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
