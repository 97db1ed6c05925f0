"""Trains a small CycleGAN in PyTorch, as the published code does, and translates test pictures.

    python benchmarks/recipes/torch_training.py --data=datasets/horse2zebra --test=FOLDER \
        --workdir=runs/torch --updates=2000 --seed=0

The same command goes on where it was stopped, and with more updates where it was done. Test
pictures of TEST/a and TEST/b are written to WORKDIR/step_<updates>/a2b and b2a. Needs the torch
extra.
"""

import argparse
import functools
import random
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

sys.path.append(str(Path(__file__).parents[1]))
from outcome import SETTING
from workloads_torch import Setting, Training, torch_networks

LOAD, CROP = 72, 64
WIDTH, BLOCKS = SETTING['generator.width'], SETTING['generator.num_blocks']
LAYERS = SETTING['discriminator.num_layers']
SAVE_EVERY = 500


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for flag in ('--data', '--test', '--workdir'):
        parser.add_argument(flag, type=Path, required=True, metavar='FOLDER')
    parser.add_argument('--updates', type=int, required=True, metavar='N')
    parser.add_argument('--seed', type=int, default=0, metavar='N')
    args = parser.parse_args()
    args.workdir.mkdir(parents=True, exist_ok=True)

    random.seed(args.seed)
    torch.manual_seed(args.seed)
    setting = Setting('eager')
    training = Training(
        setting,
        functools.partial(torch_networks.ResNet, 3, 3, WIDTH, BLOCKS),
        functools.partial(torch_networks.Patch, 3, WIDTH, LAYERS),
        _initialise,
    )
    images = [_read(args.data / f'train{domain}') for domain in 'AB']
    rng, order, step = np.random.default_rng(args.seed), [], 0
    saved = args.workdir / 'training.pt'
    if saved.exists():
        step, order = _restore(training, rng, torch.load(saved, weights_only=False))
    for _ in tqdm(range(step, args.updates), initial=step, total=args.updates, mininterval=30):
        # Each image of A once an epoch, with any image of B.
        order = order or list(rng.permutation(len(images[0])))
        chosen = images[0][order.pop()], images[1][rng.integers(len(images[1]))]
        training.update(*(setting.images(_crop(image, rng)[None]) for image in chosen))
        step += 1
        if step % SAVE_EVERY == 0 or step == args.updates:
            _save(saved, training, rng, order, step)
    for direction, network in (('a2b', training.a2b), ('b2a', training.b2a)):
        output = args.workdir / f'step_{args.updates}' / direction
        _translate(setting, network, args.test / direction[0], output)
    return 0


def _initialise(network: nn.Module) -> nn.Module:
    """Weights from N(0, 0.02), biases 0: the published code's."""
    for name, parameter in network.named_parameters():
        with torch.no_grad():
            parameter.zero_() if name.endswith('bias') else parameter.normal_(0, 0.02)
    return network


def _read(folder: Path) -> np.ndarray:
    """(n, h, w, 3) uint8, all pictures of a folder, resized as the published code does."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    pictures = [Image.open(path).convert('RGB') for path in files]
    return np.stack([np.asarray(p.resize((LOAD, LOAD), Image.BICUBIC)) for p in pictures])


def _crop(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A part of it, perhaps mirrored, float32 in [-1, 1]."""
    top, left = rng.integers(LOAD - CROP + 1, size=2)
    image = image[top : top + CROP, left : left + CROP]
    image = image[:, ::-1] if rng.random() < 0.5 else image
    return image.astype(np.float32) / 127.5 - 1


def _modules(training: Training) -> list:
    return [training.a2b, training.b2a, *training.judges, *training.optimizers]


def _save(path: Path, training: Training, rng, order: list[int], step: int) -> None:
    state = {
        'step': step,
        'order': order,
        'modules': [module.state_dict() for module in _modules(training)],
        'pools': [pool.images for pool in training.pools],
        'random': (random.getstate(), rng.bit_generator.state),
    }
    torch.save(state, path.with_suffix('.part'))
    path.with_suffix('.part').replace(path)


def _restore(training: Training, rng, state: dict) -> tuple[int, list[int]]:
    for module, values in zip(_modules(training), state['modules'], strict=True):
        module.load_state_dict(values)
    for pool, images in zip(training.pools, state['pools'], strict=True):
        pool.images = images
    python, rng.bit_generator.state = state['random']
    random.setstate(python)
    return state['step'], state['order']


def _translate(setting: Setting, network: nn.Module, source: Path, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        image = np.asarray(Image.open(path)).astype(np.float32) / 127.5 - 1
        with torch.inference_mode():
            result = network(setting.images(image[None]))[0].permute(1, 2, 0).numpy()
        result = np.round((result.clip(-1, 1) + 1) * 127.5).astype(np.uint8)
        Image.fromarray(result).save(output / path.name)


if __name__ == '__main__':
    sys.exit(main())
