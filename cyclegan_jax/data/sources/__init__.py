"""Where images come from: one module a kind of source, and the table that names them.

A new kind is a module here and a line in the table; it may be called by any name that
`data.source` should have.
"""

import inspect

from cyclegan_jax.data.sources.folder import Folder
from cyclegan_jax.data.sources.huggingface import HuggingFace
from cyclegan_jax.data.sources.pages import Pages
from cyclegan_jax.data.sources.source import MissingSplit, Source
from cyclegan_jax.data.sources.synthetic import Synthetic
from cyclegan_jax.data.sources.tfds import Tfds
from cyclegan_jax.pixels import PHOTOGRAPHS

__all__ = ['SOURCES', 'Folder', 'MissingSplit', 'Source', 'open_source']

SOURCES = {'synthetic': Synthetic, 'folder': Folder, 'tfds': Tfds, 'huggingface': HuggingFace}


def open_source(kind: str, **fields) -> Source:
    """Opens one split of one domain. A source gets those of `fields` that its class asks for.

    Args:
      kind: one of SOURCES.
      path, name, split, column, channels: as config.data has them for this split and domain.
      domain: 'a' or 'b'.
      test: whether these are the images to test on.
      size: the (height, width) that images of any size would be resized to.
      pixels: of the domain; photographs by default.

    Raises:
      MissingSplit: there is no such split.
      UserError: it can't be read.
    """
    asked = inspect.signature(SOURCES[kind]).parameters
    source = SOURCES[kind](**{name: fields[name] for name in asked if name in fields})
    source.pixels = fields.get('pixels', PHOTOGRAPHS)
    return Pages(source) if source.pixels.pages == 'pictures' else source
