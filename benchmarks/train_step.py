"""Time, rate and memory of an update of all four networks.

    python benchmarks/train_step.py [--size=256] [--batch=1,2,4] [--dtype=float32,bfloat16]

It is the program that main.py runs, on random images that are on the device already. Lists are
swept: every value of one with every value of the others. Told are

- the time of a step: median, and quartiles, of the turns;
- images of each domain a second;
- operations a second: two for each multiply-add of a convolution, as if done directly, once each,
  and none for anything else; and the share of what matrix products of the same type reach, measured
  in the same process;
- the peak memory: on a GPU or TPU the device's, otherwise the process's, compiling included;
- the time of compilation.
"""

import sys

import measure
from sweep import OURS, settings, sweep


def main() -> int:
    parser = measure.parser(__doc__)
    measure.add_workload(parser)
    add = parser.add_argument
    add(
        '--dtype',
        type=measure.dtypes,
        default='float32',
        metavar='TYPE,...',
        help='of convolutions',
    )
    add(
        '--devices',
        type=measure.whole_numbers,
        default='1',
        metavar='N,...',
        help='that share the batch; on a CPU virtual ones',
    )
    add('--remat', action='store_true', help='with config.generator.remat')
    add(
        '--accumulate',
        type=measure.whole_number,
        default='1',
        metavar='N',
        help='parts of a batch: config.accumulate',
    )
    args = parser.parse_args()
    swept = settings(
        args,
        *('size', 'batch', 'dtype', 'devices'),
        width=args.width,
        blocks=args.blocks,
        remat=args.remat,
        accumulate=args.accumulate,
    )
    sides = lambda setting: {OURS: ('workloads_jax', 'train_step', setting)}
    return sweep('train_step', 'train_step', swept, sides, args)


if __name__ == '__main__':
    sys.exit(main())
