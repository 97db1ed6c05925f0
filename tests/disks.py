"""Disks that are full."""

import contextlib
import resource


@contextlib.contextmanager
def full_disk(bytes_left):
    """Writing fails as on a full disk, with another error number."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
