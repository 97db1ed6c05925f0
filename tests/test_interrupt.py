"""Which signals ask for a stop, and which are left alone."""

import os
import signal
import subprocess
import sys

import pytest

from cyclegan_jax.interrupt import Interrupt


@pytest.fixture(autouse=True)
def handlers():
    """Those that Python starts with, whatever whoever started the tests ignores."""
    usual = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM', 'SIGHUP'])
def test_a_signal_is_a_request_and_a_second_one_kills(name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with Interrupt() as interrupt:
        assert interrupt.requested(1) is None
        os.kill(os.getpid(), number)
        assert interrupt.requested(2) == number
        assert signal.getsignal(number) == signal.SIG_DFL
    assert signal.getsignal(number) == before


def test_what_nohup_ignores_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGHUP)
        assert interrupt.requested(1) is None


def test_ctrl_c_ends_at_once_even_where_python_swallows_exceptions():
    """In callbacks of the garbage collector, as JAX has them."""
    code = """
import gc, os, signal
from cyclegan_jax.process import ends_at_once
signal.signal(signal.SIGINT, signal.default_int_handler)  # or it is ignored, as in a script
gc.callbacks.append(lambda *_: os.kill(os.getpid(), signal.SIGINT))
with ends_at_once('nothing is lost'):
    gc.collect()
print('went on')
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, '', 'nothing is lost\n')
