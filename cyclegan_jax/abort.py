"""Hears on stderr that XLA is about to abort because process 0 is gone, and is quicker.

The client of JAX's coordination service ends its process by a fatal log line, a stack trace and an
abort; a callback that it could be given fails when it is called (jax 0.10).
"""

import ctypes
import faulthandler
import os
import re
import signal
import sys
import threading
from collections.abc import Callable

_FATAL = re.compile(rb'JAX distributed service detected fatal errors')
# What the client says beside it. The rest of what native code writes is passed on.
_NOISE = re.compile(
    rb'coordination_service|preemption_sync_manager|GRPC error information|grpc_status'
    rb'|Check failure stack trace|^    @ '
)

_restore: Callable[[], None] | None = None


def listen(on_fatal: Callable[[], None]) -> None:
    """Calls `on_fatal`, in a thread, when that is said; it must end the process.

    From here on what native code writes to stderr passes through a pipe; Python writes as before.
    """
    global _restore
    stderr, (reader, writer) = os.dup(2), os.pipe()
    python_stderr = sys.stderr
    sys.stderr = open(stderr, 'w', buffering=1, errors='backslashreplace', closefd=False)  # noqa: SIM115
    os.dup2(writer, 2)
    os.close(writer)
    if faulthandler.is_enabled():
        faulthandler.enable(sys.stderr)
    # The thread that aborts waits in this handler, whose argument is the number of the signal: for
    # six seconds. Then the abort goes on, if it was another one.
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = ctypes.c_int, ctypes.c_void_p
    libc.signal.restype = ctypes.c_void_p
    previous = libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))

    def pump() -> None:
        with open(reader, 'rb') as lines:  # noqa: PTH123
            for line in lines:
                if _FATAL.search(line):
                    on_fatal()
                elif not _NOISE.search(line):
                    os.write(stderr, line)

    thread = threading.Thread(target=pump, name='stderr', daemon=True)
    thread.start()

    def restore() -> None:
        os.dup2(stderr, 2)  # closes the pipe
        if threading.current_thread() is not thread:
            thread.join(1)
        libc.signal(signal.SIGABRT, previous)
        sys.stderr = python_stderr

    _restore = restore


def stop_listening() -> None:
    """Gives stderr back."""
    global _restore
    if _restore:
        _restore()
        _restore = None
