"""Which images belong together: those whose file names say so."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import PurePath

# What is added to the names of pictures by facades and maps, pix2pix, Cityscapes.
_SUFFIX = re.compile(
    r'_(?:(?:real_|fake_|rec_)?[AB]|leftImg8bit|gtFine_(?:labelIds|labelTrainIds|color))$'
)


def key(name: str) -> str:
    """What names that belong together have in common: the stem, less the usual suffixes."""
    return _SUFFIX.sub('', unicodedata.normalize('NFC', PurePath(name).stem))


def match(names: Sequence[str], others: Sequence[str], what: str) -> list[int]:
    """For each name the number of its partner among `others`; each must have exactly one.

    Args:
      what: how an error calls the two sides, such as '--fake and --truth'.

    Raises:
      ValueError: names without a partner, or two of one key.
    """
    places = {key(name): place for place, name in enumerate(others)}
    keys = [key(name) for name in names]
    if len(places) < len(others) or len(set(keys)) < len(keys):
        raise ValueError(f'{what}: files of one name, but for suffix or folder, cannot be paired')
    alone = sorted(set(keys) ^ set(places))
    if alone:
        more = f' and {len(alone) - 5} more' if len(alone) > 5 else ''
        raise ValueError(
            f'{what} do not hold the same names: {len(names)} and {len(others)} files, on one side '
            f'only {", ".join(alone[:5])}{more}; are there files left over from an older run?'
        )
    return [places[k] for k in keys]
