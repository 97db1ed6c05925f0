"""Checkpoints that were damaged, or could not be written, never cost the others."""

import errno
import hashlib
import resource
import shutil
import tempfile
import time

import jax
import pytest
from checkpoint_state import METADATA, abstract, equal, make, message

from cyclegan_jax import checkpoint, checkpoint_format, manifest
from cyclegan_jax.checkpoint import CheckpointError, Checkpoints


def biggest_file(path):
    return max((p for p in path.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)


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


def zero(path):
    """As a journal that is replayed leaves files that were never flushed."""
    for file in path.rglob('*'):
        if file.is_file():
            file.write_bytes(b'')


DAMAGES = {
    'bit flip': flip,
    'truncated': truncate,
    'file gone': lambda path: biggest_file(path).unlink(),
    'part gone': lambda path: shutil.rmtree(path / 'generators'),
    'empty': empty,
    'all files of 0 bytes': zero,
    'sums garbled': lambda path: (path / 'SHA256SUMS').write_bytes(b'\xff\x00\n'),
    'sums of 0 bytes': lambda path: (path / 'SHA256SUMS').write_bytes(b''),
    'part of the sums': lambda path: truncate_to(path / 'SHA256SUMS', 100),
}


def truncate_to(file, size):
    file.write_bytes(file.read_bytes()[:size])


def garble(name):
    def damage(path):
        for file in path.rglob(name):
            file.write_bytes(b'{' + file.read_bytes()[1::2])

    return damage


# What a process of version 0.1.0 could leave that died before it wrote the sums.
WITHOUT_SUMS = {name: DAMAGES[name] for name in ('truncated', 'file gone', 'part gone')} | {
    'all files of 0 bytes': zero,
    '_METADATA': garble('_METADATA'),
    '_sharding': garble('_sharding'),
    'manifest.ocdbt': garble('manifest.ocdbt'),
    'no array_metadatas': lambda path: [shutil.rmtree(p) for p in path.rglob('array_metadatas')],
}


def without_sums(checkpoints, step):
    (checkpoints.directory / str(step) / 'SHA256SUMS').unlink()


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

    @pytest.mark.parametrize('damage', [flip, *WITHOUT_SUMS.values()], ids=['flip', *WITHOUT_SUMS])
    def test_what_cannot_be_verified_is_not_used_where_another_can(self, two, damage):
        without_sums(two, 2)
        damage(two.directory / '2')
        assert two.newest_sound() == 1
        restored, _, step = two.restore(abstract())
        assert step == 1
        assert equal(restored, make(1))
        assert two.steps() == [1]
        assert (two.directory / '2.damaged').is_dir()

    @pytest.mark.parametrize('damage', WITHOUT_SUMS.values(), ids=WITHOUT_SUMS)
    def test_where_none_can_be_verified_the_newest_that_can_be_read_is_used(self, two, damage):
        for step in (1, 2):
            without_sums(two, step)
        damage(two.directory / '2')
        assert two.newest_sound() == 1
        assert two.restore(abstract())[2] == 1
        assert (two.directory / '2.damaged').is_dir()

    def test_a_checkpoint_without_sums_is_used_where_it_is_alone(self, two, caplog):
        for step in (1, 2):
            without_sums(two, step)
        assert two.restore_networks()[2] == 2
        restored, _, step = two.restore(abstract())
        assert step == 2
        assert equal(restored, make(2))
        assert 'cannot be verified' in caplog.text
        assert two.steps() == [1, 2]

    def test_the_newest_is_verified_once(self, two, monkeypatch):
        hashed = []
        verify = manifest.first_damaged
        monkeypatch.setattr(manifest, 'first_damaged', lambda p: hashed.append(p.name) or verify(p))
        assert two.newest_good() == 2
        assert two.restore(abstract())[2] == 2
        assert hashed == ['2']
        assert two.newest_sound() == 2
        assert two.restore_networks(2)[2] == 2
        assert hashed == ['2', '2']

    def test_what_a_start_asks_of_the_newest_is_read_once(self, two, monkeypatch):
        read, inspect = [], checkpoint_format.inspect
        monkeypatch.setattr(
            checkpoint_format, 'inspect', lambda p: read.append(p.name) or inspect(p)
        )
        step = two.newest_good()
        assert two.metadata(step)['saved_at'] == 2
        assert two.best_record() is None
        assert two.restore(abstract())[1]['saved_at'] == 2
        assert read == ['2']
        (two.directory / '2' / '_CHECKPOINT_METADATA').write_text('')  # nor is it believed for ever
        assert two.restore(abstract())[2] == 1

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

    def test_a_file_that_may_not_be_read_is_not_blamed_either(self, two, monkeypatch):
        def fail(_):
            raise OSError(errno.EMFILE, 'Too many open files')

        monkeypatch.setattr(manifest, '_sha256', fail)
        assert 'Too many open files' in message(two.restore, abstract())
        assert two.steps() == [1, 2]

    @pytest.mark.parametrize('gone', ['folders', 'all'])
    def test_a_run_whose_checkpoints_are_gone_does_not_start_from_scratch(self, two, gone):
        if gone == 'all':
            shutil.rmtree(two.directory)
        else:
            for step in (1, 2):
                shutil.rmtree(two.directory / str(step))
        for _ in range(2):
            text = message(two.newest_good)
            assert 'has no checkpoint, but' in text
            assert 'checkpoints.json says that there were some' in text
        (two.directory.parent / 'checkpoints.json').unlink()
        assert two.newest_good() is None


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
        # Not 3 again: other threads of orbax may still be writing to what is left of it.
        two.save(4, make(4), METADATA)
        two.wait()
        assert equal(two.restore(abstract())[0], make(4))

    def test_is_noticed_without_waiting(self, two, small_files):
        two.save(3, make(3), METADATA)
        two.check()  # not done, or an error of this test
        for _ in range(1000):
            time.sleep(0.01)
            try:
                two.check()
            except CheckpointError as error:
                assert 'checkpoint 3 could not be written' in str(error)
                break
        else:
            pytest.fail('the failure was never told')
        two.check()  # it is told once

    def test_a_disk_without_room_is_not_begun_to_fill(self, two, monkeypatch):
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(make()))
        usage = shutil.disk_usage(two.directory)
        monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage._replace(free=size - 4000))
        text = message(two.save, 3, make(3), METADATA)
        assert f'it takes {size / 1e6:.3f} MB, and {(size - 4000) / 1e6:.3f} MB are free' in text
        assert sorted(path.name for path in two.directory.iterdir()) == ['1', '2']
        monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage._replace(free=size))
        two.save(3, make(3), METADATA)
        two.wait()
        assert two.steps() == [1, 2, 3]

    def test_nor_one_that_takes_few_more_files(self, two, monkeypatch):
        monkeypatch.setattr('cyclegan_jax.checkpoint.free', lambda _: (10**9, 20))
        assert 'only 20 more files can be made there' in message(two.save, 3, make(3), METADATA)
        assert sorted(path.name for path in two.directory.iterdir()) == ['1', '2']

    def test_a_checkpoint_has_no_more_files_than_are_asked_for(self, two):
        assert len(list((two.directory / '2').rglob('*'))) < checkpoint._MOST_FILES

    @pytest.mark.parametrize('kind', ['file', 'dangling link', 'not to be written'])
    def test_a_directory_that_cannot_be_used_is_told_at_the_start(
        self, tmp_path, kind, monkeypatch
    ):
        directory = tmp_path / 'checkpoints'
        if kind == 'file':
            directory.touch()
            reason = 'Not a directory'
        elif kind == 'dangling link':
            directory.symlink_to(tmp_path / 'unmounted')
            reason = f'(a link to {tmp_path}/unmounted) cannot be written: No such file'
        else:
            directory.mkdir()
            reason = 'Read-only file system'
            # Root may write where others may not.
            monkeypatch.setattr(tempfile, 'TemporaryFile', read_only)
        assert reason in message(Checkpoints(directory).newest_good)

    def test_a_directory_that_cannot_be_made(self, tmp_path):
        (tmp_path / 'checkpoints').touch()
        text = message(Checkpoints(tmp_path / 'checkpoints').save, 1, make(), METADATA)
        assert 'File exists' in text


def read_only(dir):
    raise OSError(errno.EROFS, 'Read-only file system', str(dir))
