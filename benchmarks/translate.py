"""Time, rate and memory of translating images, by each runtime in turn, and by PyTorch.

    python benchmarks/translate.py [--size=128,256] [--runtime=jax,openvino] [--mode=]

A Translator takes float32 images from the host's memory and gives them back there, with random
weights, the same for all. Each works in a process of its own. Every turn of JAX in float32 is
divided into the turn of another beside it: a ratio above 1 says that JAX is faster. Sizes and
batches are swept; what is told of each, `train_step.py --help` says. `--mode=` leaves PyTorch out,
which needs the torch extra; onnxruntime and openvino need those of their names.

Use an idle machine: turns even out what changes slowly, but where cores are shared with others,
those whose threads wait for each other lose more.
"""

import argparse
import sys
from collections.abc import Mapping
from typing import Any

import measure
import torch_peer
from sweep import OURS, settings, sweep
from workers import Side

# In float32 all, in bfloat16 those that have it on a CPU.
_SIDES = {
    OURS: ('jax', 'float32'),
    f'{OURS} --dtype=bfloat16': ('jax', 'bfloat16'),
    f'{OURS} --runtime=onnxruntime': ('onnxruntime', 'float32'),
    f'{OURS} --runtime=openvino': ('openvino', 'float32'),
    f'{OURS} --runtime=openvino --dtype=bfloat16': ('openvino', 'bfloat16'),
}


def main() -> int:
    parser = measure.parser(__doc__)
    measure.add_workload(parser)
    parser.add_argument(
        '--runtime',
        type=_runtimes,
        default='jax,onnxruntime,openvino',
        metavar='NAME,...',
        help='of ours',
    )
    parser.add_argument(
        '--mode',
        type=lambda text: torch_peer.modes(text) if text else [],
        default='eager,channels_last+autocast',
        metavar='MODE,...',
        help="PyTorch's (see `torch_peer.py --help`)",
    )
    args = parser.parse_args()
    swept = settings(args, 'size', 'batch', dtype='float32', width=args.width, blocks=args.blocks)
    sides = lambda setting: {
        **_ours(args.runtime, setting),
        **torch_peer.peers('translate', args.mode, setting),
    }
    return sweep('translate', 'translate', swept, sides, args)


def _ours(runtimes: list[str], setting: Mapping[str, Any]) -> dict[str, Side]:
    return {
        name: ('workloads_jax', 'translate', {**setting, 'runtime': runtime, 'dtype': dtype})
        for name, (runtime, dtype) in _SIDES.items()
        if runtime in runtimes
    }


def _runtimes(text: str) -> list[str]:
    names, known = text.split(','), {runtime for runtime, _ in _SIDES.values()}
    if not set(names) <= known:
        raise argparse.ArgumentTypeError(f'{text!r} is not of {", ".join(sorted(known))}')
    return names


if __name__ == '__main__':
    sys.exit(main())
