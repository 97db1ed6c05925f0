"""Files that appear whole or not at all, survive a loss of power, and are checked when read.

They lie on a disk, or in a bucket: `as_path` makes the path of either, with the same methods. In a
bucket a file always appears whole, and is safe when the call that writes it returns.
"""

import contextlib
import errno
import functools
import hashlib
import importlib.util
import json
import logging
import math
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cyclegan_jax.errors import UserError, describe

_BUCKET = 'gs://'
_LARGEST_JSON = 2**24  # bytes; what we write is a thousand times smaller


def as_path(name: str | os.PathLike, flag: str = 'the path') -> Path:
    """The path of a file or folder on this machine, or of one in a bucket, as `etils.epath.Path`.

    Args:
      flag: what errors call it.

    Raises:
      UserError: it is neither, or the package that reads buckets is not installed.
    """
    text = os.fspath(name)
    scheme = re.match(r'([A-Za-z][\w+.-]+):/', text)  # of one letter it is a drive of Windows
    if not scheme:
        return Path(name)
    if not re.match(f'{_BUCKET}[^/]', text):
        close = scheme[1].lower() in ('gs', 'gcs', 'g', 'gcp', 'google', 'storage')
        raise UserError(
            f'{flag} is {text}; it must be a folder of this machine, or gs://BUCKET/FOLDER in '
            'Google Cloud Storage'
            + ('.' if close else '; mount other storage, and name the folder where it is mounted.')
        )
    if not importlib.util.find_spec('gcsfs'):
        raise UserError(f"{flag} is {text}, which needs gcsfs: pip install 'cyclegan_jax[gcs]'")
    _set_up_buckets()
    from etils import epath

    return epath.Path(text)


def check_local(name: str, flag: str = 'the path') -> None:
    """Raises UserError for what can only be on this machine, and is not."""
    if in_bucket(as_path(name, flag)):
        raise UserError(
            f'{flag} is {name}, in a bucket; it must be on this machine: copy what is there, as in '
            '`gcloud storage cp -r`.'
        )


def in_bucket(path: str | os.PathLike) -> bool:
    return os.fspath(path).startswith(_BUCKET)


def absolute(path: Path) -> Path:
    return path if in_bucket(path) else path.absolute()


@functools.cache
def _set_up_buckets() -> None:
    # Or else etils reads them through TensorFlow, where that is installed.
    os.environ.setdefault('EPATH_USE_TF', 'false')
    # Or else gcsfs asks of what kind a bucket is, time and again where it may not know.
    os.environ.setdefault('GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT', 'false')
    # It logs a traceback for what it raises.
    logging.getLogger('gcsfs').setLevel(logging.CRITICAL)
    import fsspec

    # orbax writes checkpoints past gcsfs, and other processes do: what it has listed is not kept.
    fsspec.config.conf.setdefault('gcs', {})['use_listings_cache'] = False


def objects(folder: Path) -> dict[Path, int]:
    """All files below a folder of a bucket, sorted, and their sizes in bytes; in one listing."""
    import fsspec
    from etils import epath

    files, root = fsspec.url_to_fs(os.fspath(folder))
    found = files.find(root, detail=True)
    # A console makes an empty object for a folder, and calls it like the folder.
    sizes = {epath.Path(_BUCKET + name): told['size'] for name, told in found.items()}
    return {path: sizes[path] for path in sorted(sizes) if path != folder}


def outages() -> tuple[type[Exception], ...]:
    """What the way to a bucket raises beside OSError, if one was taken."""
    if 'gcsfs' not in sys.modules:
        return ()
    import aiohttp
    from gcsfs.retry import ChecksumError, HttpError
    from google.auth.exceptions import GoogleAuthError

    return aiohttp.ClientError, ChecksumError, HttpError, GoogleAuthError


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which takes its name at the end of the block.

    A reader, or the next start after a crash, finds the old file or the new one, never half of
    one. If the block raises, the old one stays.

    Raises:
      OSError: it cannot be written.
    """
    path = as_path(path)
    if in_bucket(path):
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder, 'whole')
            yield temporary
            path.write_bytes(temporary.read_bytes())
        return
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
    if in_bucket(path):
        return
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


def probe(folder: Path) -> None:
    """Raises OSError unless files can be written in a folder of a disk."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(4096))  # a full disk still makes empty files


def check_writable(folder: Path) -> None:
    """Raises UserError unless files can be written in a folder, or it does not exist yet."""
    if in_bucket(folder) or not os.path.lexists(folder):
        return
    try:
        probe(folder)
    except OSError as error:
        link = f' (a link to {folder.readlink()})' if folder.is_symlink() else ''
        raise UserError(
            f'{folder}{link} cannot be written: {error.strerror}; make it a folder that can be, or '
            'choose another.'
        ) from error


def free(folder: Path) -> tuple[float, float]:
    """Bytes, and files, that can still be written in a folder."""
    if in_bucket(folder):
        return math.inf, math.inf
    stat = os.statvfs(folder) if hasattr(os, 'statvfs') else None
    files = stat.f_favail if stat and stat.f_files else math.inf  # not all file systems count them
    return shutil.disk_usage(folder).free, files


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes a file, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: str | Path, obj: Any) -> None:
    """Writes `obj` as JSON, whole or not at all."""
    write_bytes(path, (json.dumps(obj, indent=2) + '\n').encode())


def read_json(path: str | Path) -> dict[str, Any]:
    """Reads the JSON object of a file that may come from anywhere.

    Raises:
      UserError: it cannot be read, is too large, or is no JSON object; the line names the file.
    """
    path = as_path(path)
    try:
        status = path.stat()
        size = status.length if in_bucket(path) else status.st_size
        if size > _LARGEST_JSON:
            raise UserError(f'{path} has {size} bytes; at most {_LARGEST_JSON} are read.')
        text = path.read_bytes().decode('utf-8')
    except UnicodeDecodeError as error:
        raise UserError(f'{path} cannot be read: it is no text.') from error
    except OSError as error:
        reason = error.strerror or describe(error)
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
