"""Checkpoints that were damaged, or could not be written, never cost the others."""

import hashlib
import resource
import shutil

import jax
import pytest
from checkpoint_state import METADATA, abstract, equal, make, message

from cyclegan_jax.checkpoint import Checkpoints


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
