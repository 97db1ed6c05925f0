"""Horses to zebras and back, 256x256: the paper's best-known pair, and the reference's defaults.

python main.py --config=configs/horse2zebra.py --workdir=runs/horse2zebra

Reads datasets/horse2zebra with trainA, trainB, testA and testB (1067 and 1334 training images);
--config.data.path names another place. From TFDS instead, once it is prepared (see docs/data.md):
--config.data.source=tfds --config.data.name=cycle_gan/horse2zebra --config.data.path=

Expect, as published for the PyTorch code with identity loss: FID 62 to 65 for horse to zebra, 139
to 141 for zebra to horse (120 and 140 test images). Not yet measured here; nor is the time:
266,800 updates of about 2.15 TFLOP each.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.data.path = 'datasets/horse2zebra'
    config.licence = 'photographs of ImageNet: non-commercial research and education'
    config.domain_a, config.domain_b = 'horse', 'zebra'
    return config
