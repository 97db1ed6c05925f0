import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from cyclegan_jax import sharding


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


def test_multihost_without_a_cluster_is_an_error_and_not_a_run_of_one():
    code = 'from cyclegan_jax import sharding; sharding.initialize_multihost()'
    environment = {k: v for k, v in os.environ.items() if not k.startswith('JAX_COORDINATOR')}
    result = subprocess.run(
        [sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert 'ValueError: --multihost found no other processes' in result.stderr


def images(number, side=4, seed=0):
    return np.random.default_rng(seed).uniform(size=(number, side, side, 1)).astype(np.float32)


def means(params, batch):
    return {'mean': batch.mean(axis=(1, 2, 3)) * params['scale'], 'image': batch + 1}


@pytest.mark.parametrize('devices', [1, 6, 8])
def test_any_number_of_images_gives_what_each_gives_alone(devices):
    mesh = sharding.make_mesh(devices, jax.devices()[:devices])
    batched = sharding.Batched(means, batch_size=12, mesh=mesh)
    for number in (1, 3, 12, 29):
        given = images(number)
        outputs = batched({'scale': np.float32(2)}, given)
        np.testing.assert_allclose(outputs['mean'], given.mean(axis=(1, 2, 3)) * 2, rtol=1e-6)
        np.testing.assert_array_equal(outputs['image'], given + 1)


def test_batches_are_shared_by_devices_and_filled_up_but_not_by_much():
    seen = []

    def function(params, batch):
        seen.append(batch.shape[0])
        return batch

    batched = sharding.Batched(function, batch_size=32)
    for number in (1, 3, 32, 32, 37, 41):  # 37 is 32 and 5; 41 is 32 and 9
        batched({}, images(number))
    assert seen == [1, 4, 32, 8, 16]


def test_the_programs_that_are_kept_are_few():
    compiled = []
    batched = sharding.Batched(lambda params, x: compiled.append(x.shape) or x, batch_size=1)
    sides = [*range(1, 12), 11, 1]
    for side in sides:
        batched({}, images(1, side))
    assert [shape[1] for shape in compiled] == [*range(1, 12), 1]  # 11 was kept, 1 was not


def test_parameters_are_placed_once(monkeypatch):
    placed = []
    put = sharding.put
    monkeypatch.setattr(sharding, 'put', lambda *args: placed.append(args[1].shape) or put(*args))
    batched = sharding.Batched(means, batch_size=8)
    params = {'scale': np.float32(2)}
    for _ in range(3):
        batched(params, images(8))
    assert placed.count(()) == 1
    result = batched({'scale': np.float32(3)}, images(8))  # another tree
    np.testing.assert_allclose(result['mean'], images(8).mean(axis=(1, 2, 3)) * 3, rtol=1e-6)


def test_parameters_of_a_run_are_taken_where_they_are():
    mesh = sharding.make_mesh(8)
    params = jax.device_put({'scale': np.float32(2)}, sharding.replicated(mesh))
    batched = sharding.Batched(means, batch_size=8, mesh=mesh)
    with jax.transfer_guard('disallow'):
        batched(params, images(8))
    params['scale'].delete()  # as a step does, that is given its state
    batched(jax.device_put({'scale': np.float32(2)}, sharding.replicated(mesh)), images(8))


def test_a_batch_that_does_not_fit_is_halved(monkeypatch):
    batched = sharding.Batched(means, batch_size=16)
    run, tried = batched._run, []

    def small_device(params, batch):
        tried.append(len(batch))
        if len(batch) > 4:
            raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')
        return run(params, batch)

    monkeypatch.setattr(batched, '_run', small_device)
    given = images(16)
    for _ in range(2):
        np.testing.assert_array_equal(batched({'scale': 1.0}, given)['image'], given + 1)
    assert tried == [16, 8, *8 * [4]]  # what did not fit once is not tried again

    def no_device(params, batch):
        raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')

    monkeypatch.setattr(batched, '_run', no_device)
    with pytest.raises(jax.errors.JaxRuntimeError, match='RESOURCE_EXHAUSTED'):
        batched({'scale': 1.0}, given)
