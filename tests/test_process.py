"""What a command does for its process: settings, and how what ends it is told."""

import os
import subprocess
import sys

import jax
import pytest

from cyclegan_jax import process
from cyclegan_jax.errors import UserError


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


def test_the_cache_is_bounded(tmp_path):
    """What was used least goes first: here one of a program before, which noted no time."""
    folder = tmp_path / 'cyclegan_jax'
    folder.mkdir()
    (folder / 'old-cache').write_bytes(bytes(2**13))
    bound = "jax.config.update('jax_compilation_cache_max_size', 2**14)"
    shown = COMPILE.replace('cache_dir)', 'cache_max_size)')
    assert run(shown, XDG_CACHE_HOME=str(tmp_path)) == str(2**31)
    assert (folder / 'old-cache').exists()
    compile_many = f'{bound}\nfor i in range(12):\n    jax.jit(lambda x: x * i)(1.0)\njax.jit('
    run(COMPILE.replace('jax.jit(', compile_many, 1), XDG_CACHE_HOME=str(tmp_path))
    kept = list(folder.glob('*-cache'))
    assert folder / 'old-cache' not in kept
    assert 0 < sum(path.stat().st_size for path in kept) <= 2**14


def test_another_cache_folder_can_be_named(tmp_path):
    folder = run(COMPILE, XDG_CACHE_HOME='/nowhere', JAX_COMPILATION_CACHE_DIR=str(tmp_path))
    assert folder == str(tmp_path)
    assert list(tmp_path.iterdir())


def test_the_cache_can_be_switched_off(tmp_path):
    run(COMPILE, XDG_CACHE_HOME=str(tmp_path), JAX_ENABLE_COMPILATION_CACHE='0')
    assert not list(tmp_path.rglob('*-cache'))


@pytest.mark.skipif(sys.platform != 'linux', reason='only glibc can be told')
@pytest.mark.parametrize('kept', [True, False])
def test_freed_memory_is_kept(kept):
    """Whatever the size of a page, or how busy the machine: what is freed stays in the process."""
    resident = run(f"""
from pathlib import Path
from cyclegan_jax import process
if {kept}:
    process.keep_freed_memory()
def resident():
    return int(Path('/proc/self/statm').read_text().split()[1])
before = resident()
b'x' * 2**27
print(before, resident())
""")
    before, after = (pages * os.sysconf('SC_PAGE_SIZE') for pages in map(int, resident.split()))
    assert (after - before > 0.9 * 2**27) is kept


@pytest.fixture
def command(capfd, monkeypatch):
    """Runs a function as the body of a command; gives its status and what it told on stderr."""
    monkeypatch.setattr(process, 'set_up', lambda: None)

    def run_command(body):
        status = process.run_command(body, interrupted='stopped', out_of_memory='use less')
        return status, capfd.readouterr().err

    return run_command


def raising(error):
    def body():
        raise error

    return body


def test_a_mistake_is_one_line_and_a_fault_keeps_its_traceback(command):
    assert command(lambda: 7) == (7, '')
    assert command(raising(UserError('x is 1; it must be 2.'))) == (
        2,
        'error: x is 1; it must be 2.\n',
    )
    missing = FileNotFoundError(2, 'No such file or directory', 'x.png')
    assert command(raising(missing)) == (2, 'error: x.png: No such file or directory\n')
    for fault in (ValueError('incompatible shapes'), TypeError(), RuntimeError('a bug')):
        with pytest.raises(type(fault)):
            command(raising(fault))


def test_the_status_of_a_mistake_may_be_its_own(command):
    class NotFinite(UserError):
        status = 3

    assert command(raising(NotFinite('it is not finite')))[0] == 3


def test_out_of_memory_is_told_with_advice(command):
    for error in (MemoryError(), jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: 9 GB')):
        status, told = command(raising(error))
        assert status == 4 and told.startswith('error: out of memory') and 'use less' in told
    with pytest.raises(jax.errors.JaxRuntimeError):
        command(raising(jax.errors.JaxRuntimeError('INTERNAL: a bug')))


def test_names_cannot_move_the_cursor(command):
    name = 'bad\n\x1b[2J\u202e.png'
    for error in (UserError(f'{name} is damaged.'), OSError(5, 'Input/output error', name)):
        _, told = command(raising(error))
        assert 'bad\\n\\x1b[2J\\u202e.png' in told and told.count('\n') == 1
        assert '\x1b' not in told


@pytest.mark.parametrize('platform', ['bogus', 'cuda'])
def test_a_device_that_is_not_there_is_one_line(platform):
    script = """
import sys
from cyclegan_jax import process
import jax
sys.stderr = sys.stdout
print(process.run_command(lambda: print(jax.devices()), interrupted='', out_of_memory=''))
"""
    told = run(script, JAX_PLATFORMS=platform)
    assert (
        told == f"error: JAX_PLATFORMS is '{platform}', but JAX finds no such device; unset it.\n2"
    )


def test_a_closed_stderr_and_no_home_are_no_faults():
    """As in a container, for a user that has no entry in its list of users."""
    script = """
import os, sys, jax
from cyclegan_jax import errors, process
if os.geteuid() == 0:
    os.setuid(54321)
os.environ.pop('HOME', None)
sys.stderr = None
process.set_up()
errors.tell('nobody reads this')
print('fine', file=sys.stderr)
print('done')
"""
    assert run(script) == 'done'
