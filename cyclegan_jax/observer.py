"""What a run shows of itself: log lines, sample grids, scores."""

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import logging
from jax.sharding import Mesh

from cyclegan_jax import alarms, hosts, log, visuals
from cyclegan_jax.data import Dataset
from cyclegan_jax.evaluation.in_training import Scorer
from cyclegan_jax.networks import Networks
from cyclegan_jax.sharding import Batched
from cyclegan_jax.train_state import TrainState
from cyclegan_jax.train_step import make_translate

_SAMPLES = 6  # columns of a sample grid
_BATCH = 16  # test images of a score that the networks see together
_LINES, _GRIDS = 10, 3  # of the log, and of samples, that a finding must last for to be told


class Stopwatch:
    """Wall time of some steps, and the part of it that was spent waiting for their input."""

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        self._began = time.perf_counter()
        self._paused = self._waited = 0.0
        self.steps = 0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began
        self.steps += 1

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._paused += time.perf_counter() - began

    def read(self) -> tuple[float, float]:
        """Seconds since the last restart, pauses left out, and the share of them in waiting."""
        seconds = time.perf_counter() - self._began - self._paused
        return seconds, self._waited / seconds


class Watchdog:
    """Warns, from a thread of its own, when a step takes far longer than those before it.

    Args:
      least: seconds that are never too long.
      times: so many times the mean of the steps before are too long.
    """

    def __init__(self, least: float = 60.0, times: float = 10.0):
        self._least, self._times = least, times
        self._ended = threading.Event()
        self._began: float | None = time.monotonic()
        self._seconds, self._steps, self._warned = 0.0, 0, False

    def __enter__(self) -> 'Watchdog':
        self._thread = threading.Thread(target=self._watch, name='watchdog', daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def step(self) -> None:
        """A step is done, and the next one begins."""
        now = time.monotonic()
        if self._warned:
            logging.warning('step %d is done, after %.0f s', self._steps + 1, now - self._began)
        self._seconds += now - self._began
        self._began, self._warned = now, False
        self._steps += 1

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """For what a step now and then has beside it, and may take its time."""
        self._began = None
        yield
        self._began = time.monotonic()

    def _watch(self) -> None:
        while not self._ended.wait(self._least / 10):
            began, steps = self._began, self._steps
            if began is None or steps == 0 or self._warned:  # nothing to compare the first one with
                continue
            usual, took = self._seconds / steps, time.monotonic() - began
            if took > max(self._least, self._times * usual):
                self._warned = True
                logging.warning(
                    'this step (%d since the start) takes %.0f s so far, usually %.3g s: slow '
                    'disk, another program, or a host that hangs?',
                    steps + 1,
                    took,
                    usual,
                )


class Observer:
    """Shows the state of a run, on the console and in the workdir.

    Every process must call it, since the networks run on all devices; only those whose writer and
    progress are active write anything.
    """

    def __init__(
        self,
        workdir: Path,
        mesh: Mesh,
        dataset: Dataset,
        networks: Networks,
        domains: Mapping[str, str],
        scorer: Scorer | None,
        writer: log.MetricWriter,
        progress: log.Progress,
        gan: str,
    ):
        self._workdir, self._domains, self._scorer = workdir, domains, scorer
        self._dataset, self._devices = dataset, mesh.devices
        self._writer, self._progress, self._gan = writer, progress, gan
        self._wide_gaps, self._bad_samples = alarms.Lasting(_LINES), alarms.Lasting(_GRIDS)
        samples = dataset.test(_SAMPLES)
        columns = min(len(images) for images in samples.values())
        self._samples = {domain: images[:columns] for domain, images in samples.items()}

        # Always in float32: what is shown and scored is what `translate` gives.
        pixels = dataset.pixels
        functions = {
            direction: make_translate(
                network.clone(dtype=jnp.float32), pixels[direction[0]], pixels[direction[-1]]
            )
            for direction, network in networks.generators.items()
        }
        # One image a device: the large ones of a grid need not fit into memory together.
        self._samplers = {name: Batched(f, 1, mesh) for name, f in functions.items()}
        self._scored = {name: Batched(f, _BATCH, mesh) for name, f in functions.items()}

    def introduce(self, state: TrainState, steps_per_epoch: int, total_steps: int) -> None:
        """What this run is about to do, for its first lines; of the state, shapes are enough."""
        height, width = self._dataset.image_size
        lines = [
            f'{name} ({self._domains[name]}): {count} training images'
            for name, count in self._dataset.lengths.items()
        ]
        lines += [
            f'{name} ({self._domains[name]}): {pixels.describe()}'
            for name, pixels in self._dataset.pixels.items()
            if not pixels.photographs
        ]
        lines += [f'skipped {line}' for line in self._dataset.skipped]
        if self._dataset.test_split_missing:
            lines.append('There is no test split: samples are drawn from training images.')
        lines += [
            'generators.a2b, and b2a alike:',
            log.parameter_table(state.generators['a2b']),
            'discriminators.a, and b alike:',
            log.parameter_table(state.discriminators['a']),
            f'{total_steps} steps, {steps_per_epoch} an epoch, on images of {height}x{width}',
            f'{self._devices.size} device(s) ({self._devices.flat[0].device_kind}), '
            f'{jax.process_count()} process(es)',
        ]
        if self._scorer:
            for metric, why in self._scorer.unavailable.items():
                lines.append(f'{metric} will not be computed: {why}')
        self._progress.log('\n'.join(lines))

    def log(
        self,
        step: int,
        scalars: Mapping[str, float],
        stopwatch: Stopwatch,
        *,
        learning_rate: float,
        batch_size: int,
        steps_per_epoch: int,
        num_epochs: int,
        total_steps: int,
    ) -> None:
        """One line, and one record, of the means over the steps since the last."""
        seconds, input_share = stopwatch.read()
        images_per_second = batch_size * stopwatch.steps / seconds
        line = log.format_line(
            scalars,
            step=step,
            total_steps=total_steps,
            epoch=-(-step // steps_per_epoch),
            num_epochs=num_epochs,
            learning_rate=learning_rate,
            images_per_second=images_per_second,
            input_share=input_share,
            seconds_left=(total_steps - step) * seconds / stopwatch.steps,
        )
        self._progress.log(line)
        gaps = alarms.gaps(scalars)
        self._warn(step, self._wide_gaps.of(alarms.of_gaps(gaps, self._gan)))
        scalars = {
            **scalars,
            **gaps,
            'epoch': step / steps_per_epoch,
            'learning_rate': learning_rate,
            'images_per_second': images_per_second,
            'input_share': input_share,
            **log.peak_memory(),
        }
        self._writer.scalars(step, scalars)
        stopwatch.restart()

    def sample(self, step: int, generators: Mapping) -> None:
        """Draws the fixed test images, their translations, and what comes back of them."""

        def translate(direction, images):
            return self._samplers[direction](generators[direction], images)

        real_a, real_b = self._samples['a'], self._samples['b']
        fake_b, fake_a = translate('a2b', real_a), translate('b2a', real_b)
        a, b = self._domains['a'], self._domains['b']
        rows = [
            (a, 'a', real_a),
            (f'{a} to {b}', 'b', fake_b),
            (f'back to {a}', 'a', translate('b2a', fake_b)),
            (b, 'b', real_b),
            (f'{b} to {a}', 'a', fake_a),
            (f'back to {b}', 'b', translate('a2b', fake_a)),
        ]
        if jax.process_index() == 0:
            pixels = self._dataset.pixels
            shown = [(label, visuals.shown(images, pixels[d])) for label, d, images in rows]
            grid = visuals.grid(shown)
            folder = self._workdir / 'samples'
            log.attempt(folder, visuals.save_png, folder / f'step_{step}.png', grid)
            log.attempt(folder, visuals.write_gallery, self._workdir, f'{a} and {b}')
            self._writer.images(step, {'samples': grid})
            of_a, of_b = pixels['a'], pixels['b']
            found = alarms.of_translations('a2b', real_a, fake_b, real_b, of_a, of_b)
            found |= alarms.of_translations('b2a', real_b, fake_a, real_a, of_b, of_a)
            self._warn(step, self._bad_samples.of(found))

    def evaluate(self, step: int, generators: Mapping) -> dict | None:
        """Scores the generators; returns {'score', 'value'} if that of keep_best is a record."""

        def translate(direction, images):
            return self._scored[direction](generators[direction], images)

        scalars, lines, best = self._scorer.score(translate)
        for line in lines:
            self._progress.log(f'step {step}  {line}')
        self._writer.scalars(step, scalars)
        return hosts.on_first(lambda: best)  # others may have rounded otherwise

    def _warn(self, step: int, texts: Iterable[str]) -> None:
        for text in texts:
            self._progress.log(f'step {step}  warning: {text}; see docs/troubleshooting.md')
