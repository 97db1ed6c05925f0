"""SIGTERM, SIGHUP and Ctrl-C as a request that the loop grants between two steps."""

import contextlib
import os
import signal
from types import FrameType

import jax
from jax.experimental import multihost_utils

_ONCE_MORE = b'\nFinishing the step and saving; the same signal once more ends at once, unsaved.\n'

# Windows has no SIGHUP: there a closed console is told otherwise.
_SIGNALS = [
    getattr(signal, name) for name in ('SIGINT', 'SIGTERM', 'SIGHUP') if hasattr(signal, name)
]


class Interrupt:
    """Context manager that turns the first of these signals into a request; a second one kills.

    `requested(step)` is the number of the signal (15, 1 or 2), or None. With several processes all
    of them must stop at one step. There JAX's own service carries a SIGTERM to the others, and they
    agree on the step; the other signals are passed on as a SIGTERM.
    """

    def __init__(self):
        self._signal: int | None = None
        self._alone = jax.process_count() == 1

    def __enter__(self) -> 'Interrupt':
        # What the caller has ignored stays so: nohup ignores SIGHUP.
        numbers = [n for n in _SIGNALS if signal.getsignal(n) != signal.SIG_IGN]
        if not self._alone and signal.SIGTERM in numbers:
            numbers.remove(signal.SIGTERM)
        self._previous = {number: signal.signal(number, self._receive) for number in numbers}
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
        with contextlib.suppress(OSError):
            os.write(2, _ONCE_MORE)  # print may have been interrupted, and cannot be entered again
        if not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)
