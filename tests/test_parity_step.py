"""Twenty updates follow a plain PyTorch loop from the same weights, images and pool draws.

The weights start larger than a run's, at std 0.3. From std 0.02, networks as small as these are
chaotic: after ten updates PyTorch differs from itself by 1e-2, if only rounding differs. From 0.3
the two stay within 1e-4, so that 1e-3 here means the same arithmetic.
"""

import itertools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import default
from cyclegan_jax.image_pool import ImagePool
from cyclegan_jax.interop import from_state_dict
from cyclegan_jax.networks import make_networks
from cyclegan_jax.train_state import TrainState, learning_rate_schedule
from cyclegan_jax.train_step import make_train_step

torch = pytest.importorskip('torch')
import torch_networks as published  # noqa: E402

STEPS = 20
POOL_SIZE = 4
SIDE = 32
GENERATOR = {'width': 8, 'num_blocks': 1}
DISCRIMINATOR = {'width': 8, 'num_layers': 2}
LOSS = default.get_config().loss
SCHEDULE = {'num_epochs': 4, 'decay_start_epoch': 2, 'steps_per_epoch': 5}  # decays within the run


def pool_draws(key, step, domain):
    """What the step draws for its pool: (whether to swap, with which stored image)."""
    step_key = jax.random.fold_in(key, step)
    pool_key = jax.random.fold_in(step_key, zlib.crc32(f'pool/{domain}'.encode()))
    swap_key, index_key = jax.random.split(pool_key)
    swap = jax.random.bernoulli(swap_key, 0.5, (1,))
    return bool(swap[0]), int(jax.random.randint(index_key, (1,), 0, POOL_SIZE)[0])


class TorchPool:
    """The reference's pool at batch 1, with the draws given from outside."""

    def __init__(self):
        self.images = []

    def query(self, image, swap, index):
        if len(self.images) < POOL_SIZE:
            self.images.append(image)
            return image
        if not swap:
            return image
        stored, self.images[index] = self.images[index], image
        return stored


class TorchCycleGAN:
    """The reference's update, in its order: both generators, then both discriminators."""

    def __init__(self):
        torch.manual_seed(0)
        self.generators = {d: published.ResNet(3, 3, **GENERATOR) for d in ('a2b', 'b2a')}
        self.discriminators = {d: published.Patch(3, **DISCRIMINATOR) for d in 'ab'}
        for module in (*self.generators.values(), *self.discriminators.values()):
            for name, parameter in module.named_parameters():
                std = 0.3 if name.endswith('weight') else 0.0
                torch.nn.init.normal_(parameter, std=std)
        self.optimizers, self.schedules = {}, []
        for name in ('generators', 'discriminators'):
            parameters = [m.parameters() for m in getattr(self, name).values()]
            adam = torch.optim.Adam(itertools.chain(*parameters), lr=2e-4, betas=(0.5, 0.999))
            decay = lambda e: 1 - max(0, e - 1) / 3
            self.schedules.append(torch.optim.lr_scheduler.LambdaLR(adam, decay))
            self.optimizers[name] = adam
        self.pools = {d: TorchPool() for d in 'ab'}

    def update(self, real_a, real_b, draws):
        l1, mse = torch.nn.functional.l1_loss, lambda x, to: ((x - to) ** 2).mean()
        a2b, b2a = self.generators['a2b'], self.generators['b2a']
        fake_b, fake_a = a2b(real_a), b2a(real_b)
        terms = {
            'generator/adversarial_a2b': mse(self.discriminators['b'](fake_b), 1),
            'generator/adversarial_b2a': mse(self.discriminators['a'](fake_a), 1),
            'generator/cycle_a': 10 * l1(b2a(fake_b), real_a),
            'generator/cycle_b': 10 * l1(a2b(fake_a), real_b),
            'generator/identity_a': 5 * l1(b2a(real_a), real_a),
            'generator/identity_b': 5 * l1(a2b(real_b), real_b),
        }
        self._step('generators', sum(terms.values()))
        for domain, real, fake in (('a', real_a, fake_a), ('b', real_b, fake_b)):
            fake = self.pools[domain].query(fake.detach(), *draws[domain])
            judge = self.discriminators[domain]
            loss = 0.5 * (mse(judge(real), 1) + mse(judge(fake), 0))
            terms[f'discriminator/{domain}'] = loss
        self._step('discriminators', terms['discriminator/a'] + terms['discriminator/b'])
        return {name: term.item() for name, term in terms.items()}

    def _step(self, name, loss):
        self.optimizers[name].zero_grad()
        loss.backward(inputs=[p for m in getattr(self, name).values() for p in m.parameters()])
        self.optimizers[name].step()

    def end_epoch(self):
        for schedule in self.schedules:
            schedule.step()


def from_torch(modules):
    return {
        name: from_state_dict({k: v.numpy().copy() for k, v in m.state_dict().items()}, name).params
        for name, m in modules.items()
    }


def distance(params, other):
    """Mean absolute difference over all parameters."""
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(other), strict=True)
    return np.mean(np.concatenate([np.abs(x - y).ravel() for x, y in pairs]))


def to_torch(images):
    return torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1)


def test_twenty_updates_follow_pytorch():
    theirs = TorchCycleGAN()
    networks = make_networks({'a': 3, 'b': 3}, GENERATOR, DISCRIMINATOR)
    schedule = learning_rate_schedule(2e-4, **SCHEDULE)
    optimizer = optax.adam(schedule, b1=0.5, b2=0.999)
    generators, discriminators = from_torch(theirs.generators), from_torch(theirs.discriminators)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        generators=generators,
        discriminators=discriminators,
        generator_opt=optimizer.init(generators),
        discriminator_opt=optimizer.init(discriminators),
        pools={d: ImagePool.create(POOL_SIZE, (1, SIDE, SIDE, 3)) for d in 'ab'},
        key=jax.random.key(7),
        average={},
    )
    step = jax.jit(make_train_step(networks, optimizer, LOSS, pair_calls=False, in_turn=True))

    rng = np.random.default_rng(0)
    swaps = 0
    for t in range(STEPS):
        batch = {d: rng.integers(0, 256, (1, SIDE, SIDE, 3)).astype(np.uint8) for d in 'ab'}
        draws = {domain: pool_draws(state.key, t, domain) for domain in 'ab'}
        swaps += sum(swap for swap, _ in draws.values()) if t >= POOL_SIZE else 0
        expected = theirs.update(to_torch(batch['a']), to_torch(batch['b']), draws)
        state, metrics = step(state, batch)
        for name, value in expected.items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-3, err_msg=f'{name}, step {t}')
        if (t + 1) % SCHEDULE['steps_per_epoch'] == 0:
            theirs.end_epoch()
    assert swaps > 5  # the pools took part

    # The weights have moved, and to the same place.
    for name, theirs_now in from_torch(theirs.generators).items():
        ours_now, before = jax.device_get(state.generators[name]), generators[name]
        assert distance(ours_now, theirs_now) < 0.05 * distance(before, theirs_now)
