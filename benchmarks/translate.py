"""Time, rate and memory of translating images.

    python benchmarks/translate.py [--size=256,512] [--batch=1,8]

A Translator takes float32 images from the host's memory and gives them back there, with random
weights. Sizes and batches are swept; what is told of each, `train_step.py --help` says.
"""

import sys

import measure
from sweep import OURS, settings, sweep


def main() -> int:
    parser = measure.parser(__doc__)
    measure.add_workload(parser)
    args = parser.parse_args()
    swept = settings(args, 'size', 'batch', dtype='float32', width=args.width, blocks=args.blocks)
    sides = lambda setting: {OURS: ('workloads_jax', 'translate', setting)}
    return sweep('translate', 'translate', swept, sides, args)


if __name__ == '__main__':
    sys.exit(main())
