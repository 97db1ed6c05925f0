import collections

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest

from cyclegan_jax import ops, sharding
from cyclegan_jax.errors import UserError


def test_a_batch_that_devices_cannot_share_is_refused():
    with pytest.raises(ValueError, match='batch_size is 12, which 8 devices cannot share'):
        sharding.make_mesh(12)


def test_batches_are_split_and_arrive_unchanged():
    mesh = sharding.make_mesh(8)
    images = np.random.RandomState(0).randint(0, 256, (8, 4, 4, 3)).astype(np.uint8)
    with jax.transfer_guard('disallow'):
        placed = sharding.put_batch(mesh, {'a': images})['a']
    assert len({shard.device for shard in placed.addressable_shards}) == 8
    np.testing.assert_array_equal(placed, images)


@pytest.mark.parametrize(
    'batch, fields, advice',
    [
        (12, {}, 'a multiple of 8, or use 6 of them: --config.num_devices=6 (and --config.accum'),
        (8, {'num_devices': 3}, '--config.num_devices=2 (and --config.accumulate=4, should 4'),
        (5, {}, 'or use 5 of them: --config.num_devices=5.'),
        (8, {'num_devices': 9}, 'num_devices is 9; there are 8 devices'),
    ],
)
def test_what_to_do_with_a_batch_that_cannot_be_shared(batch, fields, advice):
    with pytest.raises(UserError) as error:
        sharding.make_mesh(batch, **fields)
    assert advice in str(error.value)


def test_of_several_processes_each_gives_as_many_devices(monkeypatch):
    device = collections.namedtuple('device', 'process_index id')
    devices = [device(process, 4 * process + i) for process in (0, 1) for i in range(4)]
    monkeypatch.setattr(sharding, '_row', list)
    assert [d.id for d in sharding.make_mesh(4, devices, num_devices=4)] == [0, 1, 4, 5]
    with pytest.raises(UserError, match=r'of 2 process\(es\), each of which must use equally many'):
        sharding.make_mesh(3, devices, num_devices=3)
    with pytest.raises(UserError, match='or use 6 of them'):
        sharding.make_mesh(6, devices)
    with pytest.raises(UserError, match='or start fewer than 2 processes'):
        sharding.make_mesh(1, devices)


def count(params, images):
    return {'sum': images.sum(axis=(1, 2, 3)) * params['scale'], 'same': images}


def numbers(n, side=4):
    return np.arange(n * side * side * 3, dtype=np.float32).reshape(n, side, side, 3)


@pytest.mark.parametrize('batch_size', [1, 6, 8, 24, 100])
@pytest.mark.parametrize('n', [0, 1, 7, 8, 25])
def test_any_number_of_images_in_any_batches_gives_the_same(n, batch_size):
    outputs = sharding.Batched(count, batch_size)({'scale': np.float32(2)}, numbers(n))
    np.testing.assert_array_equal(outputs['same'], numbers(n))
    np.testing.assert_allclose(outputs['sum'], 2 * numbers(n).sum(axis=(1, 2, 3)), rtol=1e-6)


def test_devices_share_a_batch_and_few_shapes_are_compiled():
    """What is computed knows how many devices share it."""
    traced = []

    def function(params, images):
        traced.append((images.shape[0], ops.devices.value))
        return images

    batched = sharding.Batched(function, 30)  # rounded up to 32
    for n in range(1, 70):
        assert len(batched({}, numbers(n))) == n
    assert sorted(traced) == [(8, 8), (16, 8), (32, 8)]
    traced.clear()
    sharding.Batched(function, 3)({}, numbers(4))
    assert traced == [(3, 3)]  # no more devices than images in a batch


def test_parameters_are_placed_once(monkeypatch):
    placed, put = [], jax.device_put
    monkeypatch.setattr(jax, 'device_put', lambda *args: placed.append(args) or put(*args))
    batched, params = sharding.Batched(count, 8), {'scale': np.float32(2)}
    for _ in range(2):
        batched(params, numbers(20))
    assert len(placed) == 1
    assert batched({'scale': np.float32(3)}, numbers(1))['sum'] == 3 * numbers(1).sum()
    in_place = put({'scale': np.float32(2)}, sharding.replicated(sharding.make_mesh(8)))
    with jax.transfer_guard('disallow'):
        sharding.Batched(count, 8, sharding.make_mesh(8))(in_place, numbers(9))
    assert len(placed) == 2


def test_a_batch_that_does_not_fit_is_halved(monkeypatch):
    sizes, run = [], sharding.Batched._run

    def tight(self, params, batch, per_device):
        sizes.append(len(batch))
        if len(batch) > limit:
            raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')
        return run(self, params, batch, per_device)

    monkeypatch.setattr(sharding.Batched, '_run', tight)
    mesh = sharding.make_mesh(1, jax.devices()[:1])
    limit = 5
    batched = sharding.Batched(count, 16, mesh)
    params = {'scale': np.float32(1)}
    np.testing.assert_array_equal(batched(params, numbers(18))['same'], numbers(18))
    assert sizes == [16, 8, 4, 4, 4, 4, 2]
    batched(params, numbers(2, side=8))  # of another shape as many as before are tried
    assert batched._fits == {(4, 4, 3): 4}
    limit = 0
    with pytest.raises(jax.errors.JaxRuntimeError, match='RESOURCE_EXHAUSTED'):
        batched(params, numbers(3))
    monkeypatch.setattr(sharding.Batched, '_run', lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):  # nothing else is taken for it
        batched(params, numbers(3))


def test_programs_of_the_last_few_shapes_are_kept():
    traced = []

    def function(params, images):
        traced.append(images.shape[1])
        return images

    batched = sharding.Batched(function, 1)
    for side in [*range(1, 10), 9, 3, 1]:  # the tenth shape drops the first
        batched({}, numbers(1, side))
    assert traced == [*range(1, 10), 1]


def test_a_cpu_is_not_given_more_than_the_memory_has(monkeypatch):
    """It would not say so, but end the process."""

    def blur(params, images):
        return jnp.fft.fft2(images, axes=(1, 2)).real

    memory = collections.namedtuple('memory', 'available')
    monkeypatch.setattr(
        psutil, 'virtual_memory', lambda: memory(-psutil.Process().memory_info().rss)
    )
    batched = sharding.Batched(blur, 1)
    with pytest.raises(MemoryError, match=r'it takes \d+\.\d GiB, and -?0\.0 are available'):
        batched({}, numbers(1, 64))
