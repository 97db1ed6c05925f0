"""Flags that make any config a run of seconds, for tests of commands."""

_FIELDS = {
    'max_steps': 1,
    'data.max_images': 2,
    'data.load_size': 16,  # SSIM wants 11 pixels
    'data.crop_size': 16,
    'generator.width': 4,
    'generator.num_downs': 4,
    'discriminator.width': 4,
    'discriminator.num_layers': 1,
    'evaluate_every': 0,
    'keep_best': '',
}
FLAGS = [f'--config.{name}={value}' for name, value in _FIELDS.items()]
