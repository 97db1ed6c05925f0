"""The training loop.

The order inside it is a contract, because a resumed run must equal an unbroken one:

1. Read the batch of step t, dispatch step t, and only then wait for step t - 1.
2. Log, evaluate, save and sample between steps, always with the state after the step.
3. Save before the next batch is read: a checkpoint's data position is that of the next step.
"""

import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from cyclegan_jax import metrics, process, sharding
from cyclegan_jax.checkpoint import CheckpointError
from cyclegan_jax.data import ImageError
from cyclegan_jax.interrupt import Interrupt
from cyclegan_jax.observer import Stopwatch
from cyclegan_jax.run import Run, prepare
from cyclegan_jax.train_state import TrainState


class NotFiniteError(Exception):
    """A loss or a parameter is NaN or infinite."""


def main(config: ConfigDict, workdir: str | Path, *, multihost: bool = False) -> int:
    """Trains until done or stopped, and tells a user's mistake in one line on stderr.

    Returns:
      The exit status: 0 finished, 2 a mistake in what was asked for, 3 a loss that is not finite,
      4 out of memory, 128 + n stopped by signal n, after saving.
    """

    def fail(status: int, error: object) -> int:
        print(f'error: {error}', file=sys.stderr)
        return status

    process.set_up()
    try:
        with contextlib.ExitStack() as resources:
            try:
                if multihost:
                    sharding.initialize_multihost()
                run = prepare(config, Path(workdir).absolute(), resources)
            except (ValueError, OSError, ImportError) as error:
                return fail(2, error)
            return loop(run) if run else 0
    except KeyboardInterrupt:  # in the loop, Interrupt takes it
        print('Interrupted outside the training loop; the last checkpoint is intact.')
        return 130
    except (ImageError, CheckpointError) as error:  # a file went bad; the disk is full
        return fail(2, error)
    except NotFiniteError as error:
        return fail(3, error)
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        advice = 'choose smaller images or batches, or set accumulate or generator.remat'
        return fail(4, f'{str(error).splitlines()[0]}; {advice}')


def loop(run: Run) -> int:
    """Trains from `run.state` to the last step or a signal; returns the exit status."""
    config, state = run.config, run.state
    step = int(state.step)
    window: list[Mapping[str, jax.Array]] = []  # metrics of the steps since the last log line
    stopwatch = Stopwatch()
    signal = None
    with Interrupt() as interrupt:
        while step < run.total_steps and signal is None:
            with stopwatch.waiting():
                batch = next(run.batches)
            with jax.transfer_guard('disallow'):  # nothing else may go to the device unnoticed
                state, latest = run.step(state, batch)
            if window:
                jax.block_until_ready(window[-1])  # one step ahead: the device is never idle
            window.append(latest)
            step += 1
            run.progress.update(step)

            signal = interrupt.requested(step)
            last = step == run.total_steps
            log = last or signal or step % config.log_every == 0
            save = last or signal or step % config.checkpoint_every == 0
            if log or save:
                window = jax.device_get(window)  # once, for the check and for the log
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
                best = None
                if config.evaluate_every and (last or step % config.evaluate_every == 0):
                    best = run.observer.evaluate(step, state.generators)
                if save or best:
                    _save(run, step, state, best)
                if last or step % config.sample_every == 0:
                    run.observer.sample(step, state.generators)
    run.checkpoints.wait()
    if signal is None:
        run.progress.log(f'Finished after {step} steps; see samples/index.html in the workdir.')
        return 0
    run.progress.log(
        f'Stopped by signal {int(signal)} after step {step}, which is saved; the same command '
        'goes on from there.'
    )
    return 128 + int(signal)


def _check_finite(run: Run, step: int, window: Sequence[Mapping[str, jax.Array]]) -> None:
    if found := metrics.first_non_finite(window, step - len(window) + 1):
        raise NotFiniteError(f'{found[1]} is not finite at step {found[0]}; {_advice(run)}')


def _save(run: Run, step: int, state: TrainState, best: Mapping | None) -> None:
    # The losses show a broken parameter only one step later.
    if not _all_finite((state.generators, state.discriminators)):
        raise NotFiniteError(f'a parameter is not finite after step {step}; {_advice(run)}')
    metadata = {**run.metadata, 'batches': run.batches.get_state()}
    run.checkpoints.save(step, state, metadata, best)


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
