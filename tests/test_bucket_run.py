"""Against a bucket on this machine: checkpoints, data, and a run from its start to its scores."""

import functools
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from checkpoint_state import METADATA, abstract, equal, make, message
from PIL import Image
from run_processes import read_until, start

from cyclegan_jax import bucket as bucket_workdir
from cyclegan_jax import storage
from cyclegan_jax.checkpoint import Checkpoints
from cyclegan_jax.data.sources import Folder, MissingSplit
from cyclegan_jax.errors import UserError
from cyclegan_jax.storage import as_path
from cyclegan_jax.workdir import open_workdir

pytestmark = pytest.mark.slow
pytest_plugins = ['buckets']
ROOT = Path(__file__).parents[1]
_numbers = itertools.count()


@pytest.fixture
def folder(bucket):
    """A new one."""
    return as_path(bucket) / f'test_{next(_numbers)}'


@pytest.fixture
def two(folder):
    """Checkpoints of the steps 1, the best, and 2."""
    with Checkpoints(folder / 'checkpoints', keep=1) as checkpoints:
        for step in (1, 2):
            best = {'score': 'psnr_a2b', 'value': 1.0} if step == 1 else None
            checkpoints.save(step, make(step), METADATA | {'saved_at': step}, best)
        checkpoints.wait()
        yield checkpoints


def flip(path):
    file = max(storage.objects(path).items(), key=lambda item: item[1])[0]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def again(checkpoints):
    return Checkpoints(checkpoints.directory, keep=1)


class TestCheckpoints:
    def test_are_restored_kept_and_given_up_as_on_a_disk(self, two):
        assert two.steps() == [1, 2] and two.best() == 1
        state, metadata, step = again(two).restore(abstract())
        assert (step, metadata['saved_at']) == (2, 2)
        assert equal(state, make(2))
        two.save(3, make(3), METADATA)
        two.wait()
        assert two.steps() == [1, 3]
        left = {path.relative_to(two.directory).parts[0] for path in storage.objects(two.directory)}
        assert left == {'1', '3'}, 'neither marks nor files of others are left'
        params, _, step = two.restore_networks(two.best())
        assert step == 1 and equal(params, make(1).generators)

    def test_sums_are_of_what_lies_there(self, two):
        names = {
            p.relative_to(two.directory / '2').as_posix() for p in storage.objects(two._path(2))
        }
        lines = (two.directory / '2' / 'SHA256SUMS').read_text().splitlines()
        assert {line.partition('  ')[2] for line in lines} == names - {'SHA256SUMS'}

    @pytest.mark.parametrize('damage', ['flip', 'gone'])
    def test_a_damaged_one_is_set_aside(self, two, damage):
        if damage == 'flip':
            flip(two.directory / '2')
        else:
            (two.directory / '2' / 'generators').rmtree()
        assert two.restore_networks()[2] == 1
        assert two.steps() == [1, 2], 'a reader sets nothing aside'
        state, _, step = again(two).restore(abstract())
        assert step == 1 and equal(state, make(1))
        assert again(two).steps() == [1]
        with again(two) as after:
            after.save(2, make(2), METADATA)
        assert again(two).steps() == [1, 2]
        assert equal(again(two).restore(abstract())[0], make(2))
        flip(two.directory / '2')
        flip(two.directory / '1')
        for _ in range(2):
            assert '1.damaged, 2.damaged' in message(again(two).restore, abstract())

    def test_all_gone_is_not_begun_anew(self, two):
        two.directory.rmtree()
        assert 'says that there were some' in message(again(two).newest_good)

    @pytest.mark.parametrize('place', ['manifest.seal', 'checkpoint_folders.BucketFolders.commit'])
    def test_a_kill_before_it_counts_leaves_the_one_before(self, two, place, monkeypatch):
        class Killed(BaseException):
            pass

        def kill(*_):
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(f'cyclegan_jax.{place}', kill)
            two.save(3, make(3), METADATA)
            with pytest.raises(Killed):
                two.wait()
        assert again(two).steps() == [1, 2]
        assert equal(again(two).restore(abstract())[0], make(2))
        assert not (two.directory / '3').exists()

    def test_a_kill_while_the_old_one_goes_leaves_the_new(self, two, monkeypatch):
        class Killed(BaseException):
            pass

        def kill(folders, step):
            (folders.path(step) / 'generators').rmtree()
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr('cyclegan_jax.checkpoint_folders.BucketFolders._remove', kill)
            with pytest.raises(Killed):
                two.save(3, make(3), METADATA)
                two.wait()
        assert again(two).steps() == [1, 3]
        assert equal(again(two).restore(abstract())[0], make(3))
        assert not (two.directory / '2').exists()

    def test_what_goes_before_a_commit_can_forbid_it(self, folder):
        def lost():
            raise UserError('taken by another process')

        checkpoints = Checkpoints(folder / 'checkpoints', before_commit=lost)
        checkpoints.save(1, make(1), METADATA)
        assert 'taken by another process' in message(checkpoints.wait)
        assert checkpoints.steps() == []


def test_a_bucket_that_is_not_there_is_told_in_one_line(bucket):
    told = pytest.raises(UserError, match='gs://nowhere/run cannot be written')
    with told as error, open_workdir('gs://nowhere/run'):
        pass
    assert '\n' not in str(error.value)


def test_a_start_that_fails_leaves_nothing(folder):
    with pytest.raises(UserError, match='typo'), open_workdir(folder):
        raise UserError('a typo')
    assert not folder.exists()


def test_images_are_those_of_a_disk(folder, tmp_path):
    rng = np.random.default_rng(0)
    names = ('trainA/x/2.png', 'trainA/x-y/3.png', 'trainA/1.jpg')  # '-' comes before '/'
    for name in (*names, 'trainA/notes.txt', 'trainA/.hidden.png'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == '.txt':
            path.write_text('no image')
        else:
            Image.fromarray(rng.integers(0, 255, (8, 6, 3), np.uint8)).save(path)
        (folder / name).write_bytes(path.read_bytes())
    there, here = (Folder(str(root), 'trainA', 3) for root in (folder, tmp_path))
    assert there.fingerprint() == here.fingerprint()
    assert there.name(0) == f'{folder}/trainA/1.jpg'
    assert len(there) == len(here) == 3
    for i in range(3):
        np.testing.assert_array_equal(there[i], here[i])
    assert Folder('', str(folder / 'trainA'), 3).fingerprint() == here.fingerprint()
    with pytest.raises(MissingSplit, match='testA'):
        Folder(str(folder), 'testA', 3)


train = functools.partial(
    start,
    log_every=5,
    sample_every=20,
    evaluate_every=20,
    keep_best='psnr_a2b',
    keep_checkpoints=1,
    checkpoint_every=10,
)


def command(*args):
    return subprocess.run(
        [sys.executable, '-m', *map(str, args)],
        cwd=ROOT,
        env={**os.environ, 'JAX_NUM_CPU_DEVICES': '1'},
        capture_output=True,
        text=True,
    )


@pytest.mark.usefixtures('none_is_left')
def test_a_run_lives_in_a_bucket(folder, tmp_path):
    with train(folder) as run:
        read_until(run, 'step 30/')
        with pytest.raises(UserError, match='in use by process'):
            bucket_workdir.Lock(bucket_workdir._store(folder), str(folder)).take()
        run.kill()
    assert run.returncode == -signal.SIGKILL
    killed_at = Checkpoints(folder / 'checkpoints').latest()
    # Step 30 is logged once the writing of 20 has begun, which waits for that of 10 alone.
    assert killed_at >= 10

    # Of a lock that was left behind, the time is all that a start goes by at once.
    says = json.loads((folder / 'run.lock').read_text())
    (folder / 'run.lock').write_text(json.dumps(says | {'time': time.time() - 3600}))
    last = killed_at + 20
    with train(folder, max_steps=last) as run:
        output, errors = run.communicate(timeout=600)
    assert run.returncode == 0, errors
    assert f'Resuming after step {killed_at}' in output
    with train(tmp_path / 'unbroken', max_steps=last) as run:
        _, errors = run.communicate(timeout=600)
    assert run.returncode == 0, errors

    steps = [json.loads(s)['step'] for s in (folder / 'metrics.jsonl').read_text().splitlines()]
    assert steps == sorted(steps) and set(steps) >= {*range(5, last + 1, 5)}
    files = {path.relative_to(folder).parts[0] for path in storage.objects(folder)}
    assert files == {
        *('checkpoints', 'checkpoints.json', 'config.json', 'metrics.jsonl', 'samples'),
        'tensorboard',
    }, 'and no lock'
    assert json.loads((folder / 'config.json').read_text())['max_steps'] == last
    page = (folder / 'samples' / 'index.html').read_text()
    assert 'step_20.png' in page and f'step_{last}.png' in page
    with Image.open(tmp_path / 'unbroken' / 'samples' / 'step_20.png') as sample:
        Image.open((folder / 'samples' / 'step_20.png').open('rb')).load()
        assert sample.size

    broken, unbroken = (
        Checkpoints(where / 'checkpoints') for where in (folder, tmp_path / 'unbroken')
    )
    assert broken.steps() == unbroken.steps()
    assert broken.best() == unbroken.best()
    assert equal(broken.restore_networks(last)[0], unbroken.restore_networks(last)[0])

    # The data, too; what is translated lies on this machine.
    Image.new('RGB', (16, 16), 'brown').save(tmp_path / 'picture.png')
    for step in ('best', last):
        result = command(
            'cyclegan_jax.translate',
            f'--model={folder}',
            f'--step={step}',
            f'--input={tmp_path}/picture.png',
            f'--output={tmp_path}/{step}',
        )
        assert result.returncode == 0, result.stderr
        assert (tmp_path / str(step) / 'picture.png').exists()
    result = command('cyclegan_jax.export', f'--model={folder}', f'--output={tmp_path}/exported')
    assert result.returncode == 0, result.stderr
    Image.open(tmp_path / 'exported' / 'samples.png').load()
    result = command('cyclegan_jax.evaluate', f'--workdir={folder}', '--metrics=swd')
    assert result.returncode == 0, result.stderr
    assert json.loads((folder / 'evaluation' / f'step_{last}.json').read_text())['step'] == last
