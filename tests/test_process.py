"""What a command sets for its process: where compiled programs go, and that memory is kept."""

import os
import subprocess
import sys

import pytest


def run(script: str, **environment: str) -> str:
    """The output of a script in a process of its own, as the settings are the process's."""
    base = {name: value for name, value in os.environ.items() if not name.startswith('JAX_')}
    done = subprocess.run(
        [sys.executable, '-c', script],
        env=base | {'JAX_PLATFORMS': 'cpu'} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


COMPILE = """
import jax
from cyclegan_jax import process
process.set_up()
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
jax.jit(lambda x: x + 1)(1.0)
print(jax.config.jax_compilation_cache_dir)
"""


def test_compiled_programs_are_kept_in_the_users_cache_folder(tmp_path):
    folder = run(COMPILE, XDG_CACHE_HOME=str(tmp_path))
    assert folder == str(tmp_path / 'cyclegan_jax')
    assert list((tmp_path / 'cyclegan_jax').glob('*-cache'))


def test_another_cache_folder_can_be_named(tmp_path):
    folder = run(COMPILE, XDG_CACHE_HOME='/nowhere', JAX_COMPILATION_CACHE_DIR=str(tmp_path))
    assert folder == str(tmp_path)
    assert list(tmp_path.iterdir())


def test_the_cache_can_be_switched_off(tmp_path):
    run(COMPILE, XDG_CACHE_HOME=str(tmp_path), JAX_ENABLE_COMPILATION_CACHE='0')
    assert not list(tmp_path.rglob('*-cache'))


@pytest.mark.skipif(sys.platform != 'linux', reason='only glibc can be told')
def test_freed_memory_is_kept():
    """As the C library counts it: page faults depend on the machine's page size and load."""
    held = run("""
import ctypes
from cyclegan_jax import process
class Counts(ctypes.Structure):  # malloc.h's mallinfo2
    _fields_ = [(name, ctypes.c_size_t) for name in (
        'arena', 'ordblks', 'smblks', 'hblks', 'hblkhd', 'usmblks', 'fsmblks', 'uordblks',
        'fordblks', 'keepcost')]
process.keep_freed_memory()
libc = ctypes.CDLL(None)
if hasattr(libc, 'mallinfo2'):  # glibc 2.33
    libc.mallinfo2.restype, libc.malloc.restype = Counts, ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    libc.free(libc.malloc(ctypes.c_size_t(2**27)))
    print(libc.mallinfo2().fordblks)
""")
    if not held:
        pytest.skip('this C library does not count')
    assert int(held) >= 2**27
