"""What is saved comes back, old checkpoints go, and what does not fit is told."""

import shutil

import jax
import jax.numpy as jnp
import pytest
from checkpoint_state import METADATA, abstract, equal, make, message, update

from cyclegan_jax.checkpoint import Checkpoints


class TestRoundTrip:
    def test_every_leaf_comes_back_as_it_was(self, checkpoints):
        state = update(update(make()))
        checkpoints.save(2, state, METADATA)
        checkpoints.wait()
        restored, metadata, step = checkpoints.restore(abstract())
        assert (step, metadata) == (2, METADATA)
        assert checkpoints.metadata(2) == METADATA
        assert equal(restored, state)
        assert jax.tree.all(jax.tree.map(lambda x, y: x.sharding == y.sharding, restored, state))

    def test_no_checkpoint_is_not_an_error(self, checkpoints):
        assert checkpoints.restore(abstract()) is None
        assert checkpoints.steps() == []
        assert checkpoints.latest() is None
        assert not checkpoints.directory.exists()

    @pytest.mark.parametrize('saved_on, restored_on', [(8, 4), (4, 8), (8, 1)])
    def test_the_number_of_devices_may_change(self, checkpoints, saved_on, restored_on):
        state = make(devices=jax.devices()[:saved_on])
        checkpoints.save(1, state, METADATA)
        checkpoints.wait()
        devices = jax.devices()[:restored_on]
        restored, _, _ = checkpoints.restore(abstract(devices=devices))
        assert equal(restored, state)
        assert restored.pools['a'].images.sharding.device_set == set(devices)
        assert len(restored.pools['a'].images.addressable_shards) == restored_on
        assert restored.key.sharding.device_set == set(devices)

    def test_a_run_without_pools(self, checkpoints):
        state = make().replace(pools={})
        checkpoints.save(1, state, METADATA)
        checkpoints.wait()
        restored, _, _ = checkpoints.restore(abstract().replace(pools={}))
        assert equal(restored, state)

    def test_training_goes_on_as_if_unbroken(self, checkpoints):
        state = update(make())
        checkpoints.save(1, state, METADATA)
        checkpoints.wait()
        restored, _, _ = checkpoints.restore(abstract())
        step = jax.jit(update, donate_argnums=0)
        assert equal(step(step(restored)), update(update(state)))

    def test_the_state_may_be_donated_while_it_is_written(self, checkpoints):
        step = jax.jit(update, donate_argnums=0)
        state, saved = make(), []
        for number in (1, 2, 3):
            state = step(state)
            saved.append(jax.tree.map(jnp.copy, state))
            with jax.transfer_guard('disallow'):  # as in the training loop
                checkpoints.save(number, state, METADATA)
            old = state
            for _ in range(5):
                state = step(state)
            for leaf in jax.tree.leaves(old):  # on a CPU a donated buffer that is in use lives on
                leaf.delete()
        checkpoints.wait()
        for number in (3, 2, 1):
            restored, _, step_restored = checkpoints.restore(abstract())
            assert step_restored == number
            assert equal(restored, saved[number - 1])
            shutil.rmtree(checkpoints.directory / str(number))

    def test_generators_alone_on_one_device(
        self,
        two,
    ):
        before = sorted(two.directory.rglob('*'))
        generators, metadata, step = two.restore_networks()
        assert (step, metadata['saved_at']) == (2, 2)
        assert equal(generators, make(2).generators)
        devices = {leaf.sharding for leaf in jax.tree.leaves(generators)}
        assert devices == {jax.sharding.SingleDeviceSharding(jax.devices()[0])}
        generators, _, step = two.restore_networks(step=1)
        assert step == 1
        assert equal(generators, make(1).generators)
        assert sorted(two.directory.rglob('*')) == before

    def test_no_such_checkpoint_for_inference(self, two, tmp_path):
        assert 'no checkpoint of step 5; there are' in message(two.restore_networks, 5)
        assert 'among []' in message(Checkpoints(tmp_path / 'none').restore_networks)


class TestKeeping:
    def test_the_newest_are_kept(self, tmp_path):
        checkpoints = Checkpoints(tmp_path, keep=2)
        for step in (9, 10, 100):  # not in the order of their names
            checkpoints.save(step, make(step), METADATA)
        checkpoints.close()
        assert checkpoints.steps() == [10, 100]
        assert checkpoints.latest() == 100

    @pytest.mark.parametrize('keep', [0, -1])
    def test_keeping_none_is_refused(self, tmp_path, keep):
        with pytest.raises(ValueError, match=f'keep_checkpoints is {keep}'):
            Checkpoints(tmp_path, keep=keep)

    def test_a_step_is_saved_once(self, two):
        two.save(2, make(5), {'other': True})
        two.wait()
        restored, metadata, _ = two.restore(abstract())
        assert metadata['saved_at'] == 2
        assert equal(restored, make(2))

    def test_foreign_entries_are_left_alone(self, two):
        (two.directory / '7').write_text('a file')
        (two.directory / '007').mkdir()
        (two.directory / 'best').mkdir()
        (two.directory / '8.orbax-checkpoint-tmp').mkdir()
        assert two.steps() == [1, 2]
        assert two.restore_networks()[2] == 2
        assert (
            two.directory / '8.orbax-checkpoint-tmp'
        ).exists()  # it may belong to a running save
        assert two.restore(abstract())[2] == 2
        left = sorted(path.name for path in two.directory.iterdir())
        assert left == ['007', '1', '2', '7', 'best']


class TestFit:
    def test_shapes_are_named_with_both_values(self, two):
        text = message(two.restore, abstract(width=8))
        assert (
            'discriminators.a.conv.kernel: checkpoint has float32[3, 4], this run float32[3, 8]'
        ) in text
        assert two.steps() == [1, 2]

    def test_another_dtype_is_refused(self, two):
        wanted = abstract()
        wanted = wanted.replace(
            discriminators=jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16, sharding=x.sharding),
                wanted.discriminators,
            )
        )
        text = message(two.restore, wanted)
        assert 'discriminators.a.conv.kernel: checkpoint has float32[3, 4]' in text
        assert 'this run bfloat16[3, 4]' in text

    def test_missing_and_extra_arrays_are_named(self, two):
        wanted = abstract()
        del wanted.generators['a2b']['conv']['bias']
        assert 'a2b.conv.bias: checkpoint has float32[4], this run nothing' in message(
            two.restore, wanted
        )
        wanted.generators['a2b']['conv']['bias'] = wanted.generators['b2a']['conv']['bias']
        wanted.generators['c'] = wanted.generators['b2a']
        assert 'generators.c.conv.bias: checkpoint has nothing' in message(two.restore, wanted)
