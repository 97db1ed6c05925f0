"""Data sets of the package `datasets`: from the Hugging Face hub, or from a folder."""

import functools
from pathlib import Path

import numpy as np

from cyclegan_jax.data.images import ImageError
from cyclegan_jax.data.sources.source import MissingSplit, Source, digest
from cyclegan_jax.errors import UserError, describe


class HuggingFace(Source):
    """One column of one split of a data set: of images, or of arrays of two axes or three.

    Empty cells are skipped, so that columns of one table may hold different numbers of images.
    """

    def __init__(self, name: str, split: str, column: str, channels: int):
        try:
            import datasets
            import pyarrow.compute
        except ImportError as error:
            raise UserError(
                "data.source is 'huggingface', which needs the package datasets: "
                'pip install datasets'
            ) from error
        if not name:
            raise UserError(
                "data.name is ''; it must be a data set's id on the hub or a folder written by "
                'save_to_disk.'
            )
        tables = _splits(name)
        if split not in tables:
            raise MissingSplit(
                f'data set {name} has no split {split!r}, only {list(tables)}; set data.split_a '
                'and the like.'
            )
        features = tables[split].features
        found = [c for c in features if _is_image(features[c])]
        if column not in found:
            raise UserError(
                f'data set {name} has no column of images or arrays {column!r}, only {found}; set '
                'data.column_a and data.column_b.'
            )
        table = tables[split].select_columns(column)
        cells = table.with_format('arrow')[:][column]
        self._rows = np.flatnonzero(cells.is_valid())
        if not len(self._rows):
            raise UserError(f'data set {name}, split {split!r}: column {column!r} has no images.')
        self.encoded = isinstance(features[column], datasets.Image)
        if self.encoded:
            self._table = table.cast_column(column, datasets.Image(decode=False))
            stored = pyarrow.compute.struct_field(cells, 'bytes')
            self._stored_sizes = pyarrow.compute.binary_length(stored).to_pylist()
        else:
            self._table, self._dtype = table.with_format('numpy'), features[column].dtype
            self._stored_sizes = [str(features[column]), *self._rows.tolist()]
        self._column, self.channels = column, channels
        self._title, self._homes = f'{name}[{split}][{column}]', _homes(name)

    def __len__(self) -> int:
        return len(self._rows)

    def name(self, index: int) -> str:
        return f'{self._title}[{self._rows[index]}]'

    def fingerprint(self) -> str:
        return digest('huggingface', self._title, self._stored_sizes)

    def stored(self, index: int) -> bytes | Path | np.ndarray:
        cell = self._table[int(self._rows[index])][self._column]
        if not self.encoded:
            return cell.astype(self._dtype)  # all whole numbers come as int64
        if cell['bytes'] is not None:
            return cell['bytes']
        if not cell['path']:
            raise ImageError(self.name(index), 'the cell has neither bytes nor the path of a file')
        # Whoever wrote the table wrote this path: it may name any picture of this machine.
        path = Path(cell['path']).resolve()
        if not any(path.is_relative_to(home) for home in self._homes):
            raise ImageError(
                self.name(index), f'it names the file {path}, which is no part of the data set'
            )
        return path


def _is_image(feature) -> bool:
    import datasets

    arrays = datasets.Array2D, datasets.Array3D, datasets.Array4D
    return isinstance(feature, (datasets.Image, *arrays))


def _homes(name: str) -> list[Path]:
    """Where the files of a data set lie: in its folder, or where the hub's are kept."""
    import datasets
    import huggingface_hub

    caches = (huggingface_hub.constants.HF_HUB_CACHE, datasets.config.HF_DATASETS_CACHE)
    return [Path(home).resolve() for home in ([name] if Path(name).is_dir() else caches)]


@functools.lru_cache(maxsize=2)
def _splits(name: str):
    """All splits of a data set, {name of split: table}, from disk or from the hub."""
    import datasets

    try:
        if Path(name, 'dataset_dict.json').exists() or Path(name, 'state.json').exists():
            loaded = datasets.load_from_disk(name)
        else:
            loaded = datasets.load_dataset(name)
    except Exception as error:
        raise UserError(
            f"can't load the data set {name!r} ({describe(error)}); data.name must be an id on "
            'the hub, reachable or already downloaded, or a folder written by save_to_disk.'
        ) from error
    if isinstance(loaded, datasets.Dataset):
        return {str(loaded.split or 'train'): loaded}
    return loaded
