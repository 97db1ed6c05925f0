"""Fields that make a run small, for tests of runs and of commands."""

# These make any config a run of seconds.
_FIELDS = {
    'max_steps': 1,
    'data.max_images': 2,
    'data.load_size': 16,  # SSIM wants 11 pixels
    'data.crop_size': 16,
    'generator.width': 4,
    'generator.num_blocks': 1,
    'generator.num_downs': 4,
    'discriminator.width': 4,
    'discriminator.num_layers': 1,
    'evaluate_every': 0,
    'keep_best': '',
}
# Of configs/synthetic.py, for tests of whole runs.
TINY = {
    'pool_size': 8,
    'data.max_images': 16,
    'data.load_size': 16,
    'data.crop_size': 16,
    'generator.width': 4,
    'generator.num_blocks': 0,
    'discriminator.width': 4,
    'discriminator.num_layers': 1,
}
# It goes on until it is stopped.
LONG = {**TINY, 'schedule.num_epochs': 1000, 'schedule.decay_start_epoch': 500}
FLAGS = [f'--config.{name}={value}' for name, value in _FIELDS.items()]
