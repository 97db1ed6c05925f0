"""Land art to Monet's paintings and back, 256x256: small sets, 360 pictures against 300 paintings.

python main.py --config=configs/monet.py --workdir=runs/monet

Reads datasets/monet with trainA (land art) and trainB (paintings); testA and testB are optional.
Published: 200 epochs in 16 hours on an RTX 2060 Super with the PyTorch code. Identity loss keeps
the colours of the land. Result and time: not yet measured here.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.data.path = 'datasets/monet'
    config.domain_a, config.domain_b = 'land art', 'Monet'
    return config
