"""TFDS builders, read without TensorFlow."""

import numpy as np

from cyclegan_jax.data.sources.source import MissingSplit, Source, digest
from cyclegan_jax.errors import UserError, describe


class Tfds(Source):
    """A split, a slice or a sum of them ('trainA[:50%]+trainB') of a prepared builder of images.

    Its feature 'image' is an Image of any type, or a Tensor: (height, width), with channels first
    or last.
    """

    def __init__(self, name: str, split: str, path: str, channels: int):
        import tensorflow_datasets as tfds

        if not name:
            raise UserError("data.name is ''; it must name a TFDS builder: cycle_gan/horse2zebra.")
        prepare = f'tfds build {name} --file_format=array_record'
        prepare += f' --data_dir={path}' if path else ''
        try:
            builder = tfds.builder(name, data_dir=path or None)
        except Exception as error:
            reason = str(error).partition('\n')[0]
            raise UserError(f'data.name is {name!r}, not a TFDS builder ({reason}).') from error
        if not builder.is_prepared():
            raise UserError(
                f'TFDS builder {name} is not prepared in {builder.data_dir}; prepare it once, '
                f'with TensorFlow installed: {prepare}'
            )
        info = builder.info
        filled = [name for name in info.splits if info.splits[name].num_examples]
        if not {part.partition('[')[0] for part in split.split('+')} <= set(filled):
            raise MissingSplit(
                f'TFDS builder {name} has no split {split!r} with images, only {filled}; set '
                'data.split_a and the like.'
            )
        if 'image' not in info.features:
            raise UserError(f"TFDS builder {name} has no feature 'image': {list(info.features)}.")
        feature = info.features['image']
        # Floats are kept as PNG of their bytes, which TFDS alone knows.
        self.encoded = isinstance(feature, tfds.features.Image) and feature.np_dtype in (
            np.uint8,
            np.uint16,
        )
        decoders = {'image': tfds.decode.SkipDecoding()} if self.encoded else None
        try:
            self._records = builder.as_data_source(split, decoders=decoders)
        except NotImplementedError as error:
            raise UserError(
                f'TFDS builder {name} in {builder.data_dir} is stored as {info.file_format.value}, '
                f'which has no random access; delete it and prepare it again: {prepare}'
            ) from error
        except (ValueError, AssertionError) as error:  # a slice that is none, or reaches too far
            raise UserError(f'data split {split!r} of {name}: {describe(error)}') from error
        self._title = f'{info.full_name}[{split}]'
        self.channels = channels

    def __len__(self) -> int:
        return len(self._records)

    def name(self, index: int) -> str:
        return f'{self._title}[{index}]'

    def fingerprint(self) -> str:
        return digest('tfds', self._title, len(self))

    def stored(self, index: int) -> bytes | np.ndarray:
        return self._records[index]['image']
