"""Aerial photos to maps and back, 256x256 crops: 1096 training pairs used unpaired.

python main.py --config=configs/maps.py --workdir=runs/maps

Reads datasets/maps with trainA (aerial photos), trainB (maps), testA and testB. Or from TFDS,
once it is prepared (see docs/data.md):
--config.data.source=tfds --config.data.name=cycle_gan/maps --config.data.path=
Result and time: not yet measured here.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.data.path = 'datasets/maps'
    config.domain_a, config.domain_b = 'aerial photo', 'map'
    return config
