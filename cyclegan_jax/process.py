"""What every command sets for its process before it computes."""

import ctypes
import logging
import os
import sys
from pathlib import Path

from absl import logging as absl_logging


def set_up() -> None:
    """Plain warnings, a cache of compiled programs, and memory that is kept."""
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
    record.msg, record.args = f'{record.levelname.lower()}: {record.getMessage()}', None
    return True


def cache_compilations() -> None:
    """Keeps compiled programs in the user's cache folder, so that the next start is quick.

    JAX_COMPILATION_CACHE_DIR names another folder; JAX_ENABLE_COMPILATION_CACHE=0 switches it off.
    """
    import jax

    if not jax.config.jax_compilation_cache_dir:
        folder = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
        jax.config.update('jax_compilation_cache_dir', str(folder / 'cyclegan_jax'))
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
