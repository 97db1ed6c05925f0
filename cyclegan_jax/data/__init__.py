"""Unpaired images: `load` opens and checks two domains and gives batches of uint8.

`load` and `Dataset` are imported on first use: they bring grain, which takes a second, and the
commands that only read images have no need of it.
"""

from cyclegan_jax.data.images import ImageError, decode, resize

__all__ = ['Dataset', 'ImageError', 'decode', 'load', 'resize']


def __getattr__(name: str):
    if name == 'load':
        from cyclegan_jax.data.loading import load

        return load
    if name == 'Dataset':
        from cyclegan_jax.data.pipeline import Dataset

        return Dataset
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
