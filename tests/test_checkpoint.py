"""The state here has the shape of a TrainState, in small: 8 pool slots over up to 8 devices."""

import hashlib
import resource
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from cyclegan_jax.checkpoint import CheckpointError, Checkpoints

METADATA = {'config': {'generator': {'width': 4}}, 'batches': {'next_index': 7}}
OPTIMIZER = optax.adam(lambda step: 0.1 / (step + 1), b1=0.5)


@flax.struct.dataclass
class Pool:
    images: jax.Array
    count: jax.Array


@flax.struct.dataclass
class State:
    step: jax.Array
    generators: dict
    discriminators: dict
    generator_opt: optax.OptState
    discriminator_opt: optax.OptState
    pools: dict
    key: jax.Array


def create(seed, width):
    """On the host; the key as its data."""
    rng = np.random.default_rng(seed)

    def params(*names):
        kernels = rng.standard_normal((len(names), 3, width), np.float32)
        return {
            name: {'conv': {'kernel': kernel, 'bias': np.zeros(width, np.float32)}}
            for name, kernel in zip(names, kernels, strict=True)
        }

    generators, discriminators = params('a2b', 'b2a'), params('a', 'b')
    images = rng.random((2, 8, 2, 16, 16, 3), np.float32)
    return State(
        step=np.int32(seed),
        generators=generators,
        discriminators=discriminators,
        generator_opt=OPTIMIZER.init(generators),
        discriminator_opt=OPTIMIZER.init(discriminators),
        pools={name: Pool(images[i], np.int32(seed)) for i, name in enumerate('ab')},
        key=np.asarray([seed, 17], np.uint32),
    )


def make(seed=0, devices=None, width=4):
    """On the devices (all by default), also where they belong to several processes."""
    host = create(seed, width)
    devices = devices or jax.devices()
    mesh = jax.make_mesh((len(devices),), ('data',), (AxisType.Auto,), devices=devices)

    def put(leaf, *axes):
        sharding = NamedSharding(mesh, PartitionSpec(*axes))
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    state = jax.tree.map(put, host)
    pools = {k: Pool(put(pool.images, 'data'), put(pool.count)) for k, pool in host.pools.items()}
    return state.replace(pools=pools, key=jax.random.wrap_key_data(state.key))


def abstract(**kwargs):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), make(**kwargs)
    )


@jax.jit
def update(state):
    """Changes every leaf but the key, and two updates do not commute."""
    updates, generator_opt = OPTIMIZER.update(state.generators, state.generator_opt)
    return state.replace(
        step=state.step + 1,
        generators=optax.apply_updates(state.generators, updates),
        discriminators=jax.tree.map(lambda x: 0.9 * x + state.step, state.discriminators),
        generator_opt=generator_opt,
        pools=jax.tree.map(lambda x: x + 1, state.pools),
    )


def equal(left, right):
    """Whether two trees of arrays are the same, bit by bit; of this process's part of them."""

    def parts(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        if leaf.is_fully_addressable:
            return [np.asarray(leaf)]
        return [np.asarray(shard.data) for shard in leaf.addressable_shards]

    assert jax.tree.structure(left) == jax.tree.structure(right)
    return all(
        x.dtype == y.dtype and all(map(np.array_equal, parts(x), parts(y)))
        for x, y in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    )


@pytest.fixture
def checkpoints(tmp_path):
    checkpoints = Checkpoints(tmp_path / 'checkpoints', keep=3)
    yield checkpoints
    checkpoints.close()


@pytest.fixture
def two(checkpoints):
    """Checkpoints of the states with seed 1 and 2, at steps 1 and 2."""
    for step in (1, 2):
        checkpoints.save(step, make(step), METADATA | {'saved_at': step})
    checkpoints.wait()
    return checkpoints


def biggest_file(path):
    return max((p for p in path.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)


def message(call, *args):
    with pytest.raises(CheckpointError) as info:
        call(*args)
    assert '\n' not in str(info.value)
    return str(info.value)


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


def flip(path):
    file = biggest_file(path)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(path):
    file = biggest_file(path)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(path):
    for entry in path.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


DAMAGES = {
    'bit flip': flip,
    'truncated': truncate,
    'file gone': lambda path: biggest_file(path).unlink(),
    'part gone': lambda path: shutil.rmtree(path / 'generators'),
    'empty': empty,
    'sums garbled': lambda path: (path / 'SHA256SUMS').write_bytes(b'\xff\x00\n'),
}
WITHOUT_SUMS = {name: DAMAGES[name] for name in ('truncated', 'file gone', 'part gone')}


class TestDamage:
    @pytest.mark.parametrize('damage', DAMAGES.values(), ids=DAMAGES)
    def test_the_checkpoint_before_is_used(self, two, damage, caplog):
        damage(two.directory / '2')
        assert two.restore_networks()[2] == 1
        assert two.steps() == [1, 2]  # a reader sets nothing aside
        restored, metadata, step = two.restore(abstract())
        assert (step, metadata['saved_at']) == (1, 1)
        assert equal(restored, make(1))
        assert two.steps() == [1]
        assert (two.directory / '2.damaged').is_dir()
        assert 'Checkpoint 2 is damaged' in caplog.text

    @pytest.mark.parametrize('damage', WITHOUT_SUMS.values(), ids=WITHOUT_SUMS)
    def test_also_where_the_sums_were_never_written(self, two, damage):
        (two.directory / '2' / 'SHA256SUMS').unlink()
        damage(two.directory / '2')
        assert two.restore(abstract())[2] == 1
        assert (two.directory / '2.damaged').is_dir()

    def test_a_checkpoint_without_sums_is_used(self, two):
        (two.directory / '2' / 'SHA256SUMS').unlink()
        restored, _, step = two.restore(abstract())
        assert step == 2
        assert equal(restored, make(2))

    def test_if_none_is_left_a_run_does_not_start_from_scratch(self, two):
        for step in (1, 2):
            flip(two.directory / str(step))
        for _ in range(2):  # at the next start either
            text = message(two.restore, abstract())
            assert 'all checkpoints' in text
            assert '1.damaged, 2.damaged' in text

    def test_a_step_can_be_damaged_twice(self, two):
        flip(two.directory / '2')
        assert two.restore(abstract())[2] == 1
        two.save(2, make(2), METADATA)
        two.wait()
        flip(two.directory / '2')
        assert two.restore(abstract())[2] == 1

    def test_sums_are_those_of_sha256sum(self, two):
        lines = (two.directory / '2' / 'SHA256SUMS').read_text().splitlines()
        sums = {name: digest for digest, name in (line.split('  ') for line in lines)}
        for name, digest in sums.items():
            content = (two.directory / '2' / name).read_bytes()
            assert hashlib.sha256(content).hexdigest() == digest
        assert any(name.startswith('generators/') for name in sums)

    def test_a_failure_to_read_sound_files_is_not_blamed_on_them(self, two, monkeypatch):
        def fail(*_):
            raise MemoryError('RESOURCE_EXHAUSTED: out of memory')

        monkeypatch.setattr('orbax.checkpoint.v1.load_checkpointables', fail)
        assert 'out of memory' in message(two.restore, abstract())
        assert two.steps() == [1, 2]


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


class TestFailedWrite:
    @pytest.fixture
    def small_files(self):
        """Writing a file fails as on a full disk, with another number."""
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old[1]))
        yield
        resource.setrlimit(resource.RLIMIT_FSIZE, old)

    @pytest.mark.parametrize('call', ['wait', 'close', 'save'])
    def test_is_reported_in_one_line_and_leaves_the_others_intact(
        self, two, small_files, call, caplog
    ):
        two.save(3, make(3), METADATA)
        arguments = (4, make(4), METADATA) if call == 'save' else ()
        text = message(getattr(two, call), *arguments)
        assert 'checkpoint 3 could not be written' in text
        assert 'File too large' in text
        assert 'intact are [1, 2]' in text
        assert two.steps() == [1, 2]
        assert equal(two.restore(abstract())[0], make(2))
        assert caplog.text == ''

    def test_is_reported_once_and_the_next_save_may_succeed(self, two):
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
        try:
            two.save(3, make(3), METADATA)
            message(two.wait)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        two.save(3, make(3), METADATA)
        two.wait()
        assert equal(two.restore(abstract())[0], make(3))

    def test_a_disk_without_room_is_not_begun_to_fill(self, two, monkeypatch):
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(make()))
        usage = shutil.disk_usage(two.directory)
        monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage._replace(free=size - 1))
        assert 'it takes 0 MB, and 0 MB are free' in message(two.save, 3, make(3), METADATA)
        assert sorted(path.name for path in two.directory.iterdir()) == ['1', '2']
        monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage._replace(free=size))
        two.save(3, make(3), METADATA)
        two.wait()
        assert two.steps() == [1, 2, 3]

    def test_a_directory_that_cannot_be_made(self, tmp_path):
        (tmp_path / 'checkpoints').touch()
        text = message(Checkpoints(tmp_path / 'checkpoints').save, 1, make(), METADATA)
        assert 'File exists' in text


# In other processes --------------------------------------------------------------------------


def start(code, *args, devices=2):
    environment = {
        'JAX_PLATFORMS': 'cpu',
        'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
        'PYTHONPATH': f'{Path(__file__).parents[1]}:{Path(__file__).parent}',
    }
    return subprocess.Popen(
        [sys.executable, '-c', code, *map(str, args)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


SAVE_FOREVER = """
import itertools, sys
from test_checkpoint import METADATA, Checkpoints, abstract, equal, make

checkpoints = Checkpoints(sys.argv[1], keep=2)
restored = checkpoints.restore(abstract())
first = 1
if restored:
    state, metadata, step = restored
    assert equal(state, make(step)), 'the restored state is not the one that was saved'
    assert metadata['saved_at'] == step
    first = step + 1
print('from', first, flush=True)
for step in itertools.count(first):
    checkpoints.save(step, make(step), METADATA | {'saved_at': step})
    print(step, flush=True)
"""


def kill_while_saving(directory, kills, seed=0):
    """Kills a process that saves all the time; each start goes on from the last commit."""
    rng = np.random.default_rng(seed)
    started = 0
    for _ in range(kills):
        process = start(SAVE_FOREVER, directory)
        try:
            word, first = process.stdout.readline().split()
            assert word == 'from'
            # Returning from the save of step n means that n - 1 is committed.
            assert int(first) >= started
            for _ in range(3):
                started = int(process.stdout.readline())
            time.sleep(rng.uniform(0, 0.3))
        finally:
            process.kill()
            rest, _ = process.communicate()
        started = int((rest.split() or [started])[-1])
    checkpoints = Checkpoints(directory)
    state, metadata, step = checkpoints.restore(abstract())
    assert step >= started - 1
    assert metadata['saved_at'] == step
    assert equal(state, make(step))
    assert not list(checkpoints.directory.glob('*.damaged'))
    assert not list(checkpoints.directory.glob('*tmp*'))


def test_killed_while_saving(tmp_path):
    kill_while_saving(tmp_path, kills=1)


@pytest.mark.slow
def test_killed_while_saving_again_and_again(tmp_path):
    kill_while_saving(tmp_path, kills=5, seed=1)


TWO_PROCESSES = """
import sys
import jax
directory, port, index = sys.argv[1], sys.argv[2], int(sys.argv[3])
jax.distributed.initialize(f'localhost:{port}', num_processes=2, process_id=index)
from test_checkpoint import METADATA, Checkpoints, abstract, equal, flip, make

assert jax.process_count() == 2 and len(jax.devices()) == 4
checkpoints = Checkpoints(directory, keep=2)
assert checkpoints.restore(abstract()) is None
for step in (1, 2, 3):
    checkpoints.save(step, make(step), METADATA | {'process': index})
    checkpoints.save(step, make(step), METADATA)  # once is enough
checkpoints.close()
state, metadata, step = checkpoints.restore(abstract())
assert step == 3 and equal(state, make(3)), step
assert metadata['process'] == 0
assert not equal(state, make(2))

if index == 0:
    flip(checkpoints.directory / '3')
state, _, step = checkpoints.restore(abstract())
assert step == 2 and equal(state, make(2)), step
print('passed')
"""


@pytest.mark.slow
def test_two_processes_share_a_directory(tmp_path):
    with socket.socket() as probe:
        probe.bind(('localhost', 0))
        port = probe.getsockname()[1]
    processes = [start(TWO_PROCESSES, tmp_path, port, index) for index in range(2)]
    try:
        outputs = [process.communicate(timeout=60)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [output.splitlines()[-1:] for output in outputs] == [['passed'], ['passed']]
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.steps() == [2]
    assert equal(checkpoints.restore(abstract())[0], make(2))  # one process, eight devices
