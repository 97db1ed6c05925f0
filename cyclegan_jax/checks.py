"""Everything about a run that can be found wrong before it costs time."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from cyclegan_jax import data, networks, sharding
from cyclegan_jax.errors import UserError, check_at_least

# Fields of the config that count something, and their least values.
_LEAST = {
    'seed': 0,
    'batch_size': 1,
    'accumulate': 1,
    'pool_size': 0,
    'loss.penalty_every': 1,
    'max_steps': 1,
    'num_devices': 1,
    'schedule.num_epochs': 1,
    'schedule.decay_start_epoch': 0,
    'log_every': 1,
    'sample_every': 1,
    'checkpoint_every': 1,
    'evaluate_every': 0,
    'keep_checkpoints': 1,
}
_MOST = 2**31 - 1  # the state counts steps in 32 bits


def check_config(config: ConfigDict) -> None:
    """What can be told from the config alone.

    Raises:
      UserError: a field's value is out of range.
    """
    fields = dict(flatten(config.to_dict()))
    for name, least in _LEAST.items():
        if fields[name] is not None:
            check_at_least(name, fields[name], least)
            if fields[name] > _MOST:
                raise UserError(f'{name} is {fields[name]}; it must be at most {_MOST}.')
    epochs, start = config.schedule.num_epochs, config.schedule.decay_start_epoch
    if start > epochs:
        raise UserError(
            f'schedule.decay_start_epoch is {start}, past the last epoch, '
            f'schedule.num_epochs = {epochs}; for a constant rate make them equal.'
        )
    for name, end in fields.items():
        if name.endswith('_weight_end') and end is not None and start == epochs:
            raise UserError(
                f'{name} is {end}, but weights fall with the learning rate, and '
                f'it stays: schedule.decay_start_epoch and schedule.num_epochs are both {epochs}.'
            )
    if config.keep_best and not config.evaluate_every:
        logging.warning(
            'keep_best is %r, but evaluate_every is 0: nothing is scored, and no checkpoint kept '
            'as the best.',
            config.keep_best,
        )
    for name in ('learning_rate', 'discriminator_rate'):
        rate = config.optimizer[name]
        if rate is not None and not (rate > 0 and math.isfinite(rate)):
            raise UserError(f'optimizer.{name} is {rate}; it must be a positive number.')
    for name in ('average', 'optimizer.b1', 'optimizer.b2'):
        if not 0 <= fields[name] < 1:
            raise UserError(f'{name} is {fields[name]}; it must be at least 0 and below 1.')


def check_total_steps(total_steps: int) -> None:
    """Raises UserError if the state, which counts its steps in 32 bits, cannot reach the last."""
    if total_steps > _MOST:
        raise UserError(
            f'the run would take {total_steps} steps, and at most {_MOST} are counted; lower '
            'schedule.num_epochs, or set max_steps.'
        )


def check_memory(state: Any) -> None:
    """Whether a device can hold its part of the state: mostly of the pools, if they are long.

    Args:
      state: shapes with the places where they live, as `Program.state`.

    Raises:
      UserError: it cannot.
    """
    leaves = jax.tree.leaves(state)
    parts = [math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves]
    device = jax.local_devices()[0]
    needed = sum(parts) * (jax.local_device_count() if device.platform == 'cpu' else 1)
    if needed > (has := sharding.memory(device)):
        raise UserError(
            f'the state of this run takes {needed / 2**30:.1f} GiB, and the memory has '
            f'{has / 2**30:.1f}; lower pool_size, generator.width or data.crop_size.'
        )


def check_accumulate(config: ConfigDict, devices: int) -> None:
    """Whether each device's images can be cut into `config.accumulate` equal parts.

    Raises:
      UserError: they cannot.
    """
    multiple = config.accumulate * devices
    if config.batch_size % multiple:
        raise UserError(
            f'batch_size is {config.batch_size}, which cannot be cut into accumulate = '
            f'{config.accumulate} equal parts on {devices} device(s); choose a multiple of '
            f'{multiple}.'
        )


def check_image_size(nets: networks.Networks, image_size: tuple[int, int]) -> None:
    """Whether the networks can take images of that (height, width).

    Raises:
      UserError: the generator would not return the same size, or a discriminator has no output.
    """
    multiple = nets.generators['a2b'].size_multiple
    height, width = image_size
    if height % multiple or width % multiple:
        raise UserError(
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
    """Whether this config can go on with a checkpoint that was saved with the config `saved`.

    Raises:
      UserError: they differ in fields that may not change: these decide what the networks are, or
        what an update does.
    """
    conflicts, changes = compare_configs(saved, config.to_dict(), config.may_change)
    if conflicts:
        raise UserError(
            f'the checkpoint in this workdir is of another run: {"; ".join(conflicts)}; set them '
            'back, or choose another --workdir.'
        )
    for change in changes:
        logging.info('Changed since the checkpoint: %s', change)


def compare_configs(
    saved: Mapping, current: Mapping, may_change: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Compares the config that a run was saved with to the one that asks to resume it.

    Returns:
      `(conflicts, changes)`: lists of lines such as 'generator.width: checkpoint has 64, config
      asks 32'. With a conflict the run cannot go on. A change is fine: the field is one of
      `may_change`, or only one of the two has it, when it is the program that has changed.
    """
    saved, current = dict(flatten(saved)), dict(flatten(current))
    conflicts, changes = [], []
    for name in dict.fromkeys([*current, *saved]):
        if name not in saved or name not in current:
            changes.append(f'{name}: {"new" if name in current else "no longer there"}')
        elif saved[name] != current[name]:
            lines = changes if name in may_change else conflicts
            lines.append(f'{name}: checkpoint has {saved[name]}, config asks {current[name]}')
    return conflicts, changes


def flatten(config: Mapping, prefix: str = '') -> Iterator[tuple[str, Any]]:
    """The fields of a config, 'generator.width', and their values as JSON has them."""
    # Through JSON, as the saved one went: it turns tuples into lists.
    for name, value in json.loads(json.dumps(config)).items():
        if isinstance(value, dict):
            yield from flatten(value, f'{prefix}{name}.')
        else:
            yield prefix + name, value


def check_same_data(config: ConfigDict, saved: Mapping, dataset: data.Dataset) -> None:
    """Whether a checkpoint was trained on this data set.

    Args:
      saved: the checkpoint's metadata.

    Raises:
      UserError: the set has changed, and config.allow_data_change does not allow it.
    """
    if not (dataset.is_that_of(saved) or config.allow_data_change):
        raise UserError(
            f'the data set is not the one that this run was started with (then {saved["lengths"]} '
            f'images, now {dataset.lengths}); restore it, use another workdir, or go on with '
            '--config.allow_data_change=True.'
        )
