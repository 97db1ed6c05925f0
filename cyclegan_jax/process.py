"""What every command does for its process: settings before, one line and a status at the end."""

import contextlib
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from absl import logging as absl_logging

from cyclegan_jax import storage
from cyclegan_jax.errors import UserError, describe, printable, tell

_CACHE_BYTES = 2 * 2**30  # a whole step takes some 10 MB; what was used least goes first


def run_command(command: Callable[[], int], *, interrupted: str, out_of_memory: str) -> int:
    """Sets the process up, runs a command, and tells what ends it in one line on stderr.

    A fault of the program is not told but raised, with its traceback.

    Args:
      command: returns the exit status.
      interrupted: what to say after Ctrl-C: what is done, and how to go on.
      out_of_memory: what to do if the memory of the device or of the host is too small.

    Returns:
      The exit status: that of the command; 2 (or its `status`) for a UserError, 4 out of memory.
      After Ctrl-C it does not return: the process ends with 130.
    """
    set_up()
    import jax

    try:
        with ends_at_once(interrupted):
            return command()
    except (UserError, OSError, *storage.outages()) as error:  # no file, no room, no right, no way
        tell(f'error: {describe(error)}')
        return getattr(error, 'status', UserError.status)
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        tell(f'error: out of memory ({describe(error)}); {out_of_memory}')
        return 4
    except (RuntimeError, AssertionError):
        if _has_devices():
            raise
        wanted = os.environ.get('JAX_PLATFORMS')
        tell(f'error: JAX_PLATFORMS is {wanted!r}, but JAX finds no such device; unset it.')
        return UserError.status


@contextlib.contextmanager
def ends_at_once(message: str) -> Iterator[None]:
    """Has Ctrl-C tell a message and end the process, status 130.

    KeyboardInterrupt will not do: where it is raised within a callback of the garbage collector it
    is swallowed, and a compiler that still runs in its threads would crash on the way out.
    """

    def end(number: int, _: FrameType | None) -> None:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            # print may have been interrupted, and cannot be entered again
            os.write(sys.stderr.fileno(), f'{message}\n'.encode())
        if sys.stdout is not None:
            with contextlib.suppress(RuntimeError, OSError):
                sys.stdout.flush()
        os._exit(128 + number)

    previous = signal.getsignal(signal.SIGINT)
    if previous != signal.SIG_IGN:
        signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _has_devices() -> bool:
    import jax

    try:
        return bool(jax.devices())
    except (RuntimeError, AssertionError):  # the latter where nothing but a missing GPU is allowed
        return False


def set_up() -> None:
    """Streams that can be written, plain warnings, compiled programs and memory that are kept."""
    for name in ('stdout', 'stderr'):
        if getattr(sys, name) is None:  # closed: libraries write to it all the same
            setattr(sys, name, open(os.devnull, 'w'))  # noqa: PTH123, SIM115
    plain_warnings()
    cache_compilations()
    keep_freed_memory()


def plain_warnings() -> None:
    """Shows warnings as 'warning: ...', without the names of loggers, threads and files."""
    absl_logging.set_verbosity(absl_logging.WARNING)  # below that, libraries talk of themselves
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter('%(message)s'))
    handler.addFilter(_lower_level)
    logging.getLogger().handlers[:] = [handler]


def _lower_level(record: logging.LogRecord) -> bool:
    record.msg = printable(f'{record.levelname.lower()}: {record.getMessage()}')
    record.args = None
    return True


def cache_compilations() -> None:
    """Keeps compiled programs in the user's cache folder, up to 2 GiB: the next start is quick.

    JAX_COMPILATION_CACHE_DIR names another folder; JAX_ENABLE_COMPILATION_CACHE=0 switches it off.
    """
    import jax

    if not jax.config.jax_compilation_cache_dir:
        try:
            folder = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
        except RuntimeError:  # in containers a user may have no home
            return
        folder /= 'cyclegan_jax'
        for program in folder.glob('*-cache'):
            # JAX takes none without the time of its use, which a kill may have kept it from noting.
            used = program.with_name(f'{program.name.removesuffix("-cache")}-atime')
            with contextlib.suppress(OSError), used.open('xb') as file:
                file.write(bytes(8))
        jax.config.update('jax_compilation_cache_dir', str(folder))
        jax.config.update('jax_compilation_cache_max_size', _CACHE_BYTES)
    # Not 1 s, JAX's default: a start compiles a number of programs that take less.
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)


def keep_freed_memory() -> None:
    """Has the C library keep the memory that is freed, instead of returning it to the system.

    A step on a CPU takes and frees gigabytes. Got anew each time, every page of it is cleared by
    the kernel first, which is a fifth of the time of a step. Only glibc can be told; elsewhere
    nothing happens.
    """
    if sys.platform != 'linux':
        return
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt:
        # The numbers are those of malloc.h.
        arena_max, mmap_max, trim_threshold = -8, -4, -1
        mallopt(arena_max, 1)  # others cannot grow beyond 64 MiB, and map what is larger
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, -1)


def host_peak_memory() -> int:
    """Bytes of memory that this process has held at most; what it holds now where no one counts.

    The standard library knows, but on Windows, where psutil does, and there alone.
    """
    try:
        import resource
    except ImportError:
        import psutil

        memory = psutil.Process().memory_info()
        return getattr(memory, 'peak_wset', memory.rss)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else peak * 1024  # bytes on macOS, KiB elsewhere
