"""In which order a checkpoint comes and an older one goes, and what a kill in between leaves."""

import os
import shutil
from pathlib import Path

import pytest
from checkpoint_state import METADATA, abstract, equal, make, message

from cyclegan_jax import checkpoint, checkpoint_folders, checkpoint_format, manifest
from cyclegan_jax.checkpoint import Checkpoints


def save(checkpoints, step, value=None):
    """As the best so far, if it has a value."""
    best = None if value is None else {'score': 'psnr_a2b', 'value': value}
    checkpoints.save(step, make(step), METADATA | {'saved_at': step}, best)


@pytest.fixture
def one(tmp_path):
    """A checkpoint at step 1, which is the best; one is kept beside the best."""
    checkpoints = Checkpoints(tmp_path / 'checkpoints', keep=1)
    save(checkpoints, 1, value=10.0)
    checkpoints.wait()
    yield checkpoints
    checkpoints._worker.shutdown()


class TestOrder:
    def test_each_step_is_on_the_disk_before_the_next(self, one, monkeypatch):
        """A file system may lose what was not flushed, also the list of names in a folder."""
        new, old = one.directory / '2', one.directory / '1'
        flushed, done = set(), []
        fsync, rename, rmtree = os.fsync, Path.rename, shutil.rmtree

        def record_flush(handle):
            flushed.add(os.fstat(handle).st_ino)
            fsync(handle)

        def is_flushed(path):
            return path.stat().st_ino in flushed

        def record_rename(path, target):
            if target == new:
                assert (path / 'SHA256SUMS').exists()
                assert all(map(is_flushed, [path, *path.rglob('*')]))
                flushed.clear()
                done.append('renamed')
            if path == old:
                assert done == ['renamed']
                assert is_flushed(new.parent)
                assert is_flushed(new.parent.parent / 'checkpoints.json')
                done.append('given up')
            return rename(path, target)

        def record_rmtree(path, **kwargs):
            if not old.exists():
                done.append('deleted')
            return rmtree(path, **kwargs)

        monkeypatch.setattr(os, 'fsync', record_flush)
        monkeypatch.setattr(Path, 'rename', record_rename)
        monkeypatch.setattr(shutil, 'rmtree', record_rmtree)
        save(one, 2, value=20.0)
        one.wait()
        assert done == ['renamed', 'given up', 'deleted']
        assert one.steps() == [2]


class Killed(BaseException):
    """Passes where an error would be told."""


def half_written(checkpoints, step, size, wait):
    wait()
    unfinished = checkpoints.directory / f'{step}.tmp'
    shutil.rmtree(unfinished / 'training')
    unfinished.rename(unfinished.with_suffix('.tmp.orbax-checkpoint-tmp'))
    return True


# Where step 3 replaces step 2: what is called there, for which arguments, and whether 3 is there.
KILLS = {
    'while orbax writes': (Checkpoints, '_finish', half_written, False),
    'before the sums': (manifest, 'seal', lambda _: True, False),
    'before the rename': (Path, 'rename', lambda path, target: path.name == '3.tmp', False),
    'after the rename': (checkpoint_folders, 'flush', lambda _: True, True),
    'before the note': (checkpoint, 'write_json', lambda *_: True, True),
    'before the old one goes': (Path, 'rename', lambda path, target: path.name == '2', True),
    'while the old one goes': (shutil, 'rmtree', lambda path: Path(path).name == '2.tmp', True),
}


class TestKill:
    @pytest.mark.parametrize('new_is_best', [True, False])
    @pytest.mark.parametrize('place', KILLS)
    def test_leaves_the_old_or_the_new_and_knows_the_best(
        self, one, place, new_is_best, monkeypatch
    ):
        save(one, 2)
        one.wait()
        owner, name, here, new_is_there = KILLS[place]
        call = getattr(owner, name)

        def killed(*args, **kwargs):
            if here(*args):
                raise Killed
            return call(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, killed)
            save(one, 3, value=20.0 if new_is_best else None)
            with pytest.raises(Killed):
                one.wait()

        again = Checkpoints(one.directory, keep=1)
        assert again.newest_good() == (3 if new_is_there else 2)
        record = again.best_record()
        if new_is_there and new_is_best:
            assert record == {'step': 3, 'score': 'psnr_a2b', 'value': 20.0}
        else:
            assert record == {'step': 1, 'score': 'psnr_a2b', 'value': 10.0}
        assert again.best() == record['step']
        assert equal(again.restore_networks(again.best())[0], make(record['step']).generators)
        restored, metadata, step = again.restore(abstract())
        assert equal(restored, make(step))
        assert metadata == METADATA | {'saved_at': step}
        assert not list(one.directory.glob('*tmp*'))
        # The next save keeps what this one should have kept.
        save(again, 4)
        again.close()
        assert again.steps() == [record['step'], 4]
        assert again.best_record() == record


class TestBest:
    def test_the_best_stays_until_a_better_one(self, one):
        for step in (2, 3):
            save(one, step)
        one.wait()
        assert one.steps() == [1, 3]
        assert one.best() == 1
        save(one, 4, value=20.0)
        one.wait()
        assert one.steps() == [4]
        assert one.best_record() == {'step': 4, 'score': 'psnr_a2b', 'value': 20.0}

    def test_one_that_was_deleted_is_forgotten(self, one):
        save(one, 2)
        one.wait()
        shutil.rmtree(one.directory / '1')
        assert one.best_record() is None
        assert 'has no best checkpoint' in message(one.best)
        save(one, 3)
        one.wait()
        assert one.steps() == [3]

    def test_a_damaged_newest_takes_its_record_with_it(self, one):
        save(one, 2)
        one.wait()
        one._keep = 2
        save(one, 3, value=20.0)
        one.wait()
        assert one.steps() == [2, 3]
        (one.directory / '3' / '_CHECKPOINT_METADATA').write_text('')
        assert 'has no best checkpoint' in message(one.best)  # of step 1, which is gone
        assert one.newest_good() == 2
        assert one.best_record() is None

    def test_that_of_the_one_before_serves_if_the_newest_is_damaged_since(self, one):
        save(one, 2)
        one.wait()
        (one.directory / '2' / '_CHECKPOINT_METADATA').write_text('')
        save(one, 3)
        one.wait()
        assert one.best() == 1


class TestDeletedWhileRead:
    """The run may delete a checkpoint at any time of its reading."""

    def while_reading(self, checkpoints, monkeypatch, change):
        load, calls = checkpoint_format.load_networks, []

        def changed(saved, *args):
            if not calls:
                change()
            calls.append(saved.path.name)
            return load(saved, *args)

        monkeypatch.setattr(checkpoint_format, 'load_networks', changed)
        return checkpoints.restore_networks()[2], calls

    def test_the_one_before_is_read(self, two, monkeypatch, caplog):
        step, calls = self.while_reading(
            two, monkeypatch, lambda: shutil.rmtree(two.directory / '2')
        )
        assert (step, calls) == (1, ['2', '1'])
        assert caplog.text == ''  # nothing was damaged

    def test_or_one_that_has_come_since(self, two, monkeypatch):
        def run_goes_on():
            shutil.rmtree(two.directory / '1')
            (two.directory / '2').rename(two.directory / '3')

        assert self.while_reading(two, monkeypatch, run_goes_on) == (3, ['2', '3'])

    def test_also_if_it_goes_before_it_is_verified(self, two, monkeypatch):
        verify = manifest.first_damaged

        def go(path):
            if path.name == '2':
                shutil.rmtree(path)
            return verify(path)

        monkeypatch.setattr(manifest, 'first_damaged', go)
        assert two.restore_networks()[2] == 1
