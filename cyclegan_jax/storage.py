"""Files that appear whole or not at all, survive a loss of power, and are checked when read."""

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cyclegan_jax.errors import UserError

_LARGEST_JSON = 2**24  # bytes; what we write is a thousand times smaller


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which takes its name at the end of the block.

    A reader, or the next start after a crash, finds the old file or the new one, never half of
    one. If the block raises, the old one stays.

    Raises:
      OSError: it cannot be written.
    """
    path = Path(path)
    # Its name is no longer than the other, which may be as long as the file system allows.
    name = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]
    temporary = path.with_name(f'.{name}.tmp')
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    flush(path.parent)


def flush(path: Path) -> None:
    """Waits until a file, or the list of names in a folder, is on the disk."""
    if os.name == 'nt' and path.is_dir():
        return  # Windows opens no folders, and needs no flush of them
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if not path.is_dir() or error.errno != errno.EINVAL:  # some file systems flush no folders
            raise
    finally:
        os.close(handle)


def check_writable(folder: Path) -> None:
    """Raises UserError unless files can be written in a folder, or it does not exist yet."""
    if not os.path.lexists(folder):
        return
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(4096))  # a full disk still makes empty files
    except OSError as error:
        link = f' (a link to {folder.readlink()})' if folder.is_symlink() else ''
        raise UserError(
            f'{folder}{link} cannot be written: {error.strerror}; make it a folder that can be, or '
            'choose another.'
        ) from error


def free(folder: Path) -> tuple[int, float]:
    """Bytes, and files, that can still be written in a folder."""
    stat = os.statvfs(folder) if hasattr(os, 'statvfs') else None
    files = stat.f_favail if stat and stat.f_files else math.inf  # not all file systems count them
    return shutil.disk_usage(folder).free, files


def write_json(path: str | Path, obj: Any) -> None:
    """Writes `obj` as JSON, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(json.dumps(obj, indent=2) + '\n')


def read_json(path: str | Path) -> dict[str, Any]:
    """Reads the JSON object of a file that may come from anywhere.

    Raises:
      UserError: it cannot be read, is too large, or is no JSON object; the line names the file.
    """
    path = Path(path)
    try:
        if (size := path.stat().st_size) > _LARGEST_JSON:
            raise UserError(f'{path} has {size} bytes; at most {_LARGEST_JSON} are read.')
        text = path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, 'strerror', None) or 'it is no text'
        raise UserError(f'{path} cannot be read: {reason}.') from error
    return parse_json(text, str(path))


def parse_json(text: str, where: str) -> dict[str, Any]:
    """The object that a JSON text holds; UserError names `where` it stands if it holds none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f'{where} is damaged: it is no JSON ({error}).') from error
    if not isinstance(found, dict):
        raise UserError(f'{where} is damaged: it holds a {type(found).__name__}, not an object.')
    return found


def check_fields(found: Mapping, wanted: Mapping[str, type | tuple[type, ...]], where: str) -> None:
    """Checks that an object read from a file has these fields, of these types.

    Raises:
      UserError: one is missing or of another type; the line names `where` and the field.
    """
    for name, kind in wanted.items():
        kinds = kind if isinstance(kind, tuple) else (kind,)
        value = found.get(name)
        # In Python True is an int; in a file it is a mistake.
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            names = ' or '.join(k.__name__ for k in kinds)
            seen = repr(value)[:60] if name in found else 'missing'
            raise UserError(f'{where}: field {name!r} is {seen}; it must be of type {names}.')
