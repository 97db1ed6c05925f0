"""Faces without hair to faces with hair and back, 256x256: 150 against 150 pictures.

python main.py --config=configs/bald.py --workdir=runs/bald

Reads datasets/bald with trainA (bald) and trainB (not bald). A set this small teaches whatever else
differs between its halves: the published run also shifted the length of hair and the sex of faces.
To look for such a shift, compare rows 'A' and 'A to B' of the sample grids attribute by attribute,
and count how often each one changes. Result and time: not yet measured here.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.data.path = 'datasets/bald'
    config.domain_a, config.domain_b = 'bald', 'not bald'
    return config
