"""One mesh with one axis, 'data': batch and pools are split over it, the rest is replicated.

The same code serves one device, all devices of a host, and all hosts of a pod.
"""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cyclegan_jax.errors import UserError

Array = jax.Array

_PROGRAMS = 8  # compiled for as many shapes; each may hold megabytes


def initialize_multihost() -> None:
    """Joins this process to the others of a run; call it before anything asks for devices.

    On a TPU pod, and under Slurm or MPI, JAX finds the others by itself. Elsewhere each process is
    told by the environment: JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and
    JAX_PROCESS_ID.

    Raises:
      UserError: there is no cluster to be found. It is never taken for a run of one: that would
        start as many unconnected runs in one workdir as there are processes.
    """
    count, index = os.environ.get('JAX_NUM_PROCESSES'), os.environ.get('JAX_PROCESS_ID')
    try:
        jax.distributed.initialize(
            num_processes=int(count) if count else None, process_id=int(index) if index else None
        )
    except ValueError as error:
        raise UserError(
            f'--multihost found no other processes ({error}); start it on a pod or under Slurm or '
            'MPI, or set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.'
        ) from error


def make_mesh(batch_size: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices of all processes, or the given ones, in a row.

    Raises:
      UserError: the batch cannot be split evenly over the devices.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    if batch_size % count:
        raise UserError(
            f'batch_size is {batch_size}, which {count} devices cannot share evenly; choose a '
            f'multiple of {count}, or show fewer devices to the program (CUDA_VISIBLE_DEVICES).'
        )
    return _row(devices)


def _row(devices: Sequence[jax.Device]) -> Mesh:
    # Auto axes: plain data parallelism, for which the compiler finds the one all-reduce it needs.
    return jax.make_mesh((len(devices),), ('data',), axis_types=(AxisType.Auto,), devices=devices)


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


class Batched:
    """`function(params, images)` over any number of images, in batches that the devices share.

    The last batch is filled up to one of a few sizes, so that few programs are compiled. Programs
    are kept for the shapes used last. Where a batch does not fit into memory, it is halved.

    Args:
      function: (tree of parameters, (n, ...)) -> (n, ...), or a tree of such; jitted here. What it
        makes of an image may not depend on the others.
      batch_size: images at a time, at most, rounded up to a multiple of the devices.
      mesh: the devices. All processes that have a part of it must call with equal images, and all
        get all outputs; only what they call with may differ unnoticed, so compute it alike. By
        default the devices of this process, no more than there are images in a batch.
    """

    def __init__(self, function: Callable, batch_size: int, mesh: Mesh | None = None):
        self._mesh = _row(jax.local_devices()[:batch_size]) if mesh is None else mesh
        self._per_device = -(-batch_size // self._mesh.size)
        self._placed = None, None
        places = replicated(self._mesh), split(self._mesh)
        gathered = places[0] if self._mesh.is_multi_process else places[1]

        @functools.lru_cache(_PROGRAMS)
        def program(shape: tuple[int, ...], dtype: np.dtype) -> Callable:
            # Of a function of its own: what JAX keeps for it goes with it.
            return jax.jit(
                lambda params, images: function(params, images),
                in_shardings=places,
                out_shardings=gathered,
            )

        self._program = program

    def __call__(self, params: Any, images: np.ndarray) -> Any:
        """Returns the outputs for images (n, ...), as arrays of the host with n rows.

        Args:
          params: put on the devices, where they are not yet, and kept there until others come.
        """
        params = self._place(params)
        outputs, done = [], 0
        while not outputs or done < len(images):
            batch = images[done : done + self._per_device * self._mesh.size]
            try:
                outputs.append(self._run(params, batch))
            except jax.errors.JaxRuntimeError as error:
                # Another process might not have failed, and would wait for this one.
                if 'RESOURCE_EXHAUSTED' not in str(error) or self._mesh.is_multi_process:
                    raise
                if self._per_device == 1:
                    raise
                self._per_device //= 2
                number = self._per_device * self._mesh.size
                logging.warning('out of memory: going on with batches of %d images', number)
            else:
                done += len(batch)
        return jax.tree.map(lambda *parts: np.concatenate(parts), *outputs)

    def _run(self, params: Any, batch: np.ndarray) -> Any:
        number = len(batch)
        wanted = max(1, -(-number // self._mesh.size))
        per_device = min(1 << (wanted - 1).bit_length(), self._per_device)
        filled = np.zeros((per_device * self._mesh.size, *batch.shape[1:]), batch.dtype)
        filled[:number] = batch
        # `device_put` would have processes compare the images bit by bit, though computed ones may
        # differ by rounding on honest machines.
        with jax.transfer_guard('allow'):  # it is meant, as that of `device_put` would be
            placed = jax.make_array_from_callback(
                filled.shape, split(self._mesh), filled.__getitem__
            )
        outputs = jax.device_get(self._program(filled.shape, filled.dtype)(params, placed))
        return jax.tree.map(lambda array: array[:number], outputs)

    def _place(self, params: Any) -> Any:
        place = replicated(self._mesh)
        if all(isinstance(x, Array) and x.sharding == place for x in jax.tree.leaves(params)):
            return params
        if self._placed[0] is not params:
            self._placed = params, jax.device_put(params, place)
        return self._placed[1]
