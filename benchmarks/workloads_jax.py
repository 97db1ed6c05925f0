"""What this project computes, as its commands do, ready to be timed."""

import functools
import importlib.metadata
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import same_work
from jax.sharding import Mesh
from workers import Workload

sys.path.append(str(Path(__file__).parents[1]))  # configs is no part of the installed package
from configs import default
from cyclegan_jax import checks, interop, ops, process, sharding
from cyclegan_jax.inference import Translator
from cyclegan_jax.program import Program, make_networks, make_program


def train_step(
    *,
    size: int,
    batch: int,
    dtype: str,
    width: int,
    blocks: int,
    devices: int = 1,
    remat: bool = False,
    accumulate: int = 1,
) -> Workload:
    """An update of all four networks: the program of a run, on a batch that is on the devices."""
    _set_up(devices)
    if devices > (count := jax.device_count()):
        raise ValueError(f'devices is {devices}; this machine has {count}: choose no more.')
    mesh, program = build_step(
        jax.devices()[:devices],
        size=size,
        batch=batch,
        dtype=dtype,
        width=width,
        blocks=blocks,
        remat=remat,
        accumulate=accumulate,
    )
    start = time.perf_counter()
    compiled = program.step.lower(program.state, program.batch).compile()
    compile_seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    images = random_batch(mesh, program)
    state = program.create(jax.random.key(0))

    def update(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            state, metrics = compiled(state, images)
        jax.block_until_ready((state, metrics))

    nets = program.networks
    return Workload(
        run=update,
        images=batch,
        flops=batch
        * same_work.training_flops(
            _flops(nets.generators['a2b'], size), _flops(nets.discriminators['a'], size)
        ),
        matrix_rate=functools.partial(_matrix_rate, dtype, devices),
        peak_memory=_peak_memory,
        facts={
            **_facts(),
            'compile_seconds': compile_seconds,
            # Of one device, as the compiler plans it: 'alias' is what is donated and written over.
            'planned_bytes': {
                name: getattr(memory, f'{name}_size_in_bytes')
                for name in ('argument', 'output', 'alias', 'temp')
            },
        },
    )


def build_step(
    devices: Sequence[jax.Device],
    *,
    size: int,
    batch: int,
    width: int,
    blocks: int,
    dtype: str = 'float32',
    remat: bool = False,
    accumulate: int = 1,
    generator: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Mesh, Program]:
    """The program of main.py on these devices, and their mesh.

    generator: choices among what `config.generator` has, such as its kind.

    Raises:
      ValueError: the devices cannot share the batch, or the networks cannot take the images.
    """
    config = default.get_config()
    config.batch_size, config.dtype, config.accumulate = batch, dtype, accumulate
    config.generator.update(width=width, num_blocks=blocks, remat=remat, **generator)
    config.discriminator.width = width
    mesh = sharding.make_mesh(batch, devices)
    checks.check_accumulate(config, mesh.size)
    nets = make_networks(config)
    return mesh, make_program(config, nets, mesh, (size, size), steps_per_epoch=1000)


def random_batch(mesh: Mesh, program: Program) -> dict[str, jax.Array]:
    """Images on the devices, as the program wants them."""
    rng = np.random.default_rng(0)
    images = {d: rng.integers(0, 256, leaf.shape, np.uint8) for d, leaf in program.batch.items()}
    return sharding.put_batch(mesh, images)


def translate(
    *, size: int, batch: int, dtype: str, width: int, blocks: int, runtime: str = 'jax'
) -> Workload:
    """Images by a Translator, from the host's memory and back to it."""
    _set_up()
    spec = interop.full_spec('generator', {'width': width, 'num_blocks': blocks})
    shapes = interop.param_shapes('generator', spec, (3, 3))
    zeros = jax.tree.map(np.zeros, shapes, is_leaf=lambda leaf: isinstance(leaf, tuple))
    keys = interop.to_state_dict(interop.Network('generator', spec, (3, 3), zeros))
    tensors = {key: same_work.weights(key, zero.shape) for key, zero in keys.items()}
    network = interop.from_state_dict(tensors, 'random weights')
    translator = Translator(network, runtime=runtime, dtype=dtype)
    images = list(same_work.images(batch, size))
    facts = _facts()
    if runtime != 'jax':
        version = importlib.metadata.version(runtime)
        facts |= {'platform': 'cpu', 'device': 'cpu', 'framework': f'{runtime} {version}'}

    def translate_all(steps: int) -> None:
        for _ in range(steps):
            translator(images, batch_size=batch)

    return Workload(
        run=translate_all,
        images=batch,
        flops=batch * _flops(interop.make_module('generator', spec, (3, 3)), size),
        matrix_rate=functools.partial(_matrix_rate, dtype, 1),
        peak_memory=_peak_memory,
        facts=facts,
        output=lambda: np.stack(translator(images, batch_size=batch)),
    )


def _set_up(devices: int = 1) -> None:
    process.keep_freed_memory()  # as the commands do
    # Memory is taken as it is needed, so that the other sides find some.
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
    jax.config.update('jax_num_cpu_devices', devices)
    # A compilation is to be timed, not to be found.
    jax.config.update('jax_enable_compilation_cache', False)


def _facts() -> dict[str, str]:
    device = jax.devices()[0]
    return {
        'platform': device.platform,
        'device': device.device_kind,
        'framework': f'jax {jax.__version__}',
    }


def _flops(network: nn.Module, size: int) -> float:
    """Operations of one image's pass: twice the multiply-adds of all convolutions."""
    total = 0

    def count(call, args, kwargs, context):
        nonlocal total
        y = call(*args, **kwargs)
        module = context.module
        if isinstance(module, ops.Conv) and context.method_name == '__call__':
            # A transposed convolution spreads each pixel that it takes, others gather for each they
            # give; 'nearest' counts as the 3x3 convolution that it stands for.
            [x] = args
            pixels = (x if module.up == 'transpose' else y)[..., 0].size
            total += 2 * pixels * module.kernel**2 * x.shape[-1] * module.features
        return y

    with nn.intercept_methods(count):
        image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
        jax.eval_shape(network.init, jax.random.key(0), image)
    return float(total)


def _matrix_rate(dtype: str, devices: int) -> float:
    def make_multiply(side: int):
        x = jax.random.normal(jax.random.key(0), (side, side), dtype)
        square = jax.jit(lambda x: x @ x)

        def multiply(products: int) -> None:
            for _ in range(products):
                y = square(x)
            y.block_until_ready()

        return multiply

    platform = jax.devices()[0].platform
    # Virtual devices of a CPU share its cores.
    return same_work.matrix_rate(platform, make_multiply) * (1 if platform == 'cpu' else devices)


def _peak_memory() -> int:
    stats = jax.devices()[0].memory_stats() or {}
    return stats.get('peak_bytes_in_use') or process.host_peak_memory()
