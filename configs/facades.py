"""Photos of facades to label maps and back, 256x256: the CMP set, 400 training pairs used unpaired.

python main.py --config=configs/facades.py --workdir=runs/facades

Reads datasets/facades with trainA (photos), trainB (labels), testA and testB. Or from TFDS,
once it is prepared (see docs/data.md):
--config.data.source=tfds --config.data.name=cycle_gan/facades --config.data.path=
Result and time: not yet measured here.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.data.path = 'datasets/facades'
    config.domain_a, config.domain_b = 'photo', 'labels'
    return config
