"""Images that are stored as rows of a table: TFDS builders and Hugging Face data sets.

Both are read undecoded, because `images` has rules that their own decoders lack.
"""

import functools
from pathlib import Path

import numpy as np

from cyclegan_jax.data import images
from cyclegan_jax.data.sources import MissingSplit, digest


class _Records:
    """What both have in common; they add `__len__`, `fingerprint` and `_encoded`."""

    _title: str
    _channels: int

    def __getitem__(self, index: int) -> np.ndarray:
        return images.decode(self._encoded(index), self._channels, name=self.name(index))

    def name(self, index: int) -> str:
        return f'{self._title}[{index}]'

    def size(self, index: int) -> tuple[int, int]:
        return images.read_size(self._encoded(index), name=self.name(index))


class Tfds(_Records):
    """One split of a prepared TFDS builder with an `image` feature. Needs no TensorFlow."""

    def __init__(self, name: str, split: str, path: str, channels: int):
        import tensorflow_datasets as tfds

        if not name:
            raise ValueError("data.name is '', must name a TFDS builder: cycle_gan/horse2zebra")
        prepare = f'tfds build {name} --file_format=array_record'
        prepare += f' --data_dir={path}' if path else ''
        try:
            builder = tfds.builder(name, data_dir=path or None)
        except Exception as error:
            reason = str(error).partition('\n')[0]
            raise ValueError(f'data.name is {name!r}, not a TFDS builder ({reason})') from error
        if not builder.is_prepared():
            raise ValueError(
                f'TFDS builder {name} is not prepared in {builder.data_dir}; prepare it once, '
                f'with TensorFlow installed: {prepare}'
            )
        info = builder.info
        filled = [name for name in info.splits if info.splits[name].num_examples]
        if split.partition('[')[0] not in filled:
            raise MissingSplit(
                f'TFDS builder {name} has no split {split!r} with images, only {filled}: set '
                'data.split_a and the like'
            )
        if 'image' not in info.features:
            raise ValueError(f"TFDS builder {name} has no feature 'image': {list(info.features)}")
        try:
            self._records = builder.as_data_source(
                split, decoders={'image': tfds.decode.SkipDecoding()}
            )
        except NotImplementedError as error:
            raise ValueError(
                f'TFDS builder {name} in {builder.data_dir} is stored as {info.file_format.value}, '
                f'which has no random access; delete it and prepare it again: {prepare}'
            ) from error
        self._title = f'{info.full_name}[{split}]'
        self._channels = channels

    def __len__(self) -> int:
        return len(self._records)

    def fingerprint(self) -> str:
        return digest('tfds', self._title, len(self))

    def _encoded(self, index: int) -> bytes:
        return self._records[index]['image']


class HuggingFace(_Records):
    """One image column of one split of a data set of the package `datasets`.

    Empty cells are skipped, so that columns of one table may hold different numbers of images.
    """

    def __init__(self, name: str, split: str, column: str, channels: int):
        try:
            import datasets
            import pyarrow.compute
        except ImportError as error:
            raise ValueError(
                "data.source is 'huggingface', which needs the package datasets: "
                'pip install datasets'
            ) from error
        if not name:
            raise ValueError(
                "data.name is '', must be a data set's id on the hub or a folder written by "
                'save_to_disk'
            )
        tables = _splits(name)
        if split not in tables:
            raise MissingSplit(
                f'data set {name} has no split {split!r}, only {list(tables)}: set data.split_a '
                'and the like'
            )
        features = tables[split].features
        found = [c for c in features if isinstance(features[c], datasets.Image)]
        if column not in found:
            raise ValueError(
                f'data set {name} has no image column {column!r}, only {found}: set '
                'data.column_a and data.column_b'
            )
        table = tables[split].select_columns(column)
        self._table = table.cast_column(column, datasets.Image(decode=False))
        cells = self._table.with_format('arrow')[:][column]
        self._rows = np.flatnonzero(cells.is_valid())
        if not len(self._rows):
            raise ValueError(f'data set {name}, split {split!r}: column {column!r} has no images')
        stored = pyarrow.compute.struct_field(cells, 'bytes')
        self._bytes_stored = pyarrow.compute.binary_length(stored).to_pylist()
        self._column, self._channels = column, channels
        self._title = f'{name}[{split}][{column}]'

    def __len__(self) -> int:
        return len(self._rows)

    def name(self, index: int) -> str:
        return f'{self._title}[{self._rows[index]}]'

    def fingerprint(self) -> str:
        return digest('huggingface', self._title, self._bytes_stored)

    def _encoded(self, index: int) -> bytes | str:
        cell = self._table[int(self._rows[index])][self._column]
        return cell['bytes'] or cell['path']


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
        reason = ' '.join(str(error).split())[:200] or type(error).__name__
        raise ValueError(
            f"can't load the data set {name!r} ({reason}); data.name must be an id on the hub, "
            'reachable or already downloaded, or a folder written by save_to_disk'
        ) from error
    if isinstance(loaded, datasets.Dataset):
        return {str(loaded.split or 'train'): loaded}
    return loaded
