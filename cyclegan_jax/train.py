"""The training loop.

The order inside it is a contract, because a resumed run must equal an unbroken one:

1. Read the batch of step t, dispatch step t, and only then wait for step t - 1.
2. Log, evaluate, save and sample between steps, always with the state after the step.
3. A checkpoint carries what the log line after it will need of the steps before it.
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from cyclegan_jax import hosts, log, process
from cyclegan_jax.data import ImageError
from cyclegan_jax.errors import UserError
from cyclegan_jax.interrupt import Interrupt
from cyclegan_jax.observer import Stopwatch, Watchdog
from cyclegan_jax.run import Run, prepare
from cyclegan_jax.storage import absolute, as_path
from cyclegan_jax.train_state import TrainState


class NotFiniteError(UserError):
    """A loss or a parameter is NaN or infinite."""

    status = 3


def main(config: ConfigDict, workdir: str | Path, *, multihost: bool = False) -> int:
    """Trains until done or stopped, and tells a user's mistake in one line on stderr.

    Returns:
      The exit status: 0 finished, 2 a mistake in what was asked for, 3 a loss that is not finite,
      4 out of memory, 75 another process was lost, 128 + n stopped by signal n, after saving.
    """

    def train() -> int:
        with contextlib.ExitStack() as resources:
            if multihost:
                resources.enter_context(hosts.joined())
            run = prepare(config, absolute(as_path(workdir, '--workdir')), resources)
            return loop(run) if run else 0

    status = process.run_command(
        train,
        # In the loop, Interrupt takes it.
        interrupted='Interrupted outside the training loop; the last checkpoint is intact.',
        out_of_memory='choose smaller images or batches, or set --config.accumulate or '
        '--config.generator.remat=True.',
    )
    if multihost:
        hosts.leave(status)
    return status


def loop(run: Run) -> int:
    """Trains from `run.state` to the last step or a signal; returns the exit status."""
    config, state = run.config, run.state
    step = int(state.step)
    window: list[Mapping[str, jax.Array]] = []  # metrics that are still on the device
    stopwatch = Stopwatch()
    signal = None
    with Interrupt() as interrupt, Watchdog() as watchdog:
        try:
            while step < run.total_steps and signal is None:
                with stopwatch.waiting():
                    batch = next(run.batches)
                with jax.transfer_guard('disallow'):  # nothing else may go to the device unnoticed
                    state, latest = run.step(state, batch)
                if window:
                    jax.block_until_ready(window[-1])  # one step ahead: the device is never idle
                window.append(latest)
                step += 1
                watchdog.step()
                run.progress.update(step)

                signal = interrupt.requested(step)
                last = step == run.total_steps
                logs = last or signal or step % config.log_every == 0
                save = last or signal or step % config.checkpoint_every == 0
                if logs or save:
                    _fetch(run, step, window)
                if logs:
                    run.checkpoints.check()  # one that failed is told now, not at the next
                    run.observer.log(
                        step,
                        run.averages.take(),
                        stopwatch,
                        learning_rate=float(run.schedule(step - 1)),
                        batch_size=config.batch_size,
                        steps_per_epoch=run.steps_per_epoch,
                        num_epochs=config.schedule.num_epochs,
                        total_steps=run.total_steps,
                    )
                with stopwatch.paused(), watchdog.paused():
                    best = None
                    if config.evaluate_every and (last or step % config.evaluate_every == 0):
                        best = run.observer.evaluate(step, state.shown)
                    if save or best:
                        _fetch(run, step, window)
                        _save(run, step, state, best)
                    if last or step % config.sample_every == 0:
                        run.observer.sample(step, state.shown)
        except ImageError as error:
            raise _unreadable(run, step, state, window, error) from error
        run.checkpoints.wait()
    if signal is None or step == run.total_steps:
        run.progress.log(f'Finished after {step} steps; see samples/index.html in the workdir.')
        return 0
    run.progress.log(
        f'Stopped by signal {int(signal)} after step {step}, which is saved; the same command '
        'goes on from there.'
    )
    return 128 + int(signal)


def _fetch(run: Run, step: int, window: list[Mapping[str, jax.Array]]) -> None:
    """Moves the metrics of the steps up to `step` from the device to `run.averages`."""
    fetched: Sequence[Mapping[str, np.ndarray]] = jax.device_get(window)
    if found := log.first_non_finite(fetched, step - len(window) + 1):
        raise NotFiniteError(f'{found[1]} is not finite at step {found[0]}; {_advice(run)}')
    run.averages.add(fetched)
    window.clear()


def _save(run: Run, step: int, state: TrainState, best: Mapping | None) -> None:
    # The losses show a broken parameter only one step later.
    if not _all_finite((state.generators, state.discriminators)):
        raise NotFiniteError(f'a parameter is not finite after step {step}; {_advice(run)}')
    metadata = {**run.metadata, 'averages': run.averages.sums()}
    run.checkpoints.save(step, state, metadata, best)


@jax.jit
def _all_finite(tree) -> jax.Array:
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def _advice(run: Run) -> str:
    run.checkpoints.wait()
    latest = run.checkpoints.latest()
    kept = f'the checkpoint of step {latest} is good' if latest else 'there is no checkpoint yet'
    return (
        f'{kept}. Try a lower --config.optimizer.learning_rate, --config.dtype=float32 if it is '
        'bfloat16, or another seed in a new workdir.'
    )


def _unreadable(run: Run, step: int, state: TrainState, window: list, error: ImageError):
    """Saves what has been learnt, since an image cannot be read any more; returns what to raise."""
    if step == 0 or hosts.count() > 1:  # the others cannot save: they wait for this batch
        return error
    _fetch(run, step, window)
    _save(run, step, state, None)
    run.checkpoints.wait()
    return UserError(
        f'{error}. Step {step} is saved. The same command goes on once the image is back; without '
        'it, with --config.data.skip_corrupt=True if it is damaged, or '
        '--config.allow_data_change=True if it is gone.'
    )
