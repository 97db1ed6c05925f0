"""Compiles the training step for NVIDIA's GPUs, without one: kernels, and the bytes they move.

    python benchmarks/gpu_compile.py [--card=h100,a100,l4] [--batch-per-chip=8] [--breakdown]
    python benchmarks/gpu_compile.py --card=h100 --what=generator_gradient

The program is the one that main.py runs. jax's plug-in for CUDA compiles it, without a driver; a
whole step takes ten seconds or more. It is planned without trying kernels out, which needs the
card. Bytes are what each kernel reads and writes, as if nothing stayed in a cache; "memory alone"
is the time that all but the convolutions would take at the card's published rate. These are plans,
not times.
"""

import argparse
import importlib.metadata
import importlib.util
import os
import sys
import time
from typing import NamedTuple

import measure
import plan
from compiled import memory


class Card(NamedTuple):
    """A GPU by its published specification; shared memory in bytes, for each multiprocessor."""

    name: str
    capability: tuple[int, int]
    cores: int
    fpus: int
    threads: int
    shared_memory: int
    cache: int
    clock_ghz: float
    memory: int
    bytes_per_second: int


CARDS = {
    'h100': Card(
        'NVIDIA H100 80GB HBM3',
        (9, 0),
        132,
        128,
        2048,
        233472,
        50 << 20,
        1.98,
        80 << 30,
        3352320000000,
    ),
    'a100': Card(
        'NVIDIA A100-SXM4-80GB',
        (8, 0),
        108,
        64,
        2048,
        167936,
        40 << 20,
        1.41,
        80 << 30,
        2039040000000,
    ),
    'l4': Card('NVIDIA L4', (8, 9), 58, 128, 1536, 102400, 48 << 20, 2.04, 24 << 30, 300000000000),
}


def main() -> int:
    parser = measure.parser(__doc__)
    parser.add_argument(
        '--card', type=_cards, default='h100', metavar='NAME,...', help=', '.join(CARDS)
    )
    plan.add_options(parser)
    args = parser.parse_args()
    if importlib.util.find_spec('jax_cuda12_plugin') is None:
        parser.error(
            "jax's plug-in for CUDA, which compiles for GPUs, is not installed; the one that fits "
            f'this jax comes with pip install "jax[cuda12]=={importlib.metadata.version("jax")}"'
        )
    os.environ.update(
        JAX_PLATFORMS='',
        JAX_SKIP_CUDA_CONSTRAINTS_CHECK='1',  # there is no driver to ask
        XLA_FLAGS='--xla_gpu_autotune_level=0',
        TF_CPP_MIN_LOG_LEVEL='3',
    )
    import jax

    jax.config.update('jax_enable_compilation_cache', False)  # it is to be timed, not found
    results = []
    print('card  compile s  kernels  GB: convolutions  all others  memory alone  temporaries')
    for name in args.card:
        result = _compile(args, name)
        print(_line(result), flush=True)
        if args.breakdown:
            plan.print_breakdown(result, 'GB outside of convolutions', 1e9)
        results.append(result)
        measure.save(args.json, 'gpu_compile', measure.command(), results)
    return 0


def _cards(text: str) -> list[str]:
    names = text.split(',')
    for name in names:
        if name not in CARDS:
            raise argparse.ArgumentTypeError(f'{name!r} is none of {", ".join(CARDS)}')
    return names


def _compile(args: argparse.Namespace, name: str) -> dict:
    import jax
    from jax.experimental import topologies

    card = CARDS[name]
    topology = topologies.get_topology_desc(
        f'{name}:1x1x1', platform='cuda', target_config=_target(card), topology='1x1x1'
    )
    lowered, _ = plan.lower(args, topology.devices)
    start = time.perf_counter()
    compiled = lowered.compile()
    compile_seconds = time.perf_counter() - start
    instructions = list(plan.instructions(compiled.as_text()))
    others = [instruction for instruction in instructions if not instruction.is_convolution]
    moved = sum(instruction.bytes for instruction in instructions)
    moved_by_others = sum(instruction.bytes for instruction in others)
    return {
        'card': name,
        'device': card.name,
        'batch': args.batch_per_chip,
        **plan.facts(args),
        'framework': f'jax {jax.__version__}, CUDA plug-in '
        + importlib.metadata.version('jax-cuda12-plugin'),
        'compile_seconds': compile_seconds,
        'kernels': len(instructions),
        'convolution_bytes': moved - moved_by_others,
        'other_bytes': moved_by_others,
        'memory_alone_seconds': moved_by_others / card.bytes_per_second,
        'by_kind': plan.sums(others, lambda i: i.kind, lambda i: i.bytes),
        'by_layer': plan.sums(others, lambda i: i.layer, lambda i: i.bytes),
        'memory_bytes': memory(compiled),
    }


def _target(card: Card) -> str:
    """XLA's GpuTargetConfig, in protobuf's text form; versions are of what jax brings."""
    major, minor = card.capability
    return f"""
        platform_name: "CUDA"
        device_description_str: "{card.name}"
        dnn_version_info {{ major: 9 minor: 10 }}
        gpu_device_info {{
          cuda_compute_capability {{ major: {major} minor: {minor} }}
          core_count: {card.cores}
          fpus_per_core: {card.fpus}
          clock_rate_ghz: {card.clock_ghz}
          device_memory_size: {card.memory}
          memory_bandwidth: {card.bytes_per_second}
          l2_cache_size: {card.cache}
          shared_memory_per_core: {card.shared_memory}
          shared_memory_per_block: 49152
          shared_memory_per_block_optin: {card.shared_memory - 1024}
          threads_per_core_limit: {card.threads}
          threads_per_block_limit: 1024
          threads_per_warp: 32
          registers_per_core_limit: 65536
          registers_per_block_limit: 65536
          thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
          block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
          dnn_version: "9.10.0"
          runtime_version: "12.8.0"
          driver_version: "12.8.0"
          compile_time_toolkit_version: "12.8.0"
        }}
    """


def _line(result: dict) -> str:
    return (
        f'{result["card"]:5} {result["compile_seconds"]:9.0f} {result["kernels"]:8} '
        f' {result["convolution_bytes"] / 1e9:17.1f} '
        f'{result["other_bytes"] / 1e9:11.1f} {result["memory_alone_seconds"] * 1e3:10.1f} ms '
        f'{result["memory_bytes"]["temporaries"] / 1e9:10.1f} GB'
    )


if __name__ == '__main__':
    sys.exit(main())
