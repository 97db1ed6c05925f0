"""The training loop: stages in order, from a config and a workdir to a finished run.

The order inside the loop is a contract, because a resumed run must equal an unbroken one:

1. Read the batch of step t, dispatch step t, and only then wait for step t - 1.
2. Log, sample, evaluate and save between steps, always with the state after the step.
3. Save before the next batch is read: a checkpoint's data position is that of the next step.
"""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from cyclegan_jax import checks, data, metrics, networks, sharding, train_state, train_step
from cyclegan_jax.checkpoint import CheckpointError, Checkpoints
from cyclegan_jax.interrupt import Interrupt
from cyclegan_jax.observer import Observer, Stopwatch
from cyclegan_jax.train_state import TrainState
from cyclegan_jax.workdir import open_workdir, write_json


class NotFiniteError(Exception):
    """A loss or a parameter is NaN or infinite."""


def main(config: ConfigDict, workdir: str, *, multihost: bool = False) -> int:
    """Trains until done or stopped, and tells a user's mistake in one line on stderr.

    Returns:
      The exit status: 0 finished, 2 a mistake in what was asked for, 3 a loss that is not finite,
      4 out of memory, 128 + n stopped by signal n, after saving.
    """

    def fail(status: int, error: object) -> int:
        print(f'error: {error}', file=sys.stderr)
        return status

    with contextlib.ExitStack() as resources:
        try:
            if multihost:
                sharding.initialize_multihost()
            run = prepare(config, Path(workdir).absolute(), resources)
            if run is None:
                return 0
        except (ValueError, OSError, ImportError) as error:
            return fail(2, error)
        except KeyboardInterrupt:
            return fail(130, 'interrupted before the first step; nothing is lost')
        try:
            return loop(run)
        except (data.ImageError, CheckpointError) as error:  # a file went bad; the disk is full
            return fail(2, error)
        except NotFiniteError as error:
            return fail(3, error)
        except jax.errors.JaxRuntimeError as error:
            if 'RESOURCE_EXHAUSTED' not in str(error):
                raise
            advice = 'choose a smaller batch_size, data.crop_size or generator.width'
            return fail(4, f'{str(error).splitlines()[0]}; {advice}')


@dataclasses.dataclass
class Run:
    """A run that is ready to go: everything is checked, restored or created, and compiled."""

    config: ConfigDict
    mesh: Mesh
    state: TrainState
    step: Callable
    batches: Iterator[dict[str, np.ndarray]]
    metadata: Mapping  # saved with every checkpoint, beside the position of the data
    schedule: Callable
    steps_per_epoch: int
    total_steps: int
    checkpoints: Checkpoints
    progress: metrics.Progress
    observer: Observer


def prepare(config: ConfigDict, workdir: Path, resources: contextlib.ExitStack) -> Run | None:
    """Checks everything, then restores or creates the state, then compiles the step.

    Args:
      resources: takes what must be closed at the end of the run.

    Returns:
      The run, or None if it has all its steps already.

    Raises:
      ValueError, OSError, ImportError: this run cannot be; one line says why.
    """
    first = jax.process_index() == 0
    checks.check_config(config)
    mesh = sharding.make_mesh(config.batch_size)
    channels = {'a': config.data.channels_a, 'b': config.data.channels_b}
    nets = networks.make_networks(channels, config.generator, config.discriminator, config.dtype)
    if first:
        resources.enter_context(open_workdir(workdir))
    checkpoints = Checkpoints(workdir / 'checkpoints', keep=config.keep_checkpoints)
    resources.callback(checkpoints.close)
    if (newest := checkpoints.newest_good()) is not None:
        checks.check_same_config(config, checkpoints.metadata(newest))

    dataset = data.load(
        **config.data,
        seed=config.seed,
        batch_size=config.batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    checks.check_image_size(nets, dataset.image_size)
    if config.evaluate_every and not dataset.paired:
        raise ValueError(
            'evaluate_every asks for PSNR and SSIM against the truth, which only data.source='
            "'synthetic' has; set it to 0."
        )
    steps_per_epoch = -(-dataset.epoch_length // config.batch_size)
    total_steps = config.schedule.num_epochs * steps_per_epoch
    total_steps = min(total_steps, config.max_steps or total_steps)
    schedule = train_state.learning_rate_schedule(
        config.optimizer.learning_rate, **config.schedule, steps_per_epoch=steps_per_epoch
    )
    optimizer = optax.adam(schedule, b1=config.optimizer.b1, b2=config.optimizer.b2)
    # Two images in one call are right for accelerators; a CPU is quicker one by one.
    step = train_step.make_train_step(
        nets, optimizer, **config.loss, pair_calls=jax.default_backend() != 'cpu'
    )

    # Shapes, then shardings, then arrays that are born where they live.
    image_shapes = {d: (config.batch_size, *dataset.image_size, channels[d]) for d in 'ab'}

    def create(key: jax.Array) -> TrainState:
        return train_state.create(
            nets, optimizer, key, image_shapes=image_shapes, pool_size=config.pool_size
        )

    key = jax.random.key(config.seed)
    places = train_state.state_sharding(mesh, jax.eval_shape(create, key))
    shapes = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        jax.eval_shape(create, key),
        places,
    )
    batches = dataset.batches()
    metadata = {
        'config': config.to_dict(),
        'fingerprint': dataset.fingerprint,
        'lengths': dataset.lengths,
    }
    restored = checkpoints.restore(shapes)
    if restored is None:
        start, state = 0, jax.jit(create, out_shardings=places)(key)
    else:
        state, saved, start = restored
        checks.check_same_data(config, saved, dataset)
        batches.set_state(saved['batches'])
    if first:
        write_json(workdir / 'config.json', config.to_dict())
    writer = metrics.MetricWriter(workdir, resume_step=start, active=first)
    resources.callback(writer.close)
    progress = metrics.Progress(total_steps, start=start, active=first)
    resources.callback(progress.close)

    domains = {'a': config.domain_a, 'b': config.domain_b}
    progress.log(_describe(dataset, domains, shapes, steps_per_epoch, total_steps))
    if start >= total_steps:
        progress.log(
            f'This run is complete: it has {start} of {total_steps} steps. To go on, raise '
            'schedule.num_epochs or max_steps.'
        )
        return None
    if start:
        progress.log(f'Resuming after step {start}.')
    began = time.perf_counter()
    jitted = jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(places, sharding.split(mesh)),
        out_shardings=(places, sharding.replicated(mesh)),
    )
    images = {d: jax.ShapeDtypeStruct(shape, jnp.uint8) for d, shape in image_shapes.items()}
    compiled = jitted.lower(shapes, images).compile()
    progress.log(f'Compiled in {time.perf_counter() - began:.1f} s.')
    return Run(
        config=config,
        mesh=mesh,
        state=state,
        step=compiled,
        batches=batches,
        metadata=metadata,
        schedule=schedule,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        checkpoints=checkpoints,
        progress=progress,
        observer=Observer(workdir, mesh, dataset, nets, domains, writer, progress),
    )


def loop(run: Run) -> int:
    """Trains from `run.state` to the last step or a signal; returns the exit status."""
    config, state = run.config, run.state
    step = int(state.step)
    window: list[Mapping[str, jax.Array]] = []  # metrics of the steps since the last log line
    stopwatch = Stopwatch()
    with Interrupt() as interrupt:
        while True:
            with stopwatch.waiting():
                batch = sharding.put_batch(run.mesh, next(run.batches))
            with jax.transfer_guard('disallow'):  # nothing else may go to the device unnoticed
                state, latest = run.step(state, batch)
            if window:
                jax.block_until_ready(window[-1])  # one step ahead: the device is never idle
            window.append(latest)
            step += 1
            run.progress.update(step)

            signal = interrupt.requested(step)
            last = signal is not None or step == run.total_steps
            log, sample, evaluate, save = (
                bool(every) and (last or step % every == 0)
                for every in (
                    config.log_every,
                    config.sample_every,
                    config.evaluate_every,
                    config.checkpoint_every,
                )
            )
            if log or save:
                _check_finite(run, step, window)
            if log:
                run.observer.log(
                    step,
                    window,
                    stopwatch,
                    learning_rate=float(run.schedule(step - 1)),
                    batch_size=config.batch_size,
                    steps_per_epoch=run.steps_per_epoch,
                    num_epochs=config.schedule.num_epochs,
                    total_steps=run.total_steps,
                )
                window = []
            with stopwatch.paused():
                if sample:
                    run.observer.sample(step, state.generators)
                if evaluate:
                    run.observer.evaluate(step, state.generators)
                if save:
                    _save(run, step, state)
            if last:
                break
    run.checkpoints.wait()
    if signal is None:
        run.progress.log(f'Finished after {step} steps.')
        return 0
    run.progress.log(
        f'Stopped by signal {int(signal)} after step {step}, which is saved; the same command '
        'goes on from there.'
    )
    return 128 + int(signal)


def _check_finite(run: Run, step: int, window: Sequence[Mapping[str, jax.Array]]) -> None:
    """Raises NotFiniteError for the first loss of the window that is NaN or infinite."""
    if found := metrics.first_non_finite(window, step - len(window) + 1):
        raise NotFiniteError(f'{found[1]} is not finite at step {found[0]}; {_advice(run)}')


def _save(run: Run, step: int, state: TrainState) -> None:
    """Saves, unless the last update broke a parameter: the losses show it only one step later."""
    if not _all_finite((state.generators, state.discriminators)):
        raise NotFiniteError(f'a parameter is not finite after step {step}; {_advice(run)}')
    metadata = {**run.metadata, 'batches': run.batches.get_state()}
    run.checkpoints.save(step, state, metadata)


@jax.jit
def _all_finite(tree) -> jax.Array:
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def _advice(run: Run) -> str:
    run.checkpoints.wait()
    latest = run.checkpoints.latest()
    kept = f'the checkpoint of step {latest} is good' if latest else 'there is no checkpoint yet'
    return (
        f"{kept}. Try a lower optimizer.learning_rate, dtype='float32' if it is bfloat16, or "
        'another seed in a new workdir.'
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
