"""What a training step costs as devices are added: virtual ones, of a CPU.

    python benchmarks/scaling.py [--devices=1,2,4,8,16,64,256]

First a batch of 8 is shared by 1, 2, 4 and 8 devices. The median time of a step should stay level,
for the devices share the cores; the loss of the first step tells whether they do the same work.
Then every device has an image of its own, on meshes of --devices, and the step is compiled, not
run. (A pool holds some 50 images or, if that is more, as many as the batch, so a device's memory
falls until the batch has as many.)

Operations are counted by XLA; memory and collectives are those of one device. If any of them grow
with the mesh, or there are collectives other than all-reduces, it is said, and the exit status is
1. Networks are small, so that all of this takes minutes.
"""

import concurrent.futures
import multiprocessing
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence

import measure
from compiled import collectives, flops, in_words, memory

SHARED_BATCH, SHARED_BY = 8, (1, 2, 4, 8)
LEVEL = 1.01  # times the first value; the update of the parameters is done on every device


def main() -> int:
    parser = measure.parser(__doc__)
    add, number, numbers = parser.add_argument, measure.whole_number, measure.whole_numbers
    add('--devices', type=numbers, default='1,2,4,8,16,64,256', metavar='N,...', help='of meshes')
    add('--size', type=number, default='64', metavar='N', help='side of the images')
    add('--width', type=number, default='8', metavar='N', help='channels of the first layer')
    add('--blocks', type=number, default='1', metavar='N', help='residual blocks')
    add('--repeats', type=number, default='10', metavar='N', help='steps that are timed')
    args = parser.parse_args()

    shared = [(n, SHARED_BATCH, args.repeats) for n in SHARED_BY]
    grown = [(n, n, 0) for n in sorted(args.devices)]
    results, complaints = [], []
    print(
        'devices  batch  ms a step  first loss  MFLOP an image  MiB a device  collectives',
        flush=True,
    )
    for cases in shared, grown:
        rows = []
        try:
            for row in _rows(args, cases):
                print(_line(row), flush=True)
                rows.append(row)
        except ValueError as error:  # images that the networks cannot take
            parser.error(str(error))
        results += rows
        complaints += _complaints(rows)
        measure.save(args.json, 'scaling', measure.command(), results)
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return bool(complaints)


def _rows(args: Namespace, cases: Sequence[tuple[int, int, int]]) -> Iterator[dict]:
    """Each in a process of its own, for which the number of virtual devices is then fixed."""
    context = multiprocessing.get_context('spawn')
    with concurrent.futures.ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
        yield from pool.map(_step, [args] * len(cases), *zip(*cases, strict=True))


def _step(args: Namespace, devices: int, batch: int, repeats: int) -> dict:
    """Compiles the step of main.py for a mesh, and times it `repeats` times."""
    import jax
    from workloads_jax import build_step, random_batch

    from cyclegan_jax import process

    process.keep_freed_memory()  # as the commands do
    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', devices)
    mesh, program = build_step(
        jax.devices(), size=args.size, batch=batch, width=args.width, blocks=args.blocks
    )
    compiled = program.step.lower(program.state, program.batch).compile()
    row = {
        'devices': devices,
        'batch': batch,
        'size': args.size,
        'width': args.width,
        'blocks': args.blocks,
        'flops': flops(compiled),
        'memory_bytes': memory(compiled),
        'collectives': collectives(compiled.as_text()),
    }
    if not repeats:
        return row

    images = random_batch(mesh, program)
    state, metrics = compiled(program.create(jax.random.key(0)), images)
    row['first_loss'] = float(metrics['generator/total'])
    turns = []
    for _ in range(repeats):
        start = time.perf_counter()
        state, metrics = compiled(state, images)
        jax.block_until_ready((state, metrics))
        turns.append(time.perf_counter() - start)
    return {**row, 'step_seconds': statistics.median(turns), 'turns': turns}


def _flops_an_image(row: dict) -> float:
    return row['flops'] * row['devices'] / row['batch']


def _line(row: dict) -> str:
    timed = ' ' * 21
    if 'turns' in row:
        timed = f'{1e3 * row["step_seconds"]:9.1f}  {row["first_loss"]:10.5f}'
    return (
        f'{row["devices"]:7}  {row["batch"]:5}  {timed}  {_flops_an_image(row) / 1e6:14.1f}  '
        f'{row["memory_bytes"]["total"] / 2**20:12.1f}  {in_words(row["collectives"])}'
    )


def _complaints(rows: Sequence[dict]) -> Iterator[str]:
    """What grows with the mesh, from the smallest that has something to exchange."""
    first, *larger = [row for row in rows if row['devices'] > 1] or rows
    for row in larger:
        for (name, value), before in zip(_costs(row).items(), _costs(first).values(), strict=True):
            if value > LEVEL * before:
                yield (
                    f'{name} grow: {before:.6g} with {first["devices"]} devices, {value:.6g} with '
                    f'{row["devices"]} (batch {row["batch"]})'
                )
    for row in rows:
        others = {kind: total for kind, total in row['collectives'].items() if kind != 'all-reduce'}
        if others:
            yield f'{row["devices"]} devices (batch {row["batch"]}) have {in_words(others)}'


def _costs(row: dict) -> dict[str, float]:
    found = row['collectives'].values()
    return {
        'operations an image': _flops_an_image(row),
        'bytes of memory': row['memory_bytes']['total'],
        'collectives': sum(total['count'] for total in found),
        'bytes exchanged': sum(total['bytes'] for total in found),
    }


if __name__ == '__main__':
    sys.exit(main())
