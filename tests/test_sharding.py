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
    assert 'UserError: --multihost found no other processes' in result.stderr


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
    traced = []

    def function(params, images):
        traced.append(images.shape[0])
        return images

    batched = sharding.Batched(function, 30)  # rounded up to 32
    for n in range(1, 70):
        assert len(batched({}, numbers(n))) == n
    assert sorted(traced) == [8, 16, 32]
    traced.clear()
    sharding.Batched(function, 3)({}, numbers(4))
    assert sorted(traced) == [3]  # no more devices than images in a batch


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

    def tight(self, params, batch):
        sizes.append(len(batch))
        if len(batch) > limit:
            raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')
        return run(self, params, batch)

    monkeypatch.setattr(sharding.Batched, '_run', tight)
    mesh = sharding.make_mesh(1, jax.devices()[:1])
    limit = 5
    batched = sharding.Batched(count, 16, mesh)
    params = {'scale': np.float32(1)}
    np.testing.assert_array_equal(batched(params, numbers(18))['same'], numbers(18))
    assert sizes == [16, 8, 4, 4, 4, 4, 2]
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
