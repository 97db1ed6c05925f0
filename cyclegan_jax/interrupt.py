"""SIGTERM and Ctrl-C as a request that the loop grants between two steps."""

import os
import signal
from types import FrameType

import jax
from jax.experimental import multihost_utils


class Interrupt:
    """Context manager that turns the first SIGTERM or SIGINT into a request; a second one kills.

    `requested(step)` is the number of the signal (15 or 2), or None. With several processes all
    of them must stop at one step. There JAX's own service carries a SIGTERM to the others, and they
    agree on the step; Ctrl-C is passed on as a SIGTERM.
    """

    def __init__(self):
        self._signal: int | None = None
        self._alone = jax.process_count() == 1

    def __enter__(self) -> 'Interrupt':
        handlers = {signal.SIGINT: self._receive}
        if self._alone:
            handlers[signal.SIGTERM] = self._receive
        self._previous = {number: signal.signal(number, f) for number, f in handlers.items()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def requested(self, step: int) -> int | None:
        """The signal to stop for after `step`; all processes must ask, with the same step."""
        if not self._alone and multihost_utils.reached_preemption_sync_point(step):
            return signal.SIGTERM
        return self._signal if self._alone else None

    def _receive(self, number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        self._signal = number
        if not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)
