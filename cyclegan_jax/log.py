"""The only door to the log: console, `metrics.jsonl`, TensorBoard.

A metric's name is `group/term`. The groups `generator` and `discriminator` are losses, which the
console shows; the rest (`gradient_norm`, `score`, `gap`, `evaluation`, ...) goes to the files.
"""

import contextlib
import datetime
import functools
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np
import tqdm
from clu import metrics as clu_metrics
from clu import parameter_overview

from cyclegan_jax import process
from cyclegan_jax.storage import whole

Array = jax.Array

_GIB = 2**30
_LINES = 'metrics.jsonl'
_LOSSES = ('generator/total', 'generator/', 'discriminator/')  # in the console's order


class Averages:
    """Means of metrics over the steps since the last log line, computed on the host in float64.

    Args:
      saved: `sums` of an earlier process, which this one goes on from.
    """

    def __init__(self, saved: Mapping[str, Sequence[float]] = {}):
        self._averages = {
            name: clu_metrics.Average(total=np.float64(total), count=count)
            for name, (total, count) in saved.items()
        }

    def add(self, steps: Iterable[Mapping[str, np.ndarray]]) -> None:
        """Adds the metrics of some steps."""
        for step in steps:
            for name, value in step.items():
                value = clu_metrics.Average(total=np.float64(value), count=1)
                known = self._averages.get(name)
                self._averages[name] = known.merge(value) if known else value

    def take(self) -> dict[str, float]:
        """The means so far; begins anew."""
        averages, self._averages = self._averages, {}
        return {name: float(average.compute()) for name, average in averages.items()}

    def sums(self) -> dict[str, list[float]]:
        """{name: [sum, number of steps]}, as JSON can hold it without loss."""
        return {n: [float(a.total), int(a.count)] for n, a in self._averages.items()}


def first_non_finite(
    window: Sequence[Mapping[str, np.ndarray]], first_step: int
) -> tuple[int, str] | None:
    """The first (step, name) that is NaN or infinite, where `window[0]` is step `first_step`.

    Within a step generator losses come first: the discriminators judge what the generators made.
    """
    for step, scalars in enumerate(window, first_step):
        for name in sorted(scalars, key=lambda name: not name.startswith('generator/')):
            if not np.isfinite(scalars[name]):
                return step, name
    return None


def peak_memory() -> dict[str, float]:
    """Peak memory so far in GiB, under a name that says whose.

    `memory/device_peak_gib`: the first local device's, where its allocator counts (GPU, TPU).
    `memory/host_peak_gib`: this process's resident memory otherwise.
    """
    stats = jax.local_devices()[0].memory_stats() or {}
    if 'peak_bytes_in_use' in stats:
        return {'memory/device_peak_gib': stats['peak_bytes_in_use'] / _GIB}
    return {'memory/host_peak_gib': process.host_peak_memory() / _GIB}


def parameter_table(params: Mapping[str, Any]) -> str:
    """Name, shape, type and size of every leaf of `params` (arrays or shapes), and their total."""
    return parameter_overview.get_parameter_overview(params, include_stats=False)


def format_line(
    scalars: Mapping[str, float],
    *,
    step: int,
    total_steps: int,
    epoch: int,
    num_epochs: int,
    learning_rate: float,
    images_per_second: float,
    input_share: float,
    seconds_left: float,
) -> str:
    """The console's line for one window of steps.

    Args:
      scalars: averaged metrics; the losses among them are shown, by `short_name`.
      input_share: fraction of the window's time spent waiting for input, in [0, 1].
      seconds_left: time to the last step, in seconds.
    """
    losses = sorted(
        (name for name in scalars if name.startswith(_LOSSES)),
        key=lambda name: [not name.startswith(prefix) for prefix in _LOSSES],
    )
    return '  '.join(
        [
            f'epoch {epoch}/{num_epochs}',
            f'step {step}/{total_steps} ({step / total_steps:.0%})',
            *(f'{short_name(name)} {scalars[name]:.3f}' for name in losses),
            f'lr {learning_rate:.1e}',
            f'{images_per_second:.1f} img/s',
            f'input {input_share:.1%}',
            f'eta {datetime.timedelta(seconds=round(seconds_left))}',
        ]
    )


def short_name(name: str) -> str:
    """A loss's name on the console, close to those of the PyTorch code.

    `generator/total` G, `generator/adversarial_a2b` G_a2b, `generator/cycle_a` cycle_a,
    `generator/identity_a` idt_a, `discriminator/a` D_a.
    """
    group, _, term = name.partition('/')
    if group == 'discriminator':
        return f'D_{term}'
    return term.replace('total', 'G').replace('adversarial', 'G').replace('identity', 'idt')


class Progress:
    """The console: lines on stdout and, where stderr is a terminal, a bar below them.

    A log file gets the lines alone, with no carriage returns. A console that goes away (`| head`, a
    closed terminal) does not end the training.

    Args:
      total_steps: where the bar ends.
      start: the step that the run begins or resumes at.
      active: False prints nothing, for all but one process of a pod.
    """

    def __init__(self, total_steps: int, *, start: int = 0, active: bool = True):
        self._active = active
        on_terminal = active and sys.stderr is not None and sys.stderr.isatty()
        self._bar = tqdm.tqdm(
            total=total_steps,
            initial=start,
            unit='step',
            dynamic_ncols=True,
            disable=not on_terminal,
        )

    def update(self, step: int) -> None:
        """Moves the bar to `step` finished steps."""
        with _outlives_reader(sys.stderr):
            self._bar.update(step - self._bar.n)

    def log(self, line: str) -> None:
        """Prints `line` above the bar."""
        if self._active:
            bar_aside = tqdm.tqdm.external_write_mode()
            with _outlives_reader(sys.stderr), bar_aside, _outlives_reader(sys.stdout):
                print(line, flush=True)

    def close(self) -> None:
        with _outlives_reader(sys.stderr):
            self._bar.close()


@contextlib.contextmanager
def _outlives_reader(stream: TextIO) -> Iterator[None]:
    try:
        yield
    except OSError:  # what is still buffered, and all that is printed later, goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class MetricWriter:
    """Writes scalars to `metrics.jsonl` and scalars and images to `tensorboard/` in a workdir.

    A run that resumes writes the steps after its checkpoint again, so what was logged after
    `resume_step` is dropped from the lines, and TensorBoard is told to pass over it. A write that
    fails (full disk, broken install) is one warning; training goes on.

    Args:
      workdir: made if missing.
      resume_step: the step of the checkpoint resumed from, 0 for a new run.
      active: False writes nothing, for all but one process of a pod.
    """

    def __init__(self, workdir: str | Path, *, resume_step: int = 0, active: bool = True):
        self._lines = Path(workdir) / _LINES
        self._tensorboard = Path(workdir) / 'tensorboard'
        self._resume_step = resume_step
        self._active = active
        if active:
            kept = [r for r in read_metrics(workdir) if r['step'] <= resume_step]
            self._lines.parent.mkdir(parents=True, exist_ok=True)
            with whole(self._lines) as temporary:
                temporary.write_text(''.join(f'{json.dumps(record)}\n' for record in kept))

    def scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Adds one line, `step` first. NaN and infinity, which JSON does not have, are null."""
        if self._active:
            attempt(self._lines, self._write_line, step, scalars)
            attempt(self._tensorboard, self._write_scalars, step, scalars)

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Adds uint8 (h, w, c) images of 1, 3 or 4 channels to TensorBoard."""
        if self._active:
            attempt(self._tensorboard, self._write_images, step, images)

    def close(self) -> None:
        if '_events' in vars(self):
            attempt(self._tensorboard, self._events.close)

    def _write_line(self, step: int, scalars: Mapping[str, float]) -> None:
        values = {n: float(v) if math.isfinite(v) else None for n, v in scalars.items()}
        with self._lines.open('a') as file:
            file.write(json.dumps({'step': step, **values}) + '\n')

    def _write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        summary = _tensorboardx().proto.summary_pb2.Summary()
        for name, value in scalars.items():
            summary.value.add(tag=name, simple_value=value)
        self._write_event(step=step, summary=summary)

    def _write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        for name, image in images.items():
            summary = _tensorboardx().summary.image(name, image, dataformats='HWC')
            self._write_event(step=step, summary=summary)

    def _write_event(self, **fields) -> None:
        event = _tensorboardx().proto.event_pb2.Event(wall_time=time.time(), **fields)
        self._events.write_event(event)
        self._events.flush()

    @functools.cached_property
    def _events(self):
        """The event file, written in this thread.

        tensorboardX's `SummaryWriter` has a thread write, fed by a queue of ten. A full disk ends
        that thread, and the training would then wait for ever for room in the queue.
        """
        tensorboardx = _tensorboardx()
        protos = tensorboardx.proto.event_pb2
        self._tensorboard.mkdir(exist_ok=True)
        # Names hold the second of the start; the suffix keeps a quick restart off the same file.
        events = tensorboardx.event_file_writer.EventsWriter(
            str(self._tensorboard / 'events'), f'.{self._resume_step}'
        )
        # A session that starts at a step makes TensorBoard forget that step and all later ones.
        start = protos.SessionLog(status=protos.SessionLog.START)
        events.write_event(protos.Event(step=self._resume_step + 1, session_log=start))
        return events


@functools.cache
def _tensorboardx():
    """The package, without those that it would import for seconds wherever they are installed."""
    absent = {'torch', 'google.cloud.storage'} - sys.modules.keys()
    sys.modules.update(dict.fromkeys(absent))  # importing None raises ImportError
    try:
        import tensorboardX
    finally:
        for name in absent:
            del sys.modules[name]
    return tensorboardX


def read_metrics(workdir: str | Path) -> list[dict[str, Any]]:
    """The objects of `metrics.jsonl` in the order written; none if there is no such file.

    A line that a crash left unfinished, or that is no record of a step, is passed over.
    """
    path = Path(workdir) / _LINES
    if not path.exists():
        return []
    records = []
    with path.open(encoding='utf-8', errors='replace') as lines:
        for line in lines:
            with contextlib.suppress(ValueError, RecursionError):
                record = json.loads(line)
                if isinstance(record, dict) and type(record.get('step')) is int:
                    records.append(record)
    return records


def attempt(what: object, write: Callable[..., object], *args) -> None:
    """Calls `write(*args)`, which the run can do without: a failure is one warning per `what`."""
    try:
        write(*args)
    except Exception as error:  # whatever an outside writer raises
        if what not in _failed:
            _failed.add(what)
            message = 'Could not write %s (%s: %s); training goes on.'
            logging.getLogger(__name__).warning(message, what, type(error).__name__, error)


_failed = set()
