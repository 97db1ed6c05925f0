"""From a config and a workdir to a run that is ready to go.

Everything is checked, then the state is restored or created, then the step is compiled: in this
order, so that a mistake costs seconds.
"""

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from cyclegan_jax import (
    checks,
    data,
    interop,
    metrics,
    networks,
    sharding,
    train_state,
    train_step,
)
from cyclegan_jax.checkpoint import Checkpoints
from cyclegan_jax.evaluation.in_training import Scorer
from cyclegan_jax.observer import Observer
from cyclegan_jax.train_state import TrainState
from cyclegan_jax.workdir import open_workdir, write_json

# So many pixels of a batch keep a CPU busy.
_PAIRED_PIXELS = 256 * 256


@dataclasses.dataclass(frozen=True)
class Run:
    """All that the loop needs.

    state: where to start from; the first step donates it.
    step: the compiled update.
    batches: uint8, global and on the devices, at the position that `state` asks for.
    metadata: what every checkpoint says of its run.
    schedule: from the number of finished updates to the learning rate of the next one.
    """

    config: ConfigDict
    mesh: Mesh
    state: TrainState
    step: Callable
    batches: Iterator[dict[str, jax.Array]]
    metadata: Mapping
    schedule: Callable
    steps_per_epoch: int
    total_steps: int
    checkpoints: Checkpoints
    progress: metrics.Progress
    observer: Observer


@dataclasses.dataclass(frozen=True)
class Program:
    """What a config computes on a mesh, before any array exists.

    schedule: from the number of finished updates to the learning rate of the next one.
    state: shapes of the state, each with the place where it lives.
    batch: shapes of a global batch {'a', 'b'}, uint8.
    create: key -> the state before the first update, born in place.
    step: (state, batch) -> (state, metrics), jitted; donates the state.
    """

    networks: networks.Networks
    schedule: Callable
    state: TrainState
    batch: Mapping[str, jax.ShapeDtypeStruct]
    create: Callable[[jax.Array], TrainState]
    step: Callable


def build(
    config: ConfigDict, mesh: Mesh, image_size: tuple[int, int], steps_per_epoch: int
) -> Program:
    """Builds the program of a run on images of (height, width).

    Raises:
      ValueError: a network or a loss that does not exist, or one that cannot take these images.
    """
    nets = _make_networks(config)
    checks.check_image_size(nets, image_size)
    schedule = train_state.learning_rate_schedule(
        config.optimizer.learning_rate, **config.schedule, steps_per_epoch=steps_per_epoch
    )
    optimizer = optax.adam(schedule, b1=config.optimizer.b1, b2=config.optimizer.b2)
    pixels = config.batch_size // mesh.size // config.accumulate * math.prod(image_size)
    step = train_step.make_train_step(
        nets,
        optimizer,
        **config.loss,
        accumulate=config.accumulate,
        # On a CPU a step at 128x128 takes 0.86 times as long in pairs, of a batch of 4 1.3 times.
        pair_calls=mesh.devices.flat[0].platform != 'cpu' or pixels < _PAIRED_PIXELS,
    )
    channels = {'a': config.data.channels_a, 'b': config.data.channels_b}
    image_shapes = {d: (config.batch_size, *image_size, channels[d]) for d in 'ab'}

    def create(key: jax.Array) -> TrainState:
        return train_state.create(
            nets, optimizer, key, image_shapes=image_shapes, pool_size=config.pool_size
        )

    # Shapes, then shardings, then arrays that are born where they live.
    shapes = jax.eval_shape(create, jax.random.key(0))
    places = train_state.state_sharding(mesh, shapes)
    split, replicated = sharding.split(mesh), sharding.replicated(mesh)

    def placed(leaf, place):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

    return Program(
        networks=nets,
        schedule=schedule,
        state=jax.tree.map(placed, shapes, places),
        batch={
            domain: jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=split)
            for domain, shape in image_shapes.items()
        },
        create=jax.jit(create, out_shardings=places),
        step=jax.jit(
            step,
            donate_argnums=0,
            in_shardings=(places, split),
            out_shardings=(places, replicated),
        ),
    )


def _make_networks(config: ConfigDict) -> networks.Networks:
    channels = {'a': config.data.channels_a, 'b': config.data.channels_b}
    return networks.make_networks(channels, config.generator, config.discriminator, config.dtype)


def prepare(config: ConfigDict, workdir: Path, resources: contextlib.ExitStack) -> Run | None:
    """Checks, restores or creates, compiles.

    Args:
      resources: takes what must be closed at the end of the run.

    Returns:
      The run, or None if it has all its steps already.

    Raises:
      ValueError, OSError, ImportError: this run cannot be; one line says why.
    """
    first = jax.process_index() == 0
    checks.check_config(config)
    _make_networks(config)  # a kind that does not exist is told before images are read
    mesh = sharding.make_mesh(config.batch_size)
    checks.check_accumulate(config, mesh.size)
    if first:
        resources.enter_context(open_workdir(workdir))
    checkpoints = Checkpoints(workdir / 'checkpoints', keep=config.keep_checkpoints)
    resources.callback(checkpoints.close)
    pretrained = {}
    if (newest := checkpoints.newest_good()) is not None:
        checks.check_same_config(config, checkpoints.metadata(newest))
    elif config.init_from:
        pretrained = _load_pretrained(config)

    dataset = data.load(
        **config.data,
        seed=config.seed,
        batch_size=config.batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    steps_per_epoch = -(-dataset.epoch_length // config.batch_size)
    total_steps = config.schedule.num_epochs * steps_per_epoch
    total_steps = min(total_steps, config.max_steps or total_steps)
    program = build(config, mesh, dataset.image_size, steps_per_epoch)
    scorer = None
    if config.evaluate_every:
        scorer = Scorer(
            dataset,
            config.evaluate_metrics,
            config.keep_best,
            checkpoints.best_record(),
            config.data.name,
        )
    batches = dataset.batches(place=functools.partial(sharding.put_batch, mesh))
    restored = checkpoints.restore(program.state)
    if restored is None:
        start, state = 0, program.create(jax.random.key(config.seed))
        state = _replace_networks(state, pretrained, sharding.replicated(mesh))
    else:
        state, saved, start = restored
        checks.check_same_data(config, saved, dataset)
        batches.set_state(saved['batches'])

    # From here on the workdir is this run's: what is in it may be changed.
    if first:
        write_json(workdir / 'config.json', config.to_dict())
    writer = metrics.MetricWriter(workdir, resume_step=start, active=first)
    resources.callback(writer.close)
    progress = metrics.Progress(total_steps, start=start, active=first)
    resources.callback(progress.close)
    if start >= total_steps:
        progress.log(
            f'This run is complete: it has {start} of {total_steps} steps. To go on, raise '
            'schedule.num_epochs or max_steps.'
        )
        return None
    domains = {'a': config.domain_a, 'b': config.domain_b}
    progress.log(_describe(dataset, domains, program.state, steps_per_epoch, total_steps))
    if scorer:
        for metric, why in scorer.unavailable.items():
            progress.log(f'{metric} will not be computed: {why}')
    if start:
        progress.log(f'Resuming after step {start}.')
    elif pretrained:
        progress.log(f'Starting with {", ".join(pretrained)} of {config.init_from}.')

    began = time.perf_counter()
    compiled = program.step.lower(program.state, program.batch).compile()
    progress.log(f'Compiled in {time.perf_counter() - began:.1f} s.')
    return Run(
        config=config,
        mesh=mesh,
        state=state,
        step=compiled,
        batches=batches,
        metadata={
            'config': config.to_dict(),
            'fingerprint': dataset.fingerprint,
            'lengths': dataset.lengths,
        },
        schedule=program.schedule,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        checkpoints=checkpoints,
        progress=progress,
        observer=Observer(
            workdir, mesh, dataset, program.networks, domains, scorer, writer, progress
        ),
    )


def _load_pretrained(config: ConfigDict) -> dict[str, dict]:
    """Parameters of the networks that `config.init_from` has, by name."""
    loaded = interop.load_pretrained(config.init_from, discriminators=True)
    conflicts = interop.disagreements(
        loaded,
        channels={'a': config.data.channels_a, 'b': config.data.channels_b},
        generator=config.generator,
        discriminator=config.discriminator,
    )
    if conflicts:
        raise ValueError(f'init_from={config.init_from} does not fit: {"; ".join(conflicts)}.')
    return {name: network.params for name, network in loaded.items()}


def _replace_networks(state: TrainState, params: Mapping, place: NamedSharding) -> TrainState:
    def replace(networks_: dict) -> dict:
        chosen = {name: params[name] for name in networks_ if name in params}
        return {**networks_, **jax.device_put(chosen, place)}

    return state.replace(
        generators=replace(state.generators), discriminators=replace(state.discriminators)
    )


def _describe(
    dataset: data.Dataset,
    domains: Mapping[str, str],
    shapes: TrainState,
    steps_per_epoch: int,
    total_steps: int,
) -> str:
    """What this run is about to do, for its first lines."""
    height, width = dataset.image_size
    lines = [
        f'{name} ({domains[name]}): {count} training images'
        for name, count in dataset.lengths.items()
    ]
    lines += [f'skipped {line}' for line in dataset.skipped]
    if dataset.test_split_missing:
        lines.append('There is no test split: samples are drawn from training images.')
    lines += [
        'generators.a2b, and b2a alike:',
        metrics.parameter_table(shapes.generators['a2b']),
        'discriminators.a, and b alike:',
        metrics.parameter_table(shapes.discriminators['a']),
        f'{total_steps} steps, {steps_per_epoch} an epoch, on images of {height}x{width}',
        f'{jax.device_count()} device(s) ({jax.devices()[0].device_kind}), '
        f'{jax.process_count()} process(es)',
    ]
    return '\n'.join(lines)
