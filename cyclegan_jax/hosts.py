"""The processes of a run on several hosts: they find each other, and agree.

They talk through the key-value store of JAX's coordination service, which process 0 hosts, and not
through devices: what one of them has to say reaches the others while these wait for it.
"""

import contextlib
import hashlib
import itertools
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax

# Not public, but the only way to the store; orbax goes it too.
from jax._src import distributed

from cyclegan_jax.errors import UserError, describe, shortlist, tell
from cyclegan_jax.storage import outages
from cyclegan_jax.watch import RESTART, SILENCE, Watch, end_process

_T = TypeVar('_T')

_PATIENCE, _ARRIVAL = 30, 300  # seconds for all to come; clusters that fetch images take minutes
_SIGHT = 30.0  # seconds until what one host has written is seen by another: NFS keeps old answers

_rounds = itertools.count()  # all processes make the same calls, so the numbers agree


def index() -> int:
    return distributed.global_state.process_id


def count() -> int:
    return distributed.global_state.num_processes


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Joins this process to the others of a run; enter it before anything asks for devices.

    On a TPU pod, and under Slurm or MPI, JAX finds the others by itself. Elsewhere each process is
    told by the environment: JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and
    JAX_PROCESS_ID.

    While it is entered, a process that ends with an error ends all, with that error's line and
    status; one that is lost ends them with the status RESTART.

    Raises:
      UserError: there is no cluster to be found, which is never taken for a run of one: that would
        start as many unconnected runs in one workdir as there are processes. Or they run other
        programs. Where not all come in time, the process ends with RESTART.
    """
    global _watch
    _initialize()
    _watch = Watch(_client(), index(), count())
    _watch.start()
    try:
        agree(_program(), 'start the same version with the same number of processes everywhere.')
        yield
    except Exception as error:
        _watch.fail(error)
        raise
    _watch.leave()


def leave(status: int) -> None:
    """Ends this process if `joined` was left by an error: JAX would wait for the others."""
    if _watch and not _watch.left:
        _watch.bye()
        end_process(status)


def resumes_from(latest: Callable[[], int | None]) -> None:
    """Says how to find the step that the run would go on from, to be told if a process is lost."""
    if _watch:
        _watch.latest = latest


def on_first(call: Callable[[], _T], error: type[UserError] = UserError) -> _T:
    """What `call` returns on process 0, as JSON has it, on all processes.

    What is found on a disk that they share is for one of them to say, as they may see it change at
    other times. A user's mistake that it finds is raised on all, as `error`: none waits in vain.
    """
    found = mistake = cause = None
    if index() == 0:
        try:
            found = call()
        except (UserError, OSError, *outages()) as raised:
            mistake, cause = describe(raised), raised
    text = json.dumps([found, mistake])
    if count() > 1:
        key = f'cyclegan_jax/first/{next(_rounds)}'
        if index() == 0:
            _client().key_value_set(key, text)
        else:
            text = _get(key)
    found, mistake = json.loads(text)
    if mistake:
        raise error(mistake) from cause
    return found


def gather(value: _T) -> list[_T]:
    """What each process has, as JSON has it, on all of them, in their order."""
    key = f'cyclegan_jax/gather/{next(_rounds)}'
    text = json.dumps(value)
    if count() == 1:
        return [json.loads(text)]
    _client().key_value_set(f'{key}/{index()}', text)
    return on_first(lambda: [json.loads(_get(f'{key}/{other}')) for other in range(count())])


def agree(facts: Mapping[str, Any], advice: str) -> None:
    """Whether these JSON values are the same on all processes.

    Raises:
      UserError: on all of them, with the hosts that differ from process 0, and in what.
    """
    (first, ours), *others = gather([socket.gethostname(), facts])
    lines = []
    for other, (host, theirs) in enumerate(others, 1):
        differing = [
            f'{name} is {_brief(theirs.get(name))}, not {_brief(ours.get(name))}'
            for name in dict.fromkeys([*ours, *theirs])
            if theirs.get(name) != ours.get(name)
        ]
        if differing:
            lines.append(f'on process {other} ({host}) {shortlist(differing)}')
    if lines:
        raise UserError(
            f'the processes differ from process 0 ({first}): {shortlist(lines, 4, "; ")}; {advice}'
        )


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'


def check_shared(folder: Path) -> None:
    """Whether all processes see the folder of process 0, not another one of the same name.

    Raises:
      UserError: on all of them, with those that do not.
    """
    if count() == 1:
        return
    nonce = folder / on_first(lambda: f'.{secrets.token_hex(8)}.nonce')
    try:
        on_first(lambda: nonce.write_bytes(b''))
        deadline = time.monotonic() + _SIGHT
        while not (seen := nonce.exists()) and time.monotonic() < deadline:
            time.sleep(0.2)
        agree(
            {f'the folder {folder}': 'shared' if seen else 'another'},
            '--workdir must be on a disk, or in a bucket, that all hosts share.',
        )
    finally:
        if index() == 0:
            nonce.unlink(missing_ok=True)


def _initialize() -> None:
    total, number = os.environ.get('JAX_NUM_PROCESSES'), os.environ.get('JAX_PROCESS_ID')
    everyone = f'all {total} processes' if total else 'all processes'

    def wait() -> None:
        if here.wait(_PATIENCE):
            return
        tell(f'warning: waiting until {everyone} are here; there are {_ARRIVAL} s for that.')
        if not here.wait(_ARRIVAL - _PATIENCE):
            # JAX would abort.
            tell(
                f'error: not {everyone} came within {_ARRIVAL} s; start the same command on each '
                'host, and see that it reaches process 0 at '
                f'{distributed.global_state.coordinator_address}.'
            )
            end_process(RESTART)

    here = threading.Event()
    threading.Thread(target=wait, name='arrival', daemon=True).start()
    try:
        jax.distributed.initialize(
            num_processes=int(total) if total else None,
            process_id=int(number) if number else None,
            initialization_timeout=2 * _ARRIVAL,  # sooner `wait` ends it
            # `Watch` is quicker, and ends the others without an abort.
            heartbeat_timeout_seconds=int(10 * SILENCE),
        )
    except ValueError as error:
        raise UserError(
            f'--multihost found no other processes ({error}); start it on a pod or under Slurm or '
            'MPI, or set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.'
        ) from error
    finally:
        here.set()


def _program() -> dict[str, Any]:
    """What must be the same before anything else can be compared."""
    package = Path(__file__).parent
    code = hashlib.sha256()
    for path in sorted(package.rglob('*.py')):
        code.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return {
        'the number of processes': count(),
        'the code of cyclegan_jax': code.hexdigest()[:12],
        'jax': jax.__version__,
        'python': '.'.join(map(str, sys.version_info[:2])),
    }


def _client() -> Any:
    return distributed.global_state.client


def _get(key: str) -> str:
    """Waits for a value; whoever should write it and cannot any more is `Watch`'s matter."""
    while True:
        try:
            return _client().blocking_key_value_get(key, int(1000 * SILENCE))
        except jax.errors.JaxRuntimeError as error:
            if 'DEADLINE_EXCEEDED' not in str(error):
                raise


_watch: Watch | None = None
