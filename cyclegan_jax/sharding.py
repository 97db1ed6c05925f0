"""One mesh with one axis, 'data': batch and pools are split over it, the rest is replicated.

The same code serves one device, all devices of a host, and all hosts of a pod.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import psutil
from absl import logging
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cyclegan_jax import ops
from cyclegan_jax.errors import UserError

Array = jax.Array

_PROGRAMS = 8  # compiled for as many shapes; each may hold megabytes
# Convolutions on a CPU take memory that the compiler's analysis leaves out. Measured with the
# default generator, from 512x512 to 1500x2000: 2.1 to 2.6 times what it says.
_CPU_MEMORY = 2.5


def make_mesh(
    batch_size: int,
    devices: Sequence[jax.Device] | None = None,
    *,
    num_devices: int | None = None,
) -> Mesh:
    """All devices of all processes, or the given ones, in a row.

    Args:
      num_devices: use only so many of them, of each process equally many.

    Raises:
      UserError: there are not so many, or they cannot share the batch evenly.
    """
    devices = jax.devices() if devices is None else devices
    shares: dict[int, list[jax.Device]] = {}  # by process
    for device in devices:
        shares.setdefault(device.process_index, []).append(device)
    there, processes = len(devices), len(shares)
    count = num_devices or there
    if count > there or count % processes:
        raise UserError(
            f'num_devices is {count}; there are {there} devices of {processes} process(es), each '
            'of which must use equally many.'
        )
    if batch_size % count:
        raise UserError(
            f'batch_size is {batch_size}, which {count} devices cannot share evenly; choose a '
            f'multiple of {count}{_fewer(batch_size, count, processes)}.'
        )
    return _row([device for share in shares.values() for device in share[: count // processes]])


def _fewer(batch_size: int, count: int, processes: int) -> str:
    """How fewer devices share a batch, if they can: as advice."""
    fits = [n for n in range(processes, count, processes) if batch_size % n == 0]
    if not fits:
        return f', or start fewer than {processes} processes' if processes > 1 else ''
    per_device = batch_size // fits[-1]
    advice = f', or use {fits[-1]} of them: --config.num_devices={fits[-1]}'
    if per_device > 1:
        advice += f' (and --config.accumulate={per_device}, should {per_device} images not fit)'
    return advice


def _row(devices: Sequence[jax.Device]) -> Mesh:
    # Auto axes: plain data parallelism, for which the compiler finds the one all-reduce it needs.
    return jax.make_mesh((len(devices),), ('data',), axis_types=(AxisType.Auto,), devices=devices)


def memory(device: jax.Device) -> float:
    """Bytes that this process can have of a device; those of a CPU are shared by all of them."""
    if device.platform == 'cpu':
        return _host_memory()
    return (device.memory_stats() or {}).get('bytes_limit', math.inf)


def _host_memory() -> float:
    # What this process has once had and freed, its C library keeps (see process.py).
    return psutil.virtual_memory().available + psutil.Process().memory_info().rss


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


def check_memory(needed: float) -> None:
    """Raises MemoryError where the host has less than so many bytes, and would end the process."""
    if needed > (has := _host_memory()):
        raise MemoryError(f'it takes {needed / 2**30:.1f} GiB, and {has / 2**30:.1f} are available')


class Batched:
    """`function(params, images)` over any number of images, in batches that the devices share.

    The last batch is filled up to one of a few sizes, so that few programs are compiled. Programs
    are kept for the shapes used last. Where a batch does not fit into memory, it is halved.

    Args:
      function: (tree of parameters, (n, ...)) -> (n, ...), or a tree of such; jitted here. What it
        makes of an image may not depend on the others.
      batch_size: images at a time, at most, rounded up to a multiple of the devices.
      mesh: the devices. All processes that have a part of it must call with equal images, and all
        get all outputs. By default the devices of this process, no more than there are images in a
        batch.
    """

    def __init__(self, function: Callable, batch_size: int, mesh: Mesh | None = None):
        self._function = function
        self._mesh = _row(jax.local_devices()[:batch_size]) if mesh is None else mesh
        self._per_device = -(-batch_size // self._mesh.size)
        self._fits = {}  # images a device, of the shapes of which fewer than that fit
        self._placed = None, None
        self._program = functools.lru_cache(_PROGRAMS)(self._compile)

    def __call__(self, params: Any, images: np.ndarray) -> Any:
        """Returns the outputs for images (n, ...), as arrays of the host with n rows.

        Args:
          params: put on the devices, where they are not yet, and kept there until others come.

        Raises:
          JaxRuntimeError (RESOURCE_EXHAUSTED), MemoryError: not even one image fits.
        """
        params = self._place(params)
        outputs, done, shape = [], 0, images.shape[1:]
        while not outputs or done < len(images):
            per_device = self._fits.get(shape, self._per_device)
            batch = images[done : done + per_device * self._mesh.size]
            try:
                outputs.append(self._run(params, batch, per_device))
                done += len(batch)
            except (jax.errors.JaxRuntimeError, MemoryError) as error:
                exhausted = isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in str(error)
                # Another process might not have failed, and would wait for this one for ever.
                if not exhausted or per_device == 1 or self._mesh.is_multi_process:
                    raise
                self._fits[shape] = per_device // 2
                number = per_device // 2 * self._mesh.size
                logging.warning('out of memory: going on with batches of %d images', number)
        return jax.tree.map(lambda *parts: np.concatenate(parts), *outputs)

    def _run(self, params: Any, batch: np.ndarray, per_device: int) -> Any:
        number = len(batch)
        wanted = max(1, -(-number // self._mesh.size))
        per_device = min(1 << (wanted - 1).bit_length(), per_device)
        filled = np.zeros((per_device * self._mesh.size, *batch.shape[1:]), batch.dtype)
        filled[:number] = batch
        # `device_put` would have processes compare the images bit by bit, though computed ones may
        # differ by rounding on honest machines.
        with jax.transfer_guard('allow'):  # it is meant, as that of `device_put` would be
            placed = jax.make_array_from_callback(
                filled.shape, split(self._mesh), filled.__getitem__
            )
        leaves, tree = jax.tree.flatten((params, placed))
        shapes = (jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for x in leaves)
        program, needed = self._program(tree, tuple(shapes))
        if self._mesh.devices.flat[0].platform == 'cpu':  # other devices raise errors themselves
            check_memory(_CPU_MEMORY * needed)
        outputs = jax.device_get(program(params, placed))
        return jax.tree.map(lambda array: array[:number], outputs)

    def _compile(self, tree: Any, shapes: tuple[jax.ShapeDtypeStruct, ...]) -> tuple[Callable, int]:
        """A program, and the bytes that it takes beside its arguments, on all devices."""
        gather = replicated if self._mesh.is_multi_process else split
        # Of a function of its own: what JAX keeps of one goes with it.
        jitted = jax.jit(lambda *args: self._function(*args), out_shardings=gather(self._mesh))
        with ops.devices(self._mesh.size):
            program = jitted.lower(*jax.tree.unflatten(tree, shapes)).compile()
        memory = program.memory_analysis()
        if memory is None:
            return program, 0
        return program, self._mesh.size * (memory.temp_size_in_bytes + memory.output_size_in_bytes)

    def _place(self, params: Any) -> Any:
        place = replicated(self._mesh)
        if all(isinstance(x, Array) and x.sharding == place for x in jax.tree.leaves(params)):
            return params  # not kept: a step of the training gives its memory away
        if self._placed[0] is not params:
            self._placed = params, jax.device_put(params, place)
        return self._placed[1]
