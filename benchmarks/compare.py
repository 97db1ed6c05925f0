"""This project and PyTorch at the same work, in turn.

    python benchmarks/compare.py [--what=translate] [--mode=eager,channels_last+autocast]

Each works in a process of its own, and every turn of ours is divided into PyTorch's turn beside it:
a ratio above 1 says that ours is faster. Printed are the median and the quartiles of the ratios,
for each of PyTorch's modes (see `torch_peer.py --help`), and what `train_step.py --help` says. For
translation the weights are the same, and so is the result, but for rounding.

Use an idle machine: turns even out what changes slowly, but where cores are shared with others,
PyTorch, whose threads wait for each other, loses more. All sides hold their memory at the same
time. Needs the torch extra.
"""

import sys

import measure
import torch_peer
from sweep import OURS, settings, sweep


def main() -> int:
    parser = measure.parser(__doc__)
    measure.add_workload(parser)
    torch_peer.add_work(parser)
    parser.add_argument(
        '--dtype', type=measure.dtypes, default='float32', metavar='TYPE,...', help='of ours'
    )
    args = parser.parse_args()
    swept = settings(args, 'size', 'batch', 'dtype', width=args.width, blocks=args.blocks)
    sides = lambda setting: {
        OURS: ('workloads_jax', args.what, setting),
        **torch_peer.peers(args.what, args.mode, setting),
    }
    return sweep('compare', args.what, swept, sides, args)


if __name__ == '__main__':
    sys.exit(main())
