"""One mesh with one axis, 'data': batch and pools are split over it, the rest is replicated.

The same code serves one device, all devices of a host, and all hosts of a pod.
"""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

Array = jax.Array

_PROGRAMS = 8  # compiled ones that `Batched` keeps


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


def put(sharding: NamedSharding, array: np.ndarray) -> Array:
    """An array that every process has, on the devices of a sharding.

    `jax.device_put` would compare what the processes have bit by bit, and stop where one has
    rounded otherwise.
    """
    places = sharding.addressable_devices_indices_map(array.shape)
    shards = [jax.device_put(array[index], device) for device, index in places.items()]
    return jax.make_array_from_single_device_arrays(array.shape, sharding, shards)


class Batched:
    """`function(params, images)` over any number of images, in batches shared by the devices.

    The last batch is filled up to a power of two, and only the most recently used programs are
    kept, so that neither many numbers nor many sizes of images fill the memory. Where a batch does
    not fit into it, smaller ones are tried. None of this shows in the result.

    Args:
      function: from a tree of arrays and a batch of images (n, ...) to a tree of arrays (n, ...),
        each image by itself.
      batch_size: the most images at a time.
      mesh: by default all devices of this process, of which a small batch uses a few. If it spans
        several processes, all of them must call this with the same images.
    """

    def __init__(self, function: Callable, batch_size: int, mesh: Mesh | None = None):
        self._function, self._batch_size = function, batch_size
        self._devices = jax.local_devices() if mesh is None else list(mesh.devices.flat)
        self._alone = mesh is None or not mesh.is_multi_process
        self._fits = {}  # by the shape of an image: the batch size, where it had to be halved
        self._placed = None, {}  # a tree of parameters and, by number of devices, its places
        self._program = functools.lru_cache(_PROGRAMS)(self._compile)

    def __call__(self, params: Any, images: np.ndarray) -> Any:
        """The outputs for (n, ...), n at least 1, as arrays of the host, (n, ...).

        Args:
          params: host arrays, placed once as long as the same tree is given; or global arrays,
            replicated on the mesh.

        Raises:
          jax.errors.JaxRuntimeError: RESOURCE_EXHAUSTED, if a single image does not fit.
        """
        outputs, start, shape = [], 0, images.shape[1:]
        while start < len(images):
            size = self._fits.get(shape, self._batch_size)
            batch = images[start : start + size]
            try:
                outputs.append(self._run(params, batch))
            except jax.errors.JaxRuntimeError as error:
                if 'RESOURCE_EXHAUSTED' not in str(error) or len(batch) == 1:
                    raise
                # Processes of one run have equal devices, and come to this together.
                self._fits[shape] = -(-len(batch) // 2)
                continue
            start += len(batch)
        return jax.tree.map(lambda *parts: np.concatenate(parts), *outputs)

    def _run(self, params: Any, batch: np.ndarray) -> Any:
        devices = self._devices[: _power_of_two(len(batch))] if self._alone else self._devices
        each = min(
            _power_of_two(-(-len(batch) // len(devices))), -(-self._batch_size // len(devices))
        )
        mesh = make_mesh(len(devices), devices)
        filling = np.repeat(batch[-1:], each * len(devices) - len(batch), axis=0)
        filled = put(split(mesh), np.concatenate([batch, filling]))
        arguments = self._place(params, mesh), filled
        leaves, tree = jax.tree.flatten(arguments)
        shapes = (jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for x in leaves)
        outputs = self._program(mesh, tree, tuple(shapes))(*arguments)
        return jax.tree.map(lambda x: x[: len(batch)], jax.device_get(outputs))

    def _place(self, params: Any, mesh: Mesh) -> Any:
        everywhere = replicated(mesh)
        if all(getattr(x, 'sharding', None) == everywhere for x in jax.tree.leaves(params)):
            return params  # not kept: a step of the training may give its memory away
        tree, places = self._placed
        if tree is not params:
            self._placed = params, places = params, {}
        if mesh.size not in places:
            places[mesh.size] = jax.tree.map(lambda x: put(everywhere, np.asarray(x)), params)
        return places[mesh.size]

    def _compile(self, mesh: Mesh, tree: Any, shapes: tuple) -> Callable:
        # A new function each time: JAX keeps what it knows of one for as long as it lives.
        jitted = jax.jit(lambda *args: self._function(*args), out_shardings=replicated(mesh))
        return jitted.lower(*jax.tree.unflatten(tree, shapes)).compile()


def _power_of_two(number: int) -> int:
    """The least that is no smaller."""
    return 1 << (number - 1).bit_length()
