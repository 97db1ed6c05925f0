"""GTA5 frames to Cityscapes photos and back, 512x512, as the sim2real model card of huggan has it.

pip install 'datasets>=3'
python main.py --config=configs/sim2real.py --workdir=runs/sim2real

Data: huggan/sim2real_gta5_to_cityscapes (columns imageA and imageB, 2975 rows). Networks: huggan's,
so that trained weights can be exchanged with theirs. Batch 8 asks for an accelerator of 80 GB, or
several devices. For translated frames whose labels must stay true, watch the sky: unpaired training
can turn it into vegetation. Result and time: not yet measured here.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.batch_size = 8
    config.data.source = 'huggingface'
    config.data.name = 'huggan/sim2real_gta5_to_cityscapes'
    config.data.split_a = config.data.split_b = 'train'
    config.data.test_split_a = config.data.test_split_b = ''
    config.domain_a, config.domain_b = 'GTA5', 'Cityscapes'
    config.data.load_size = config.data.crop_size = 512
    config.data.cache = 6.0
    config.generator.upsample = 'nearest'
    config.discriminator.kind = 'huggan'
    config.schedule.decay_start_epoch = 100
    config.sample_every = 500
    config.checkpoint_every = 1000
    return config
