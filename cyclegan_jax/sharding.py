"""One mesh with one axis, 'data': batch and pools are split over it, the rest is replicated.

The same code serves one device, all devices of a host, and all hosts of a pod.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cyclegan_jax.errors import UserError, describe

Array = jax.Array
_T = TypeVar('_T')


def initialize_multihost() -> None:
    """Joins this process to the others of a run; call it before anything asks for devices.

    On a TPU pod, and under Slurm or MPI, JAX finds the others by itself. Elsewhere each process is
    told by the environment: JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and
    JAX_PROCESS_ID.

    Raises:
      ValueError: there is no cluster to be found. It is never taken for a run of one: that would
        start as many unconnected runs in one workdir as there are processes.
    """
    count, index = os.environ.get('JAX_NUM_PROCESSES'), os.environ.get('JAX_PROCESS_ID')
    try:
        jax.distributed.initialize(
            num_processes=int(count) if count else None, process_id=int(index) if index else None
        )
    except ValueError as error:
        raise ValueError(
            f'--multihost found no other processes ({error}); start it on a pod or under Slurm or '
            'MPI, or set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.'
        ) from error


def make_mesh(batch_size: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices of all processes, or the given ones, in a row.

    Raises:
      ValueError: the batch cannot be split evenly over the devices.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    if batch_size % count:
        raise ValueError(
            f'batch_size is {batch_size}, which {count} devices cannot share evenly; choose a '
            f'multiple of {count}, or show fewer devices to the program (CUDA_VISIBLE_DEVICES).'
        )
    # Auto axes: plain data parallelism, for which the compiler finds the one all-reduce it needs.
    return jax.make_mesh((count,), ('data',), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """Leading axis over the devices: for batches and pools."""
    return NamedSharding(mesh, PartitionSpec('data'))


def put_batch(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, Array]:
    """Global device arrays from this process's share of a batch."""
    sharding = split(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, images)
        for name, images in batch.items()
    }


def on_first(call: Callable[[], _T], error: type[UserError] = UserError) -> _T:
    """What `call` returns on process 0, as JSON has it, on all processes.

    What is found on a disk that they share is for one of them to say, as they may see it change at
    other times. A user's mistake that it finds is raised on all, as `error`: none waits in vain.
    """
    found = mistake = cause = None
    if jax.process_index() == 0:
        try:
            found = call()
        except (UserError, OSError) as raised:
            mistake, cause = describe(raised), raised
    text = np.frombuffer(json.dumps([found, mistake]).encode(), np.uint8)
    with jax.transfer_guard('allow'):
        size = int(multihost_utils.broadcast_one_to_all(np.int32(text.size)))
        text = np.asarray(multihost_utils.broadcast_one_to_all(np.resize(text, size)))
    found, mistake = json.loads(text.tobytes())
    if mistake:
        raise error(mistake) from cause
    return found
