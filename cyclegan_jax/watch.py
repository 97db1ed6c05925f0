"""Watches over the processes of a run: when one ends or is lost, all do, with a line and a status.

JAX would notice too, but ends the others by an abort with a stack trace, which names no host and
has no status that a scheduler could know.
"""

import contextlib
import itertools
import json
import math
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import jax

from cyclegan_jax import abort
from cyclegan_jax.errors import UserError, describe, tell

RESTART = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong with the command, run it again
SILENCE = 60.0  # seconds without a sign of life after which a process is lost
_BEAT = 5.0  # seconds between two signs of life


def end_process(status: int) -> None:
    """Ends this process at once: JAX would wait for the others on the way out."""
    abort.stop_listening()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(status)


class Watch:
    """Two threads that end this process when another one has ended, or is silent for too long.

    Attributes:
      latest: gives the step that the run would go on from; to be set.
      left: all are done, and none needs to be watched any more.

    Args:
      client: the key-value store that all share.
      index, count: which process this is, and of how many.
    """

    def __init__(self, client: Any, index: int, count: int):
        self.latest: Callable[[], int | None] = lambda: None
        self.left = False
        self._client, self._index, self._count = client, index, count
        self._hosts = {index: socket.gethostname()}
        self._heard = dict.fromkeys(range(count), time.monotonic())
        self._beats: dict[str, str] = {}
        self._looked = time.monotonic()
        self._stood = -math.inf  # when this process went on after it stood still
        self._threads = [
            threading.Thread(target=run, name=f'hosts{run.__name__}', daemon=True)
            for run in (self._talk, self._look)
        ]
        self._ending = threading.Lock()  # taken by whoever tells the end, and never given back

    def start(self) -> None:
        for thread in self._threads:
            thread.start()
        if self._index:
            # When process 0 is gone, the client within XLA aborts, often before the store says so.
            abort.listen(lambda: self._lost(0, 'is gone'))

    def fail(self, error: Exception) -> None:
        """Has the others end as this one does, which is about to tell why."""
        out_of_memory = isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in str(error)
        mistake = isinstance(error, UserError | OSError)
        if not (mistake or out_of_memory):
            if isinstance(error, jax.errors.JaxRuntimeError | ValueError):
                # Most likely the connection to one that is gone: which, will be known soon.
                time.sleep(SILENCE + 3 * _BEAT)
            traceback.print_exc()
        self._ending.acquire()
        status = 4 if out_of_memory else getattr(error, 'status', UserError.status)
        self._announce(status if mistake or out_of_memory else 1, describe(error))
        if not (mistake or out_of_memory):
            self.bye()
            end_process(1)

    def bye(self) -> None:
        """The last word to process 0, which stays until then: without it XLA would abort."""
        if self._index:
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                self._client.key_value_set(f'cyclegan_jax/bye/{self._index}', '')

    def leave(self) -> None:
        """Waits until all are done, and ends the threads: the interpreter could not, within XLA."""
        self._client.key_value_set(f'cyclegan_jax/done/{self._index}', '')
        if self._index == 0:
            while len(self._client.key_value_dir_get('cyclegan_jax/done/')) < self._count:
                time.sleep(0.1)
            self._client.key_value_set('cyclegan_jax/end', 'null')
        for thread in self._threads:
            thread.join()
        abort.stop_listening()

    def _talk(self) -> None:
        """Gives signs of life, and hears the others'."""
        name, host = f'cyclegan_jax/alive/{self._index}', self._hosts[self._index]
        for beat in itertools.count():
            try:
                self._client.key_value_set(name, f'{beat} {host}', allow_overwrite=True)
                self._hear(dict(self._client.key_value_dir_get('cyclegan_jax/alive/')))
                end = self._client.blocking_key_value_get('cyclegan_jax/end', int(1000 * _BEAT))
            except jax.errors.JaxRuntimeError as error:
                if self._index and 'DEADLINE_EXCEEDED' not in str(error):
                    self._lost(0, 'is gone')
            else:
                if (last := json.loads(end)) is None:
                    self.left = True
                    return
                self._end(**last)

    def _hear(self, beats: Mapping[str, str]) -> None:
        now = time.monotonic()
        for key, text in beats.items():
            other = int(key.rsplit('/', 1)[1])
            self._hosts[other] = text.split(' ', 1)[1]
            if self._beats.get(key) != text:
                self._heard[other] = now
        self._beats = dict(beats)

    def _look(self) -> None:
        """Process 0 looks after all the others, and they after it."""
        while not self.left:
            time.sleep(1)
            now = time.monotonic()
            stood = now - self._looked
            if stood > SILENCE / 2:
                self._stood = now  # before the next line: other threads ask for both
            self._looked = now
            if stood > SILENCE:
                self._lost(self._index, f'stood still for {stood:.0f} s')
            for other in range(1, self._count) if self._index == 0 else (0,):
                self._heard[other] += max(0.0, stood - _BEAT)  # nobody is heard meanwhile
                if now - self._heard[other] > SILENCE:
                    self._lost(other, f'gave no sign of life for {SILENCE:.0f} s')

    def _lost(self, other: int, what: str) -> None:
        now = time.monotonic()
        if now - self._looked > SILENCE / 2 or now - self._stood < SILENCE:
            other, what = self._index, 'stood still for too long'  # and the others have ended
        host = self._hosts.get(other, 'unknown host')
        if self._ending.acquire(blocking=False) and not self.left:
            line = f'process {other} ({host}) {what}'
            tell(f'error: {line}; the same command goes on from {self._step()}.')
            if self._index == 0 and other:
                self._announce(RESTART, line, lost=other)
            end_process(RESTART)

    def _end(self, process: int, status: int, line: str) -> None:
        """Ends as another process has."""
        if self._ending.acquire(blocking=False):
            host = self._hosts.get(process, 'unknown host')
            if status == RESTART:
                line = f'{line}; the same command goes on from {self._step()}.'
            else:
                line = f'process {process} ({host}) ended: {line}'
            tell(f'error: {line}')
            self.bye()
            self._wait_for_byes()
            end_process(status)

    def _announce(self, status: int, line: str, lost: int | None = None) -> None:
        end = json.dumps({'process': self._index, 'status': status, 'line': line})
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # another one was first, or 0 is gone
            self._client.key_value_set('cyclegan_jax/end', end)
        self._wait_for_byes(lost)

    def _wait_for_byes(self, lost: int | None = None) -> None:
        """Process 0, with which the store ends, waits for the last word of the others."""
        if self._index:
            return
        others = {i for i in range(1, self._count) if i != lost}
        deadline = time.monotonic() + 2 * _BEAT
        while others and time.monotonic() < deadline:
            time.sleep(0.1)
            gone = self._client.key_value_dir_get('cyclegan_jax/bye/')
            others -= {int(key.rsplit('/', 1)[1]) for key, _ in gone}

    def _step(self) -> str:
        found = []
        look = threading.Thread(target=lambda: found.append(self.latest()), daemon=True)
        look.start()
        look.join(_BEAT)  # the disk may be unreachable too
        if not found:
            return 'the last checkpoint'
        return f'step {found[0]}' if found[0] else 'the start'
