"""Compiles the training step for TPUs, without a TPU: cycles, memory, operations, collectives.

    python benchmarks/tpu_compile.py [--topology=v5e:1x1,v5e:4x4,v5p:4x4x4] [--size=256]
    python benchmarks/tpu_compile.py --topology=v5e:1x1 --what=generator_gradient --breakdown

A topology is a generation and the chips along each side of a slice. The program is the one that
main.py runs. libtpu compiles it, which comes with `pip install "jax[tpu]"` and needs nothing but a
CPU and time: tens of minutes for all three. Numbers are of one device, which is a chip (of v4
and 7x, half a chip); operations are counted by XLA. Devices should exchange every gradient and
metric once, by all-reduce, and nothing else; where it is otherwise, it is said.

Cycles are the compiler's own estimates for each instruction, summed as if one followed the other.
They are a plan, not a time: compare them with each other only.
"""

import argparse
import importlib.metadata
import importlib.util
import itertools
import os
import re
import sys
import time
from collections.abc import Iterator

import measure
import plan
from compiled import collectives, flops, in_words, memory

# Clock in Hz and operations a second of a chip in bfloat16, as published.
_PEAKS = {'v5e': (1.5e9, 197e12)}


def main() -> int:
    parser = measure.parser(__doc__)
    parser.add_argument(
        '--topology',
        type=_names,
        default='v5e:1x1,v5e:4x4,v5p:4x4x4',
        metavar='NAME,...',
        help='slices to compile for',
    )
    plan.add_options(parser)
    args = parser.parse_args()
    if importlib.util.find_spec('libtpu') is None:
        parser.error(
            'libtpu, which compiles for TPUs, is not installed; the one that fits this jax comes '
            f'with pip install "jax[tpu]=={importlib.metadata.version("jax")}"'
        )
    os.environ.update(
        JAX_PLATFORMS='cpu',
        # There is no TPU to ask what it is, or to keep other programs from.
        TPU_SKIP_MDS_QUERY='1',
        TPU_WORKER_HOSTNAMES='localhost',
        TPU_ACCELERATOR_TYPE='v5litepod-4',  # any will do
        ALLOW_MULTIPLE_LIBTPU_LOAD='1',
    )
    import jax

    jax.config.update('jax_enable_compilation_cache', False)  # it is to be timed, not found
    try:
        slices = {name: _devices(name) for name in args.topology}
    except jax.errors.JaxRuntimeError as error:
        parser.error(f'argument --topology: {error}')

    results = []
    print(
        'topology  devices  compile s    TFLOP  Mcycles  of peak  MiB: arguments  temporaries  '
        '  total  collectives'
    )
    for topology, devices in slices.items():
        try:
            result = _compile(args, topology, devices)
        except (ValueError, jax.errors.JaxRuntimeError) as error:
            [line, *_] = str(error).splitlines()
            result = {'topology': topology, 'error': line}
            print(f'{topology}: {line}', file=sys.stderr)
        else:
            print(_line(result), flush=True)
            if args.breakdown:
                plan.print_breakdown(result, 'Mcycles', 1e6)
            for complaint in _complaints(result):
                print(complaint, file=sys.stderr)
        results.append(result)
        measure.save(args.json, 'tpu_compile', measure.command(), results)
    return any('error' in result for result in results)


def _names(text: str) -> list[str]:
    names = text.split(',')
    for name in names:
        if not re.fullmatch(r'\w+:\d+x\d+(x\d+)?', name):
            raise argparse.ArgumentTypeError(f'{name!r} is not a name like v5e:4x4 or v5p:4x4x4')
    return names


def _devices(topology: str) -> list:
    """Those to compile for; none of them exists."""
    from jax.experimental import topologies

    sides = map(int, topology.partition(':')[2].split('x'))
    # A host has 2x2 chips, unless the slice is smaller.
    host = [min(pair) for pair in itertools.zip_longest(sides, (2, 2, 1), fillvalue=1)]
    slice_ = topologies.get_topology_desc(topology, platform='tpu', chips_per_host_bounds=host)
    return slice_.devices


def _compile(args: argparse.Namespace, topology: str, devices: list) -> dict:
    import jax

    lowered, parameters = plan.lower(args, devices)
    start = time.perf_counter()
    compiled = lowered.compile()
    compile_seconds = time.perf_counter() - start
    hlo = compiled.as_text()
    instructions = list(plan.instructions(hlo))
    cycles = sum(instruction.cycles for instruction in instructions)
    count = flops(compiled)
    clock, peak = _PEAKS.get(topology.partition(':')[0], (None, None))
    return {
        'topology': topology,
        'devices': len(devices),
        'device': devices[0].device_kind,
        'batch': args.batch_per_chip * len(devices),
        **plan.facts(args),
        'framework': f'jax {jax.__version__}, libtpu {importlib.metadata.version("libtpu")}',
        'compile_seconds': compile_seconds,
        'flops': count,
        'cycles': cycles,
        'share_of_peak': count / (peak * cycles / clock) if clock and cycles else None,
        'by_kind': plan.sums(instructions, lambda i: i.kind, lambda i: i.cycles),
        'by_layer': plan.sums(instructions, lambda i: i.layer, lambda i: i.cycles),
        'memory_bytes': memory(compiled),
        'collectives': collectives(hlo),
        'gradient_values': sum(leaf.size for leaf in jax.tree.leaves(parameters)),
        'metric_values': len(lowered.out_info[1]) if args.what == 'train_step' else 0,
    }


def _line(result: dict) -> str:
    arguments, temporaries, total = (size / 2**20 for size in result['memory_bytes'].values())
    share = '' if result['share_of_peak'] is None else f'{result["share_of_peak"]:.1%}'
    return (
        f'{result["topology"]:9} {result["devices"]:7} {result["compile_seconds"]:10.0f} '
        f'{result["flops"] / 1e12:8.3f} {result["cycles"] / 1e6:8.1f} {share:>8} '
        f'{arguments:15.0f} {temporaries:12.0f} {total:8.0f}  {in_words(result["collectives"])}'
    )


def _complaints(result: dict) -> Iterator[str]:
    """What devices exchange beyond each gradient and metric once."""
    found = dict(result['collectives'])
    reduced = found.pop('all-reduce', {'values': 0})['values']
    gradients, metrics = result['gradient_values'], result['metric_values']
    if reduced > gradients + metrics:
        yield (
            f'{result["topology"]}: {reduced} values are summed over the devices, where there are '
            f'{gradients} gradients and {metrics} metrics: some are summed more than once'
        )
    if found:
        yield f'{result["topology"]}: beside all-reduces there are {in_words(found)}'


if __name__ == '__main__':
    sys.exit(main())
