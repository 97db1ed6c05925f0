"""Where images come from: rendered scenes and folders (`records` has the others).

A source gives random access to the images of one split of one domain, as they are stored.
Opening one checks that it exists and is not empty; reading decodes by the rules of `images`.
"""

import hashlib
import json
import os
import stat
from collections import defaultdict
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from cyclegan_jax.data import images, synthetic
from cyclegan_jax.errors import UserError

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.tif', '.tiff', '.webp')


class MissingSplit(ValueError):
    """There is no such split. Fatal for training images; test images are optional."""


class Source(Protocol):
    """Images of one split of one domain. Reading raises `images.ImageError`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray:
        """The decoded image, uint8 (height, width, channels), not resized."""

    def name(self, index: int) -> str:
        """Tells the user which image this is: its path where it has one."""

    def size(self, index: int) -> tuple[int, int]:
        """Its (height, width), without decoding it."""

    def fingerprint(self) -> str:
        """The same only for the same set of images, judged by names and stored sizes."""


class Synthetic:
    """Scenes drawn by `synthetic.render`. Test images of A and B show the same scenes."""

    def __init__(self, name: str, domain: str, split: str, size: tuple[int, int], channels: int):
        if name not in synthetic.NAMES:
            raise ValueError(f'data.name is {name!r}, must be one of {synthetic.NAMES}')
        self._name, self._domain, self._split = name, domain, split
        self._size, self._channels = size, channels
        self._first = synthetic.FIRST_SCENE[domain, split]

    def __len__(self) -> int:
        return synthetic.NUM_IMAGES[self._split]

    def __getitem__(self, index: int) -> np.ndarray:
        image = self._render(index)['ab'.index(self._domain)]
        return images.to_array(Image.fromarray(image), self._channels)

    def labels(self, index: int) -> np.ndarray:
        """The class of each pixel, uint8 (height, width)."""
        return self._render(index)[2]

    def name(self, index: int) -> str:
        return f'{self._name}_{self._split}_{self._domain}_{index:04}'

    def size(self, index: int) -> tuple[int, int]:
        return self._size

    def fingerprint(self) -> str:
        return digest('synthetic', self._name, self._domain, self._split, self._size, len(self))

    def _render(self, index: int) -> tuple[np.ndarray, ...]:
        return synthetic.render(self._name, self._first + index, self._size)


class Folder:
    """Image files below `path`/`split`, sorted by path; `split` may lead to any other place."""

    def __init__(self, path: str, split: str, channels: int):
        parent, self._channels = Path(path).expanduser(), channels
        self._root = parent / Path(split).expanduser()
        if not path and not self._root.is_dir() and not self._root.is_absolute():
            raise MissingSplit(
                f'data.path is not set, and there is no folder {self._root} here: name the folder '
                'that holds trainA and trainB, as in --config.data.path=datasets/mine'
            )
        if not self._root.is_dir():
            raise MissingSplit(
                f'no folder {self._root} (expected trainA, trainB and perhaps testA, testB '
                f'in data.path={path!r}, {_found(parent)}): set data.path, data.split_a, ...'
            )
        self.files = _image_files(self._root)
        self._paths = list(self.files)
        if not self.files:
            raise UserError(
                f'no images in {self._root} ({_found(self._root)}; wanted: {" ".join(EXTENSIONS)})'
            )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> np.ndarray:
        return images.decode(self._paths[index], self._channels)

    def name(self, index: int) -> str:
        return str(self._paths[index])

    def size(self, index: int) -> tuple[int, int]:
        return images.read_size(self._paths[index])

    def fingerprint(self) -> str:
        return digest(
            'folder', *((str(path.relative_to(self._root)), n) for path, n in self.files.items())
        )


def find_duplicates(folders: list[Folder]) -> list[tuple[str, str]]:
    """Pairs of files of different folders that have the same content."""
    by_size = defaultdict(list)
    for number, folder in enumerate(folders):
        for path, size in folder.files.items():
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


def _image_files(root: Path) -> dict[Path, int]:
    """Sorted image files below `root` and their sizes in bytes; follows links, but never twice."""

    def fail(error: OSError):
        raise ValueError(f"can't list {error.filename}: {error.strerror}") from error

    files, visited = {}, set()
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=fail):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in visited:
            subfolders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith('.'))
        for name in names:
            path = Path(folder, name)
            if name.startswith('.') or path.suffix.lower() not in EXTENSIONS:
                continue
            try:
                status = path.stat()
            except OSError:
                files[path] = 0  # a broken link; kept, so that it is reported
                continue
            if stat.S_ISREG(status.st_mode):
                files[path] = status.st_size
    return dict(sorted(files.items()))


def _found(folder: Path) -> str:
    if not folder.is_dir():
        return 'which is not a folder'
    names = sorted(entry.name for entry in folder.iterdir())
    more = f' and {len(names) - 8} more' if len(names) > 8 else ''
    return f'found: {", ".join(names[:8]) or "nothing"}{more}'


def digest(*parts) -> str:
    """A short hash of anything that JSON can write."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
