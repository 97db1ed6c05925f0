"""Landscapes to anime scenery and back, 256x256, after the TensorFlow tutorial: 300 + 300 pictures.

python main.py --config=configs/anime.py --workdir=runs/anime

Reads datasets/anime with trainA (landscapes) and trainB (anime). U-Net generators, cross-entropy,
no pool, a constant rate, batch 1; --config.batch_size=4 was found as good.

What differs from the tutorial: our U-Net is pix2pix's in its PyTorch form, with LeakyReLU slope 0.2
(there 0.3), instance norm without learnt scales, and dropout in the middle of the decoder (there in
its first three layers). Images are resized bicubically, and the larger domain is seen whole.
The discriminator's output is 30x30 in both. Result and time: not yet measured here.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.pool_size = 0
    config.data.path = 'datasets/anime'
    config.domain_a, config.domain_b = 'landscape', 'anime'
    config.generator.kind = 'unet'
    config.generator.dropout = 0.5
    config.loss.gan = 'vanilla'
    config.schedule.decay_start_epoch = config.schedule.num_epochs
    return config
