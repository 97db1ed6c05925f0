"""Everything about a run that can be found wrong before it costs time."""

import math
from collections.abc import Mapping

from absl import logging
from ml_collections import ConfigDict

from cyclegan_jax import data, networks
from cyclegan_jax.errors import UserError
from cyclegan_jax.workdir import compare_configs


def check_config(config: ConfigDict) -> None:
    """What can be told from the config alone.

    Raises:
      ValueError: a field's value is out of range.
    """
    least = {
        'seed': 0,
        'batch_size': 1,
        'accumulate': 1,
        'pool_size': 0,
        'max_steps': 1,
        'schedule.num_epochs': 1,
        'schedule.decay_start_epoch': 0,
        'log_every': 1,
        'sample_every': 1,
        'checkpoint_every': 1,
        'evaluate_every': 0,
        'keep_checkpoints': 1,
    }
    for name, bound in least.items():
        value = config
        for part in name.split('.'):
            value = value[part]
        if value is not None and value < bound:
            raise ValueError(f'{name} is {value}; it must be at least {bound}.')
    epochs, start = config.schedule.num_epochs, config.schedule.decay_start_epoch
    if start > epochs:
        raise ValueError(
            f'schedule.decay_start_epoch is {start}, past the last epoch, '
            f'schedule.num_epochs = {epochs}; for a constant rate make them equal.'
        )
    if config.keep_best and not config.evaluate_every:
        logging.warning(
            'keep_best is %r, but evaluate_every is 0: nothing is scored, and no checkpoint kept '
            'as the best.',
            config.keep_best,
        )
    rate = config.optimizer.learning_rate
    if not (rate > 0 and math.isfinite(rate)):
        raise ValueError(f'optimizer.learning_rate is {rate}; it must be a positive number.')
    for name in ('b1', 'b2'):
        if not 0 <= config.optimizer[name] < 1:
            raise ValueError(
                f'optimizer.{name} is {config.optimizer[name]}; it must be at least 0 and below 1.'
            )


def check_accumulate(config: ConfigDict, devices: int) -> None:
    """Whether each device's images can be cut into `config.accumulate` equal parts.

    Raises:
      ValueError: they cannot.
    """
    multiple = config.accumulate * devices
    if config.batch_size % multiple:
        raise ValueError(
            f'batch_size is {config.batch_size}, which cannot be cut into accumulate = '
            f'{config.accumulate} equal parts on {devices} device(s); choose a multiple of '
            f'{multiple}.'
        )


def check_image_size(nets: networks.Networks, image_size: tuple[int, int]) -> None:
    """Whether the networks can take images of that (height, width).

    Raises:
      ValueError: the generator would not return the same size, or a discriminator has no output.
    """
    multiple = nets.generators['a2b'].size_multiple
    height, width = image_size
    if height % multiple or width % multiple:
        raise ValueError(
            f'training images are {height}x{width}, but this generator needs sides that are '
            f'multiples of {multiple}; set data.crop_size, the nearest is '
            f'{_nearest(height, multiple)}x{_nearest(width, multiple)}.'
        )
    # By arithmetic, since a convolution over less than its window is an error deep in the library.
    judge = nets.discriminators['a']
    if min(image_size) < judge.smallest:
        raise UserError(
            f'training images are {height}x{width}, too small for a discriminator with num_layers '
            f'{getattr(judge, "num_layers", 0)}, which needs sides of at least {judge.smallest}; '
            'set a larger --config.data.crop_size or fewer --config.discriminator.num_layers.'
        )


def _nearest(side: int, multiple: int) -> int:
    return max(1, round(side / multiple)) * multiple


def check_same_config(config: ConfigDict, saved: Mapping) -> None:
    """Whether this config can go on with a checkpoint, whose metadata is `saved`.

    Raises:
      ValueError: they differ in fields that decide what the networks are or what an update does.
    """
    conflicts, changes = compare_configs(saved['config'], config.to_dict())
    if conflicts:
        raise ValueError(
            f'the checkpoint in this workdir is of another run: {"; ".join(conflicts)}; set them '
            'back, or choose another --workdir.'
        )
    for change in changes:
        logging.info('Changed since the checkpoint: %s', change)


def check_same_data(config: ConfigDict, saved: Mapping, dataset: data.Dataset) -> None:
    """Whether a checkpoint was trained on this data set.

    Raises:
      ValueError: the set has changed, and config.allow_data_change does not allow it.
    """
    if saved['fingerprint'] != dataset.fingerprint and not config.allow_data_change:
        raise ValueError(
            f'the data set is not the one that this run was started with (then {saved["lengths"]} '
            f'images, now {dataset.lengths}); restore it, use another workdir, or go on with '
            '--config.allow_data_change=True.'
        )
