"""The embedded data set: brown animals to striped ones and back, learnt in a minute or two.

python main.py --config=configs/synthetic.py --workdir=runs/synthetic

Needs no data and no accelerator: two CPU cores are enough. The pictures are rendered, so the true
translation of each is known, and PSNR and SSIM against it are printed during the run and at its
end, beside those of the untranslated images. docs/evaluation.md shows the figures of one run.

--config.data.name=labels renders class maps and their "photos" instead. Colours of classes may come
out exchanged there: nothing in unpaired data says which is which.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.data.source = 'synthetic'
    config.data.name = 'stripes'
    config.domain_a, config.domain_b = 'brown', 'striped'
    config.data.load_size = config.data.crop_size = 64
    config.data.max_images = 512
    config.data.flip = False  # stripes sit on a fixed grid; mirrored ones would be another domain
    config.generator.width = 16
    config.generator.num_blocks = 2
    config.discriminator.width = 16
    config.discriminator.num_layers = 2
    config.schedule.num_epochs = 2
    config.schedule.decay_start_epoch = 1
    config.log_every = 50
    config.sample_every = config.evaluate_every = 200
    config.evaluate_metrics = 'paired'
    config.checkpoint_every = 500
    config.keep_best = 'psnr_a2b'
    return config
