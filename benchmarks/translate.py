"""Seconds to translate one 256x256 image, beside PyTorch, in the same run and on the same cores.

    python benchmarks/translate.py [--size=256] [--repeats=20]

The network is the full one: width 64, 9 blocks, the same random weights on both sides. The two take
turns, so that a busy machine slows both; the median and the fastest call are printed.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.append(str(Path(__file__).parents[1] / 'tests'))
import torch_networks

from cyclegan_jax.inference import Translator
from cyclegan_jax.interop import from_state_dict


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--size', type=int, default=256)
    parser.add_argument('--repeats', type=int, default=20)
    args = parser.parse_args()

    module = torch_networks.ResNet(3, 3, width=64, num_blocks=9).eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    tensors = {key: tensor.numpy() for key, tensor in module.state_dict().items()}
    translator = Translator(from_state_dict(tensors, 'random weights'))
    image = np.random.default_rng(0).uniform(-1, 1, (args.size, args.size, 3)).astype(np.float32)

    def with_torch():
        with torch.inference_mode():
            batch = torch.from_numpy(image).permute(2, 0, 1)[None]
            return module(batch)[0].permute(1, 2, 0).numpy()

    ways = {'PyTorch': with_torch, 'cyclegan_jax': lambda: translator(image)}
    seconds = {name: [] for name in ways}
    for name, call in ways.items():
        start = time.perf_counter()
        call()
        print(f'{name}: first call {time.perf_counter() - start:.2f} s')
    for _ in range(args.repeats):
        for name, call in ways.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    difference = np.abs(with_torch() - translator(image)).max()
    for name, times in seconds.items():
        print(f'{name}: median {np.median(times):.3f} s, fastest {min(times):.3f} s an image')
    print(f'largest difference {difference:.1e}')


if __name__ == '__main__':
    main()
