"""Between two NFT collections of huggingnft, 256x256, as their CycleGAN model cards have it.

pip install 'datasets>=3'
python main.py --config=configs/nft.py:cryptopunks__2__boredapeyachtclub --workdir=runs/nft

The argument behind the colon names the collections, huggingnft/A and huggingnft/B, in the form of
their model names: A__2__B. They may differ in length. Collections with varied backgrounds
translate badly, as their authors say. Networks: huggan's. Result and time: not yet measured here.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(collections: str = 'cryptopunks__2__boredapeyachtclub') -> ConfigDict:
    a, separator, b = collections.partition('__2__')
    if not (a and separator and b):
        raise ValueError(f"{collections!r} must be two collections, as in nft.py:'A__2__B'.")
    config = default.get_config()
    config.batch_size = 8
    config.data.source = 'huggingface'
    config.data.name, config.data.name_b = f'huggingnft/{a}', f'huggingnft/{b}'
    config.data.column_a = config.data.column_b = 'image'
    config.data.split_a = config.data.split_b = 'train'
    config.data.test_split_a = config.data.test_split_b = ''
    config.domain_a, config.domain_b = a, b
    config.data.load_size = config.data.crop_size = 256
    config.generator.upsample = 'nearest'
    config.discriminator.kind = 'huggan'
    config.schedule.decay_start_epoch = 80
    config.sample_every = 500
    return config
