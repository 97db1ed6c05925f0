"""Workloads in processes of their own, which are timed in turn.

Each has its own memory peak, threads and devices. All hold their memory at the same time.
"""

import contextlib
import dataclasses
import importlib
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

Side = tuple[str, str, Mapping[str, Any]]  # module, function in it, arguments: gives a Workload


class WorkerError(Exception):
    """What a worker failed with, in one line."""


@dataclasses.dataclass(frozen=True)
class Workload:
    """Work that is ready to be timed.

    run: does so many steps, and returns when the last is done.
    images: that a step takes, of each domain.
    flops: operations of a step, counted as twice the multiply-adds of its convolutions.
    matrix_rate: measures the operations a second that the same framework reaches on the same
      devices in a matrix product of the same type.
    peak_memory: bytes that have been in use at once, so far.
    facts: 'platform' (cpu, gpu, tpu), 'device', 'framework', and more that is to be kept.
    output: what the work gives, (n, h, w, c), if it can be compared with other workloads'.
    """

    run: Callable[[int], None]
    images: int
    flops: float
    matrix_rate: Callable[[], float]
    peak_memory: Callable[[], int]
    facts: Mapping[str, Any]
    output: Callable[[], np.ndarray] | None = None

    def time(self, steps: int) -> float:
        start = time.perf_counter()
        self.run(steps)
        return time.perf_counter() - start

    def report(self) -> dict[str, Any]:
        peak = self.peak_memory()  # first: the matrices are not part of the work
        return {
            'images': self.images,
            'flops': self.flops,
            'matrix_flops_per_second': self.matrix_rate(),
            'peak_memory_bytes': peak,
            'output': self.output and self.output(),
            **self.facts,
        }


class Worker:
    """A workload in a process of its own. A failure is told on stderr, and ends it."""

    def __init__(self, name: str, side: Side):
        """Prepares the workload and does its first step."""
        self._name, self._error, self._turns = name, None, []
        context = multiprocessing.get_context('spawn')
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, *side), daemon=True)
        self._process.start()
        theirs.close()
        self.platform = self._receive()
        self._first_step = self._ask('time', 1)

    def take_turn(self, steps: int | None) -> None:
        """Times so many steps; by default, 1 on a CPU and 20 on accelerators."""
        steps = steps or (1 if self.platform == 'cpu' else 20)
        if (seconds := self._ask('time', steps)) is not None:
            self._turns.append(seconds / steps)

    def report(self) -> dict[str, Any]:
        """The workload's, with the seconds of the first step and of a step in each turn."""
        report = self._ask('report')
        if self._error:
            return {'error': self._error}
        return {'first_step_seconds': self._first_step, 'turns': self._turns, **report}

    def close(self) -> None:
        self._pipe.close()  # which ends the process, unless it is busy
        self._process.join(timeout=5)
        self._process.terminate()
        self._process.join()

    def _ask(self, method: str, *args):
        """What the workload's method returns; None if it has failed, now or before."""
        if self._error:
            return None
        with contextlib.suppress(OSError):  # it is gone, as will be told
            self._pipe.send((method, args))
        return self._receive()

    def _receive(self):
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            killed = self._process.exitcode == -9  # SIGKILL; Windows has no such name
            answer = WorkerError(
                'killed by the system, out of memory'
                if killed
                else f'ended with status {self._process.exitcode}'
            )
        if not isinstance(answer, WorkerError):
            return answer
        self._error = str(answer)
        print(f'{self._name}: {self._error}', file=sys.stderr)
        return None


def take_turns(sides: Mapping[str, Side], steps: int | None, repeats: int) -> dict[str, dict]:
    """Prepares all sides, then times A, B, A, B, ...; returns a `Worker.report` for each name.

    Raises:
      ValueError: some compute on a CPU, others on a GPU.
    """
    with contextlib.ExitStack() as stack:
        workers = {
            name: stack.enter_context(contextlib.closing(Worker(name, side)))
            for name, side in sides.items()
        }
        platforms = {name: worker.platform for name, worker in workers.items() if worker.platform}
        if len(set(platforms.values())) > 1:
            found = ', '.join(f'{name} on {platform}' for name, platform in platforms.items())
            raise ValueError(f'{found}: install both for the same device, or hide it from one.')
        for _ in range(repeats):
            for worker in workers.values():
                worker.take_turn(steps)
        return {name: worker.report() for name, worker in workers.items()}


def _work(pipe: Connection, module: str, function: str, arguments: Mapping[str, Any]) -> None:
    """Makes a workload, sends its platform, and then answers calls of its methods."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this process
    try:
        workload = getattr(importlib.import_module(module), function)(**arguments)
        pipe.send(workload.facts['platform'])
        while True:
            method, args = pipe.recv()
            pipe.send(getattr(workload, method)(*args))
    except EOFError:
        return  # the parent is gone
    except Exception as error:
        line = (str(error).strip() or 'no message').splitlines()[0]
        pipe.send(WorkerError(f'{type(error).__name__}: {line}'))
