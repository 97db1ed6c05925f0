"""Checkpoints of other versions of the program: older ones are read, newer ones refused."""

import hashlib
import json
import tarfile
from pathlib import Path

import flax.struct
import jax
import numpy as np
import optax
import pytest
from checkpoint_state import METADATA, State, abstract, equal, make, message

from cyclegan_jax import checkpoint_format, interop, networks, sharding, train_state
from cyclegan_jax.checkpoint import Checkpoints
from cyclegan_jax.errors import UserError

# `checkpoints/` of two runs of commit 9edbcbb, without pools and with pools of two images, and the
# hashes of all arrays, as that commit restored them.
ARCHIVE = Path(__file__).parent / 'fixtures' / 'checkpoints_9edbcbb.tar.xz'


@pytest.fixture(scope='module')
def old_runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('9edbcbb')
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter='data')
    return folder


def hashes(state):
    """{'generators.a2b.in.kernel': ..., ...}, of dtypes, shapes and bytes."""
    found = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(
        state.replace(key=jax.random.key_data(state.key))
    ):
        leaf = np.asarray(leaf)
        content = f'{leaf.dtype}{leaf.shape}'.encode() + leaf.tobytes()
        name = jax.tree_util.keystr(keys, simple=True, separator='.')
        found[name] = hashlib.sha256(content).hexdigest()[:16]
    return found


@pytest.mark.parametrize('pool_size', [0, 2])
def test_a_checkpoint_of_9edbcbb_restores_bit_for_bit(old_runs, pool_size):
    """Today's state is what that commit saved.

    If this fails because the state has a new field, say at the field what it is in older ones
    (metadata `later`, see `Checkpoints.restore`). A field that was renamed or has another shape
    costs users their runs: do not.
    """
    mesh = sharding.make_mesh(1, jax.devices()[:1])

    def create(config):
        nets = networks.make_networks(
            {'a': 3, 'b': 3}, config['generator'], config['discriminator'], 'float32'
        )
        return train_state.create(
            nets,
            optax.adam(lambda step: 1e-4),
            jax.random.key(0),
            image_shapes=dict.fromkeys('ab', (1, 16, 16, 3)),
            pool_size=pool_size,
        )

    with Checkpoints(old_runs / f'pool{pool_size}' / 'checkpoints') as checkpoints:
        shapes = jax.eval_shape(lambda: create(checkpoints.metadata(2)['config']))
        place = sharding.replicated(mesh)
        wanted = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes
        )
        state, metadata, step = checkpoints.restore(wanted)
        assert step == int(state.step) == 2
        assert metadata['config']['pool_size'] == pool_size
        assert metadata['batches'] == {'next_index': 2}
        known = json.loads((old_runs / 'leaves.json').read_text())[f'pool{pool_size}']
        assert hashes(state) == known
        assert checkpoints.best_record() == {
            'step': 2,
            'score': 'psnr_a2b',
            'value': 11.555997904337689,
        }
        params, _, step = checkpoints.restore_networks(checkpoints.best(), discriminators=True)
        assert step == 2
        assert equal(params, state.generators | state.discriminators)


def test_networks_of_9edbcbb_load(old_runs):
    assert set(interop.load_pretrained(old_runs / 'pool2', step='best')) == {'a2b', 'b2a'}


class TestBestOf9edbcbb:
    @pytest.fixture
    def checkpoints(self, tmp_path):
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(tmp_path, filter='data')
        with Checkpoints(tmp_path / 'pool0' / 'checkpoints', keep=1) as checkpoints:
            yield checkpoints

    def test_stays_when_the_run_goes_on(self, checkpoints):
        record = checkpoints.best_record()
        for step in (3, 4):
            checkpoints.save(step, make(step), METADATA)
        checkpoints.wait()
        assert checkpoints.steps() == [2, 4]
        assert checkpoints.best_record() == record

    @pytest.mark.parametrize(
        'text, why',
        [
            ('{"step": 2,', 'is damaged: it is no JSON'),
            ('[2]', 'is damaged: it holds a list'),
            ('{"score": "psnr_a2b", "value": 1}', "field 'step' is missing"),
            ('{"step": "2", "score": "psnr_a2b", "value": 1}', "field 'step' is '2'"),
        ],
    )
    def test_if_its_file_is_damaged_the_line_names_it(self, checkpoints, text, why):
        (checkpoints.directory / 'best.json').write_text(text)
        for call in (checkpoints.newest_good, checkpoints.best):
            with pytest.raises(UserError) as info:
                call()
            assert str(checkpoints.directory / 'best.json') in str(info.value)
            assert why in str(info.value)
        assert checkpoints.restore_networks()[2] == 2  # which does not need it


def test_a_newer_format_is_refused_and_left_alone(two, monkeypatch):
    monkeypatch.setattr(checkpoint_format, 'FORMAT', 2)
    two.save(3, make(3), METADATA)
    two.wait()
    monkeypatch.undo()
    for call in (two.newest_good, lambda: two.restore(abstract()), two.restore_networks):
        assert '/3 is of format 2, and this program reads up to 1; update' in message(call)
    assert two.steps() == [1, 2, 3]


@flax.struct.dataclass
class Later(State):
    """The state of a later version: with averaged generators."""

    average: dict = flax.struct.field(metadata={'later': lambda fields: fields['generators']})


class TestLaterField:
    def wanted(self):
        fields = vars(abstract())
        return Later(**fields, average=fields['generators'])

    def test_is_made_from_the_others_where_an_older_checkpoint_lacks_it(self, two):
        restored, _, _ = two.restore(self.wanted())
        assert equal(restored.average, make(2).generators)
        assert equal(restored.generators, make(2).generators)
        # The step donates the state, and no buffer can be donated twice.
        halve = jax.jit(lambda s: jax.tree.map(lambda x: x / 2, s), donate_argnums=0)
        halved = halve((restored.average, restored.generators))
        assert equal(halved[0], halved[1])

    def test_is_read_where_it_is_there(self, two):
        average = jax.tree.map(lambda x: x + 1, make(3).generators)
        two.save(3, Later(**vars(make(3)), average=average), METADATA)
        two.wait()
        restored, _, _ = two.restore(self.wanted())
        assert equal(restored.average, average)

    def test_is_empty_where_the_run_does_without_it(self, two):
        restored, _, _ = two.restore(self.wanted().replace(average={}))
        assert restored.average == {}
        assert equal(restored.generators, make(2).generators)

    def test_is_given_up_by_a_run_that_does_without_it(self, two):
        two.save(3, Later(**vars(make(3)), average=make(4).generators), METADATA)
        two.wait()
        restored, _, _ = two.restore(self.wanted().replace(average={}))
        assert restored.average == {}
        assert equal(restored.generators, make(3).generators)

    def test_is_what_is_shown_unless_the_trained_ones_are_asked_for(self, two):
        two.save(3, Later(**vars(make(3)), average=make(4).generators), METADATA)
        two.wait()
        for weights, shown in ((None, make(4)), ('average', make(4)), ('trained', make(3))):
            params = two.restore_networks(weights=weights, discriminators=True)[0]
            assert list(params) == ['a2b', 'b2a', 'a', 'b']
            assert equal(params, shown.generators | make(3).discriminators)
        assert equal(two.restore_networks(2, weights='trained')[0], make(2).generators)
        line = message(lambda: two.restore_networks(2, weights='average'))
        assert '/2 has no averaged generators' in line and '--weights=trained' in line

    def test_without_a_default_it_does_not_fit(self, two):
        @flax.struct.dataclass
        class Careless(State):
            average: dict

        line = message(two.restore, Careless(**vars(self.wanted())))
        assert 'average.a2b.conv.bias: checkpoint has nothing, this run float32[4]' in line


class TestExpectedShapes:
    """Sums say that the files are what was written, not that it was right."""

    def test_are_asked_for_by_metadata(self, two):
        def shapes(metadata):
            assert metadata == METADATA | {'saved_at': 2}
            return abstract().generators

        assert two.restore_networks(shapes=shapes)[2] == 2

    def test_a_missing_or_other_array_is_told_in_one_line(self, two):
        state = make(3)
        del state.generators['a2b']['conv']['bias']
        state.generators['b2a']['conv']['bias'] = state.step
        two.save(3, state, METADATA)
        two.wait()
        line = message(lambda: two.restore_networks(shapes=lambda _: abstract().generators))
        assert 'a2b.conv.bias: checkpoint has nothing, this run float32[4]' in line
        assert 'b2a.conv.bias: checkpoint has int32[], this run float32[4]' in line
