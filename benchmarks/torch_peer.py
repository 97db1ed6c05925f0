"""The training step, or the translation, in PyTorch, as the published code does it.

    python benchmarks/torch_peer.py [--what=translate] [--mode=eager,channels_last+autocast]

A mode is `eager`, or one or more of these, joined by +: `channels_last` (memory format), `autocast`
(to bfloat16) and `compile` (torch.compile of each network). On a GPU, TF32 and cuDNN's search for
the fastest kernels are on. Several modes take turns. What is told of each, `train_step.py --help`
says. Needs the torch extra.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import measure
from sweep import settings, sweep
from workers import Side

_FASTER = {'channels_last', 'autocast', 'compile'}


def main() -> int:
    parser = measure.parser(__doc__)
    measure.add_workload(parser)
    add_work(parser)
    args = parser.parse_args()
    swept = settings(args, 'size', 'batch', width=args.width, blocks=args.blocks)
    return sweep('torch_peer', args.what, swept, lambda s: peers(args.what, args.mode, s), args)


def add_work(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add('--what', choices=('train_step', 'translate'), default='train_step')
    add('--mode', type=modes, default='eager', metavar='MODE,...', help="PyTorch's")


def peers(work: str, modes: Sequence[str], setting: Mapping[str, Any]) -> dict[str, Side]:
    """A side for each mode."""
    shape = {name: setting[name] for name in ('size', 'batch', 'width', 'blocks')}
    return {f'PyTorch {mode}': ('workloads_torch', work, {**shape, 'mode': mode}) for mode in modes}


def modes(text: str) -> list[str]:
    names = text.split(',')
    for mode in names:
        if mode != 'eager' and not set(mode.split('+')) <= _FASTER:
            raise argparse.ArgumentTypeError(
                f'{mode!r} is neither eager nor of {", ".join(sorted(_FASTER))}, joined by +'
            )
    return names


if __name__ == '__main__':
    sys.exit(main())
