"""Folders of image files."""

import collections
import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from cyclegan_jax.data import arrays
from cyclegan_jax.data.sources.source import MissingSplit, Source, digest
from cyclegan_jax.errors import UserError, shortlist
from cyclegan_jax.pixels import Pixels
from cyclegan_jax.storage import as_path, in_bucket, objects

EXTENSIONS = (
    *('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.webp', '.tif', '.tiff', '.bmp', '.gif'),
    *('.ppm', '.pgm', '.pbm', '.pnm', '.avif', '.jp2', '.j2k'),
)


class Folder(Source):
    """Image files below `path`/`split`, sorted by path; `split` may lead to any other place.

    Files in a bucket are read from there each time; one listing gives their names and sizes. Files
    of arrays count where photographs are not wanted, or not there.
    """

    def __init__(self, path: str, split: str, channels: int, pixels: Pixels | None = None):
        parent, root = _expand(path), _expand(split)
        self._root = root if in_bucket(root) or root.is_absolute() else parent / root
        if not path and not self._root.is_dir() and not self._root.is_absolute():
            raise MissingSplit(
                f'data.path is not set, and there is no folder {self._root} here; name the folder '
                'that holds trainA and trainB, as in --config.data.path=datasets/mine'
            )
        if not self._root.is_dir():
            raise MissingSplit(
                f'no folder {self._root} (expected trainA, trainB and perhaps testA, testB '
                f'in data.path={path!r}, {_found(parent)}); set data.path, data.split_a, ...'
            )
        every = EXTENSIONS if pixels is None else (*EXTENSIONS, *arrays.SUFFIXES)
        photographs = pixels is None or pixels.as_pillow
        self.files, others = _image_files(self._root, EXTENSIONS if photographs else every)
        if not self.files and every != EXTENSIONS:
            self.files, others = _image_files(self._root, every)
        if not self.files:
            raise UserError(
                f'no images in {self._root} ({_found(self._root)}; wanted: {" ".join(every)})'
            )
        if others:
            counts = (f'{n} {suffix or "without a suffix"}' for suffix, n in others.most_common())
            logging.warning(
                '%s: %d files are not read, as their names are not those of images that can be: %s',
                self._root,
                others.total(),
                shortlist(counts, 8),
            )
        self._paths, self.channels = list(self.files), channels

    def __len__(self) -> int:
        return len(self._paths)

    def name(self, index: int) -> str:
        return str(self._paths[index])

    def fingerprint(self) -> str:
        return digest(
            'folder', *((str(path.relative_to(self._root)), n) for path, n in self.files.items())
        )

    def stored(self, index: int) -> Path | bytes:
        path = self._paths[index]
        return path.read_bytes() if in_bucket(path) else path


def find_duplicates(sources: Sequence[Source]) -> list[tuple[str, str]]:
    """Pairs of files of different sources that have the same content."""
    by_size = collections.defaultdict(list)
    for number, source in enumerate(sources):
        for path, size in source.files.items():
            if size:
                by_size[size].append((number, path))
    pairs = []
    for files in by_size.values():
        if len({number for number, _ in files}) == 1:
            continue
        seen = {}
        for number, path in files:
            try:
                content = hashlib.sha256(path.read_bytes()).digest()
            except OSError:
                continue  # decoding reports it
            first_number, first = seen.setdefault(content, (number, path))
            if number != first_number:
                pairs.append((str(first), str(path)))
    return pairs


def _image_files(
    root: Path, extensions: tuple[str, ...]
) -> tuple[dict[Path, int], collections.Counter]:
    """What is below `root`, but for hidden files; follows links, but never twice.

    Returns:
      Sorted image files and their sizes in bytes, and how many others there are by suffix.
    """
    if in_bucket(root):
        return _image_objects(root, extensions)

    def fail(error: OSError):
        raise UserError(f"can't list {error.filename}: {error.strerror}") from error

    files, others, visited = {}, collections.Counter(), set()
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=fail):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in visited:
            subfolders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith('.'))
        for name in names:
            path = Path(folder, name)
            if name.startswith('.'):
                continue
            if not name.lower().endswith(extensions):
                others[path.suffix.lower()] += 1
                continue
            try:
                status = path.stat()
            except OSError:
                files[path] = 0  # a broken link; kept, so that it is reported
                continue
            if stat.S_ISREG(status.st_mode):
                files[path] = status.st_size
    return dict(sorted(files.items())), others


def _image_objects(
    root: Path, extensions: tuple[str, ...]
) -> tuple[dict[Path, int], collections.Counter]:
    """`_image_files` of a folder in a bucket."""
    files, others = {}, collections.Counter()
    for path, size in objects(root).items():
        if any(part.startswith('.') for part in path.relative_to(root).parts):
            continue
        if path.name.lower().endswith(extensions):
            files[path] = size
        else:
            others[path.suffix.lower()] += 1
    return files, others


def _expand(path: str) -> Path:
    # That of Path raises where there is no such user, or no home.
    return as_path(os.path.expanduser(path), 'data.path or a split')  # noqa: PTH111


def _found(folder: Path) -> str:
    if not folder.is_dir():
        return 'which is not a folder'
    names = sorted(entry.name for entry in folder.iterdir())
    return f'found: {shortlist(names, 8) or "nothing"}'
