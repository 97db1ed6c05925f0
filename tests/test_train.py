"""Whole runs, from a shipped config made tiny: what they leave, how they resume, how they stop."""

import dataclasses
import errno
import functools
import itertools
import json
import os
import shutil
import signal
import threading
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import small_run
from PIL import Image

from configs import synthetic
from cyclegan_jax import observer, run, sharding, train
from cyclegan_jax.checkpoint import Checkpoints
from cyclegan_jax.data import Dataset, ImageError
from cyclegan_jax.interop import load_pretrained
from cyclegan_jax.log import read_metrics
from cyclegan_jax.observer import Observer
from cyclegan_jax.program import make_networks, make_program
from cyclegan_jax.workdir import open_workdir


def tiny(**fields):
    """configs/synthetic.py, shrunk: 16 images of 16x16, two steps an epoch, eight in all."""
    config = synthetic.get_config()
    config.update_from_flattened_dict(
        {
            'batch_size': 8,
            **small_run.TINY,
            'pool_size': 16,
            'schedule.num_epochs': 4,
            'schedule.decay_start_epoch': 2,
            'log_every': 2,
            'sample_every': 4,
            'evaluate_every': 4,
            'checkpoint_every': 3,
            'keep_best': '',
            **fields,
        }
    )
    return config


@pytest.fixture(scope='module', autouse=True)
def programs():
    """What these runs compute is traced and compiled once, not for each run anew."""
    elsewhere = {'log_every', 'sample_every', 'evaluate_every', 'checkpoint_every', 'keep_best'}
    elsewhere |= {'keep_checkpoints', 'max_steps', 'init_from', 'allow_data_change', 'data'}
    made = {}

    def make(config, nets, mesh, *sizes):
        fields = {name: value for name, value in config.to_dict().items() if name not in elsewhere}
        key = str((fields, config.data.channels_a, config.data.channels_b, sizes))
        if key not in made:
            program = make_program(config, nets, mesh, *sizes)
            lowered = functools.partial(program.step.lower, program.state, program.batch)
            compiled = functools.cache(lambda: lowered().compile())
            step = SimpleNamespace(lower=lambda *_: SimpleNamespace(compile=compiled))
            made[key] = dataclasses.replace(program, step=step)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, 'make_program', make)
        for name in ('make_translate', 'Batched'):
            patch.setattr(observer, name, functools.cache(getattr(observer, name)))
        yield


@pytest.fixture
def saved(monkeypatch):
    """Collects, by step, what runs save."""
    states = {}
    save = Checkpoints.save

    def spy(self, step, state, *rest):
        states[step] = jax.device_get(state.replace(key=jax.random.key_data(state.key)))
        save(self, step, state, *rest)

    monkeypatch.setattr(Checkpoints, 'save', spy)
    return states


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp('finished')
    assert train.main(tiny(), workdir) == 0
    return workdir


def losses(workdir):
    """What was logged of the training itself, without speeds."""
    return [
        {k: v for k, v in record.items() if k.partition('/')[0] in ('step', 'generator', 'score')}
        for record in read_metrics(workdir)
    ]


def test_a_run_leaves_all_that_the_readme_says(finished):
    assert json.loads((finished / 'config.json').read_text())['generator']['width'] == 4
    assert Checkpoints(finished / 'checkpoints').steps() == [6, 8]
    assert [r['step'] for r in read_metrics(finished) if 'generator/total' in r] == [2, 4, 6, 8]
    assert list((finished / 'tensorboard').iterdir())
    page = (finished / 'samples' / 'index.html').read_text()
    for step in (4, 8):
        assert f'step_{step}.png' in page
        with Image.open(finished / 'samples' / f'step_{step}.png') as grid:
            assert grid.width > 6 * 16 and grid.height > 6 * 16


def test_scores_against_the_truth_are_logged_beside_the_untranslated(finished):
    scores = [r for r in read_metrics(finished) if 'evaluation/psnr/a2b' in r]
    assert [r['step'] for r in scores] == [4, 8]
    for score in scores:
        assert 0 < score['evaluation/psnr/a2b'] < 100
        assert (
            score['evaluation/ssim/b2a_untranslated']
            == scores[0]['evaluation/ssim/b2a_untranslated']
        )


def test_the_rate_that_is_logged_is_that_of_the_epoch(finished):
    records = [r for r in read_metrics(finished) if 'learning_rate' in r]
    expected = [2e-4, 2e-4, 2e-4 * 2 / 3, 2e-4 / 3]
    np.testing.assert_allclose([r['learning_rate'] for r in records], expected, rtol=1e-5)
    assert [r['epoch'] for r in records] == [1, 2, 3, 4]


def test_a_run_in_parts_equals_an_unbroken_one(finished, tmp_path, saved, capsys):
    """Every leaf: parameters, both optimizers, pools, key; and every loss that was logged."""
    assert train.main(tiny(), tmp_path / 'unbroken') == 0
    unbroken = saved.pop(8)
    saved.clear()
    assert train.main(tiny(max_steps=3), tmp_path / 'parts') == 0
    assert train.main(tiny(max_steps=5), tmp_path / 'parts') == 0
    assert train.main(tiny(), tmp_path / 'parts') == 0
    assert 'Resuming after step 5' in capsys.readouterr().out
    assert sorted(saved) == [3, 5, 6, 8]
    for (path, x), y in zip(
        jax.tree.leaves_with_path(unbroken), jax.tree.leaves(saved[8]), strict=True
    ):
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))
    whole, parts = (
        [r for r in losses(w) if r['step'] in (2, 8)]  # the windows that no part divides
        for w in (finished, tmp_path / 'parts')
    )
    assert parts == whole and len(whole) == 3, 'two of training, one of evaluation'


@pytest.mark.parametrize(
    'devices',
    [4, pytest.param(2, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.slow)],
)
def test_a_run_goes_on_on_fewer_devices_and_ends_where_it_would_have(
    finished, tmp_path, saved, capsys, devices
):
    """Within rounding: of the same batches, in the same order, with the same pools."""
    shutil.copytree(finished, tmp_path / 'run')
    shutil.rmtree(tmp_path / 'run' / 'checkpoints' / '8')
    fields = {'num_devices': devices, 'evaluate_every': 0, 'sample_every': 100}
    assert train.main(tiny(**fields), tmp_path / 'run') == 0
    out = capsys.readouterr().out
    assert 'Resuming after step 6' in out and f'{devices} device(s)' in out
    config = tiny()
    program = make_program(
        config, make_networks(config), sharding.make_mesh(8), (16, 16), steps_per_epoch=2
    )
    expected, _, _ = Checkpoints(finished / 'checkpoints').restore(program.state)
    for name in ('generators', 'discriminators', 'pools'):
        for x, y in zip(
            jax.tree.leaves(getattr(expected, name)),
            jax.tree.leaves(getattr(saved[8], name)),
            strict=True,
        ):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=2e-5)


def test_a_run_that_was_killed_logs_what_an_unbroken_one_does(finished, tmp_path, monkeypatch):
    """Its checkpoint, of step 3, lies between two log lines."""

    def die(*_, **__):
        raise RuntimeError('killed')

    with monkeypatch.context() as patch:
        patch.setattr(Observer, 'evaluate', die)  # at step 4, before the line of its scores
        with pytest.raises(RuntimeError, match='killed'):
            train.main(tiny(), tmp_path)
    assert train.main(tiny(), tmp_path) == 0
    assert losses(tmp_path) == losses(finished)


def test_a_picture_that_goes_bad_costs_no_step(tmp_path, monkeypatch, capsys):
    """What was learnt is saved, and the same command goes on when the picture is back."""
    batches = Dataset.batches

    def go_bad(self, **kwargs):
        yield from itertools.islice(batches(self, **kwargs), 5)
        raise ImageError('horse.jpg', 'it is truncated')

    with monkeypatch.context() as patch:
        patch.setattr(Dataset, 'batches', go_bad)
        assert train.main(tiny(), tmp_path) == 2
    message = capsys.readouterr().err
    assert 'horse.jpg' in message and 'Step 5 is saved' in message
    assert Checkpoints(tmp_path / 'checkpoints').latest() == 5
    assert train.main(tiny(), tmp_path) == 0
    assert 'Resuming after step 5' in capsys.readouterr().out


def test_a_test_picture_that_goes_bad_costs_no_step_either(tmp_path, monkeypatch, capsys):
    def go_bad(*_):
        raise ImageError('zebra.jpg', 'it is truncated')

    monkeypatch.setattr(Observer, 'evaluate', go_bad)
    assert train.main(tiny(), tmp_path) == 2
    message = capsys.readouterr().err
    assert 'zebra.jpg' in message and 'Step 4 is saved' in message
    assert Checkpoints(tmp_path / 'checkpoints').latest() == 4


def test_a_signal_during_the_last_save_does_not_end_it(tmp_path, monkeypatch):
    wait = Checkpoints.wait

    def killed(*_):
        raise RuntimeError('the process would have ended')

    def wait_with_signal(self):
        os.kill(os.getpid(), signal.SIGTERM)
        wait(self)

    before = signal.signal(signal.SIGTERM, killed)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, 'save', lambda *_: None)  # it waits, too
            patch.setattr(Checkpoints, 'wait', wait_with_signal)
            patch.setattr(Checkpoints, 'close', lambda _: None)
            assert train.main(tiny(max_steps=1, evaluate_every=0), tmp_path) == 0
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_save_that_failed_is_told_at_the_next_line(tmp_path, monkeypatch, capsys):
    failed = threading.Event()
    batches = Dataset.batches

    def fail(self, step):
        failed.set()
        raise OSError(errno.ENOSPC, 'No space left on device')

    def wait(self, **kwargs):
        for step, batch in enumerate(batches(self, **kwargs), 1):
            if step == 4:
                assert failed.wait(60)
            yield batch

    monkeypatch.setattr(Checkpoints, '_commit', fail)
    monkeypatch.setattr(Dataset, 'batches', wait)
    assert train.main(tiny(log_every=1, evaluate_every=0), tmp_path) == 2
    message = capsys.readouterr().err
    assert 'checkpoint 3 could not be written' in message and 'No space left' in message
    assert max(r['step'] for r in read_metrics(tmp_path)) < 6, 'not only at the next save'


def test_a_rate_or_a_type_may_change_as_the_advice_says(tmp_path, capsys):
    assert train.main(tiny(max_steps=2), tmp_path) == 0
    fields = {'optimizer.learning_rate': 1e-5, 'dtype': 'bfloat16', 'max_steps': 3}
    assert train.main(tiny(**fields), tmp_path) == 0
    assert 'Resuming after step 2' in capsys.readouterr().out


def test_a_finished_run_says_so_and_goes_on_when_epochs_are_added(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / 'run')
    assert train.main(tiny(), tmp_path / 'run') == 0
    assert 'This run is complete: it has 8 of 8 steps' in capsys.readouterr().out
    assert train.main(tiny(**{'schedule.num_epochs': 5}), tmp_path / 'run') == 0
    assert Checkpoints(tmp_path / 'run' / 'checkpoints').latest() == 10


def test_a_run_goes_on_without_a_picture_that_is_gone_bad(tmp_path, capsys):
    folders = tmp_path / 'trainA', tmp_path / 'trainB'
    for folder in folders:
        folder.mkdir()
        for i in range(16):
            Image.new('RGB', (16, 16), (10 * i, 80, 120)).save(folder / f'{i}.png')
    fields = {'data.source': 'folder', 'data.path': str(tmp_path), 'evaluate_every': 0}
    workdir = tmp_path / 'run'
    assert train.main(tiny(**fields, max_steps=3), workdir) == 0
    (folders[0] / '3.png').write_bytes(b'<html>')
    capsys.readouterr()
    assert train.main(tiny(**fields), workdir) == 2
    message = capsys.readouterr().err
    assert 'trainA/3.png: not an image' in message
    assert '--config.data.skip_corrupt=True' in message
    assert train.main(tiny(**fields, **{'data.skip_corrupt': True}), workdir) == 0
    message = capsys.readouterr()
    assert 'Resuming after step 3' in message.out and 'trainA/3.png' in message.out
    assert Checkpoints(workdir / 'checkpoints').latest() == 8


def test_the_same_run_whatever_is_logged_sampled_or_saved(finished, tmp_path, saved):
    assert train.main(tiny(), tmp_path / 'one') == 0
    reference = saved[8]
    config = tiny(log_every=3, sample_every=100, evaluate_every=0, checkpoint_every=100)
    config.data.num_threads, config.data.cache = 1, 0.0
    assert train.main(config, tmp_path / 'other') == 0
    for x, y in zip(jax.tree.leaves(reference), jax.tree.leaves(saved[8]), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_what_was_good(tmp_path, capsys):
    config = tiny(**{'optimizer.learning_rate': 1e37, 'checkpoint_every': 1, 'log_every': 100})
    assert train.main(config, tmp_path) == 3
    message = capsys.readouterr().err
    assert 'is not finite at step 2' in message and 'generator/' in message
    assert 'the checkpoint of step 1 is good' in message
    assert 'lower --config.optimizer.learning_rate' in message
    assert Checkpoints(tmp_path / 'checkpoints').steps() == [1]


@pytest.mark.filterwarnings('ignore:overflow encountered in cast')  # of the rate to float32
def test_parameters_that_are_not_finite_are_never_saved(tmp_path, capsys):
    config = tiny(**{'optimizer.learning_rate': 1e39, 'checkpoint_every': 1})
    assert train.main(config, tmp_path) == 3
    assert 'a parameter is not finite after step 1' in capsys.readouterr().err
    assert Checkpoints(tmp_path / 'checkpoints').steps() == []


@pytest.mark.parametrize(
    ('fields', 'said'),
    [
        ({'batch_size': 12}, 'batch_size is 12, which 8 devices cannot share'),
        ({'batch_size': 24}, 'batch_size is 24'),
        ({'accumulate': 2}, 'accumulate = 2 equal parts on 8 device(s); choose a multiple of 16'),
        (
            {'data.crop_size': 14, 'data.load_size': 14},
            'multiples of 4; set data.crop_size, the nearest is 16x16',
        ),
        ({'discriminator.num_layers': 5}, 'too small for a discriminator with num_layers 5'),
        ({'data.name': 'spots'}, "'spots'"),
        ({'data.source': 'folder', 'data.path': 'nowhere'}, 'nowhere'),
        ({'generator.kind': 'vit'}, "generator.kind is 'vit'"),
        ({'generator.kind': 'unet', 'generator.remat': True}, 'generator.remat is True'),
    ],
)
def test_mistakes_are_told_in_one_line_before_compiling(fields, said, tmp_path, capsys):
    assert train.main(tiny(**fields), tmp_path) == 2
    output = capsys.readouterr()
    assert said in output.err
    assert output.err.startswith('error: ') and output.err.count('\n') == 1
    assert 'Compiled' not in output.out


def test_a_workdir_that_cannot_be_used_is_told(tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    assert train.main(tiny(), tmp_path / 'file') == 2
    assert 'is a file' in capsys.readouterr().err
    with open_workdir(tmp_path / 'busy'):
        assert train.main(tiny(), tmp_path / 'busy') == 2
    assert 'is in use by process' in capsys.readouterr().err


def test_a_checkpoint_of_another_config_is_refused_by_field(finished, capsys):
    fields = {'generator.width': 8, 'batch_size': 16}
    assert train.main(tiny(**fields), finished) == 2
    message = capsys.readouterr().err
    assert 'generator.width: checkpoint has 4, config asks 8' in message
    assert 'batch_size: checkpoint has 8, config asks 16' in message


@pytest.mark.parametrize('trace', ['log', 'best.json'])
def test_checkpoints_of_an_older_program_that_are_all_gone_are_missed(
    finished, tmp_path, trace, capsys
):
    """Without checkpoints.json, as version 0.1.0 leaves a workdir."""
    for name in ('config.json', 'metrics.jsonl'):
        shutil.copy(finished / name, tmp_path)
    if trace == 'best.json':
        (tmp_path / 'metrics.jsonl').unlink()
        (tmp_path / 'checkpoints').mkdir()
        (tmp_path / 'checkpoints' / 'best.json').write_text('{}')
    before = sorted(tmp_path.rglob('*'))
    assert train.main(tiny(), tmp_path) == 2
    error = capsys.readouterr().err
    assert 'has no checkpoint, but' in error and 'bring them back, or remove' in error
    assert sorted(tmp_path.rglob('*')) == sorted([*before, tmp_path / 'run.lock'])


def test_a_changed_data_set_is_noticed(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / 'run')
    shutil.rmtree(tmp_path / 'run' / 'checkpoints' / '8')
    config = tiny(**{'data.max_images': 17})
    assert train.main(config, tmp_path / 'run') == 2
    message = capsys.readouterr().err
    assert 'the data set is not the one' in message and '16' in message and '17' in message
    config.allow_data_change = True
    assert train.main(config, tmp_path / 'run') == 0


@pytest.mark.slow  # to compile
@pytest.mark.parametrize(
    'fields',
    [
        {
            'generator.kind': 'unet',
            'generator.num_downs': 5,
            'generator.dropout': 0.5,
            'data.channels_a': 1,
            'loss.identity_weight': 0.0,
            'loss.gan': 'vanilla',
            'pool_size': 0,
            'evaluate_every': 0,
        },
        {
            'generator.upsample': 'nearest',
            'discriminator.kind': 'huggan',
            'loss.gan': 'hinge',
            'dtype': 'bfloat16',
            'batch_size': 16,
            'accumulate': 2,
            'generator.num_blocks': 1,
            'generator.remat': True,
        },
        {
            'average': 0.9,
            'augment': 'brightness,saturation,contrast,shift',
            'discriminator.kind': 'two_scale',
            'loss.penalty_weight': 1.0,
            'loss.cycle_weight_end': 3.0,
            'loss.identity_weight_end': 1.0,
            'optimizer.discriminator_rate': 1e-4,
            'schedule.decay_start_epoch': 0,
        },
    ],
    ids=['anime from one channel without a pool', 'huggan', 'recipe'],
)
def test_the_other_networks_and_losses_train(fields, tmp_path):
    size = {'data.load_size': 40, 'data.crop_size': 32, 'max_steps': 2}
    assert train.main(tiny(**size, **fields), tmp_path) == 0
    [record] = [r for r in read_metrics(tmp_path) if 'generator/total' in r]
    assert record['generator/total'] > 0
    assert (tmp_path / 'samples' / 'step_2.png').exists()


def test_the_state_is_donated():
    """Its new arrays take the place of the old ones: the device never holds two."""
    config = tiny()
    nets, mesh = make_networks(config), sharding.make_mesh(8)
    program = make_program(config, nets, mesh, (16, 16), steps_per_epoch=2)
    memory = program.step.lower(program.state, program.batch).compile().memory_analysis()
    shards = jax.tree.map(lambda x: x.sharding.shard_shape(x.shape), program.state)
    sizes = jax.tree.map(
        lambda leaf, shape: np.prod(shape) * leaf.dtype.itemsize, program.state, shards
    )
    assert memory.alias_size_in_bytes >= sum(jax.tree.leaves(sizes))


def test_training_starts_from_networks_that_exist(finished, tmp_path, saved, capsys):
    """All four networks of another run, with fresh optimizers; then of an unlike one, refused."""
    fields = {'init_from': str(finished), 'max_steps': 1, 'optimizer.learning_rate': 1e-12}
    assert train.main(tiny(**fields), tmp_path / 'next') == 0
    assert f'Starting with a2b, b2a, a, b of {finished}' in capsys.readouterr().out
    [state] = saved.values()
    known, _, _ = Checkpoints(finished / 'checkpoints').restore_networks(discriminators=True)
    started = {**state.generators, **state.discriminators}
    for name, params in known.items():
        for x, y in zip(jax.tree.leaves(params), jax.tree.leaves(started[name]), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-9)
    assert train.main(tiny(**{**fields, 'generator.width': 8}), tmp_path / 'unlike') == 2
    assert 'generator.width is 8, a2b of the weights has 4' in capsys.readouterr().err


@pytest.mark.slow
def test_an_average_is_shown_and_begins_and_ends_where_it_is_asked_for(
    finished, tmp_path, saved, monkeypatch
):
    """From trained networks; then without; then on again, from the generators as they are."""
    shown = {}
    monkeypatch.setattr(
        Observer, 'sample', lambda _, step, generators: shown.update({step: generators})
    )
    fields = {'evaluate_every': 0, 'sample_every': 1, 'keep_checkpoints': 9}
    start = {'init_from': str(finished), 'average': 0.9}
    assert train.main(tiny(**fields, **start, max_steps=1), tmp_path) == 0
    assert train.main(tiny(**fields, max_steps=2), tmp_path) == 0
    assert train.main(tiny(**fields, average=0.9, max_steps=3), tmp_path) == 0
    assert saved[2].average == {}

    def equal(x, y):
        return all(map(np.array_equal, *map(jax.tree.leaves, (x, y))))

    for step, state in saved.items():
        assert equal(shown[step], state.shown)
        for weights, expected in (('trained', state.generators), (None, state.shown)):
            found = load_pretrained(tmp_path, step=step, weights=weights)
            assert equal({name: network.params for name, network in found.items()}, expected)
    for before, step in ((None, 1), (saved[2].generators, 3)):
        state = saved[step]
        assert not equal(state.average, state.generators)
        if before:
            share = 0.5 ** (20 / step)
            mixed = jax.tree.map(
                lambda x, y, share=share: share * x + (1 - share) * y, before, state.generators
            )
            for x, y in zip(*map(jax.tree.leaves, (state.average, mixed)), strict=True):
                np.testing.assert_allclose(x, y, atol=1e-7)


def test_the_best_checkpoint_is_kept_beside_the_latest(tmp_path):
    config = tiny(keep_best='ssim_b2a', keep_checkpoints=1, evaluate_every=1)
    assert train.main(config, tmp_path) == 0
    scores = {
        record['step']: record['evaluation/ssim/b2a']
        for record in read_metrics(tmp_path)
        if 'evaluation/ssim/b2a' in record
    }
    best = max(scores, key=scores.get)
    checkpoints = Checkpoints(tmp_path / 'checkpoints')
    assert checkpoints.best() == best
    assert checkpoints.steps() == sorted({best, 8})
    record = checkpoints.best_record()
    assert record == {'step': best, 'score': 'ssim_b2a', 'value': scores[best]}
    networks = load_pretrained(tmp_path, step='best')
    known, _, _ = checkpoints.restore_networks(best)
    for x, y in zip(
        jax.tree.leaves(networks['a2b'].params), jax.tree.leaves(known['a2b']), strict=True
    ):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    ('fields', 'said'),
    [
        ({'keep_best': 'psnr'}, 'a score and a direction, such as psnr_a2b'),
        ({'keep_best': 'fid_pytorch_a2b'}, 'fid_pytorch is not computed'),
        ({'evaluate_metrics': 'paird'}, "(did you mean 'paired'?)"),
    ],
)
def test_mistakes_about_scores_are_told(fields, said, tmp_path, capsys):
    assert train.main(tiny(**fields), tmp_path) == 2
    assert said in capsys.readouterr().err
