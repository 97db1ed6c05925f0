"""The same work in PyTorch, as the published code does it, ready to be timed."""

import functools
import itertools
import random
import sys
from pathlib import Path

import numpy as np
import same_work
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from workers import Workload

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / 'tests')]
import torch_networks

from cyclegan_jax.process import host_peak_memory

Tensor = torch.Tensor


class Pool:
    """50 images of history."""

    def __init__(self):
        self.images = []

    def query(self, images: Tensor) -> Tensor:
        return torch.cat([self._query(image[None]) for image in images])

    def _query(self, image: Tensor) -> Tensor:
        if len(self.images) < 50:
            self.images.append(image)
            return image
        if random.random() < 0.5:
            return image
        index = random.randrange(50)
        stored, self.images[index] = self.images[index], image
        return stored


class Setting:
    """Where PyTorch computes and how: `mode` is 'eager', or names that '+' joins."""

    def __init__(self, mode: str):
        self.mode = mode.split('+')
        self.device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
        self.format = (
            torch.channels_last if 'channels_last' in self.mode else torch.contiguous_format
        )
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = True

    def network(self, network: nn.Module) -> nn.Module:
        with torch.no_grad():
            for key, parameter in network.named_parameters():
                parameter.copy_(torch.from_numpy(same_work.weights(key, parameter.shape)))
        network = network.to(self.device, memory_format=self.format)
        if 'compile' in self.mode:
            network.compile()
        return network

    def images(self, images: np.ndarray) -> Tensor:
        """(n, h, w, c) in the host's memory to (n, c, h, w) on the device."""
        images = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)
        return images.contiguous(memory_format=self.format)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled='autocast' in self.mode)

    def wait(self) -> None:
        if self.device.type == 'cuda':
            torch.cuda.synchronize()

    def matrix_rate(self) -> float:
        dtype = torch.bfloat16 if 'autocast' in self.mode else torch.float32

        def make_multiply(side: int):
            x = torch.randn(side, side, device=self.device).to(dtype)

            def multiply(products: int) -> None:
                for _ in range(products):
                    x @ x
                self.wait()

            return multiply

        return same_work.matrix_rate(self.device.type, make_multiply)

    def peak_memory(self) -> int:
        gpu = self.device.type == 'cuda'
        return torch.cuda.max_memory_allocated() if gpu else host_peak_memory()

    def facts(self) -> dict[str, str]:
        gpu = self.device.type == 'cuda'
        return {
            'platform': 'gpu' if gpu else 'cpu',
            'device': torch.cuda.get_device_name() if gpu else 'cpu',
            'framework': f'torch {torch.__version__}',
        }


class Training:
    """The four networks of the published code, and what updates them."""

    def __init__(self, setting: Setting, make_generator, make_discriminator, prepare):
        """`prepare` gives a new network its first weights and its place."""
        self.setting = setting
        self.a2b, self.b2a = (prepare(make_generator()) for _ in range(2))
        self.judges = [prepare(make_discriminator()) for _ in range(2)]  # of a, of b
        self.optimizers = [
            torch.optim.Adam(
                itertools.chain(*(network.parameters() for network in networks)),
                lr=2e-4,
                betas=(0.5, 0.999),
            )
            for networks in ((self.a2b, self.b2a), self.judges)
        ]
        self.pools = [Pool(), Pool()]

    def update(self, real_a: Tensor, real_b: Tensor) -> None:
        """One update of all four networks, in the published code's order."""
        a2b, b2a, judges = self.a2b, self.b2a, self.judges
        judge_a, judge_b = judges
        generator_adam, discriminator_adam = self.optimizers
        with self.setting.autocast():
            fake_b, fake_a = a2b(real_a), b2a(real_b)
            cycled_a, cycled_b = b2a(fake_b), a2b(fake_a)
            for judge in judges:
                judge.requires_grad_(False)
            loss = (
                _adversarial(judge_b(fake_b), 1)
                + _adversarial(judge_a(fake_a), 1)
                + 10 * (F.l1_loss(cycled_a, real_a) + F.l1_loss(cycled_b, real_b))
                + 5 * (F.l1_loss(b2a(real_a), real_a) + F.l1_loss(a2b(real_b), real_b))
            )
        generator_adam.zero_grad()
        loss.backward()
        generator_adam.step()
        discriminator_adam.zero_grad()
        for judge, real, fake, pool in zip(
            judges, (real_a, real_b), (fake_a, fake_b), self.pools, strict=True
        ):
            judge.requires_grad_(True)
            fake = pool.query(fake.detach())
            with self.setting.autocast():
                loss = 0.5 * (_adversarial(judge(real), 1) + _adversarial(judge(fake), 0))
            loss.backward()
        discriminator_adam.step()


def _adversarial(score: Tensor, target: float) -> Tensor:
    return F.mse_loss(score, torch.full_like(score, target))


def train_step(*, size: int, batch: int, width: int, blocks: int, mode: str) -> Workload:
    """An update of all four networks."""
    setting = Setting(mode)
    make_generator = functools.partial(torch_networks.ResNet, 3, 3, width, blocks)
    make_discriminator = functools.partial(torch_networks.Patch, 3, width, 3)
    training = Training(setting, make_generator, make_discriminator, setting.network)
    real_a = setting.images(same_work.images(batch, size))
    real_b = setting.images(-same_work.images(batch, size))

    def run(steps: int) -> None:
        for _ in range(steps):
            training.update(real_a, real_b)
        setting.wait()

    flops = same_work.training_flops(_flops(make_generator, size), _flops(make_discriminator, size))
    return Workload(
        run, batch, batch * flops, setting.matrix_rate, setting.peak_memory, setting.facts()
    )


def translate(*, size: int, batch: int, width: int, blocks: int, mode: str) -> Workload:
    """Images by a generator, from the host's memory and back to it."""
    setting = Setting(mode)
    make_generator = functools.partial(torch_networks.ResNet, 3, 3, width, blocks)
    network = setting.network(make_generator()).eval()
    images = same_work.images(batch, size)

    def translated() -> np.ndarray:
        with torch.inference_mode(), setting.autocast():
            result = network(setting.images(images))
        return result.permute(0, 2, 3, 1).float().cpu().numpy()

    def run(steps: int) -> None:
        for _ in range(steps):
            translated()

    return Workload(
        run=run,
        images=batch,
        flops=batch * _flops(make_generator, size),
        matrix_rate=setting.matrix_rate,
        peak_memory=setting.peak_memory,
        facts=setting.facts(),
        output=translated,
    )


def _flops(make_network, size: int) -> float:
    """Operations of one image's pass, counted without doing them."""
    with torch.device('meta'), FlopCounterMode(display=False) as counter:
        make_network()(torch.empty(1, 3, size, size))
    return float(counter.get_total_flops())
