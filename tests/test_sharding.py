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
