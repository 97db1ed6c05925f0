"""Runs in a bucket: which paths are taken, the lock, and a whole life against an emulator."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tensorstore

from cyclegan_jax import bucket, storage
from cyclegan_jax.errors import UserError
from cyclegan_jax.storage import as_path

ROOT = Path(__file__).parents[1]


class TestPath:
    @pytest.mark.parametrize('name', ['runs/x', '/data', 'C:/data', './odd:/x', '~/x'])
    def test_those_of_this_machine_stay_as_they_are(self, name):
        assert as_path(name) == Path(name)
        assert not storage.in_bucket(as_path(name))

    def test_one_of_a_bucket_goes_where_its_parts_say(self):
        path = as_path('gs://some/run')
        assert storage.in_bucket(path) and storage.in_bucket(path / 'x')
        assert str(path / 'checkpoints' / '3') == 'gs://some/run/checkpoints/3'
        assert as_path(path) == path == storage.absolute(path)

    @pytest.mark.parametrize(
        ('name', 'said'),
        [
            ('s3://bucket/run', 'mount other storage'),
            ('hdfs://host/run', 'mount other storage'),
            ('file:///run', 'mount other storage'),
            ('gcs://bucket/run', 'gs://BUCKET/FOLDER'),
            ('gs:/bucket/run', 'gs://BUCKET/FOLDER'),
            ('gs:///run', 'gs://BUCKET/FOLDER'),
            ('GS://bucket/run', 'gs://BUCKET/FOLDER'),
        ],
    )
    def test_other_storage_is_refused_with_what_to_do(self, name, said):
        with pytest.raises(UserError) as error:
            as_path(name, '--workdir')
        assert f'--workdir is {name}' in str(error.value) and said in str(error.value)

    def test_without_gcsfs_it_is_said_what_to_install(self, monkeypatch):
        monkeypatch.setattr('importlib.util.find_spec', lambda _: None)
        with pytest.raises(UserError, match=r"pip install 'cyclegan_jax\[gcs\]'"):
            as_path('gs://bucket/run')

    @pytest.mark.parametrize(
        ('module', 'flags', 'status'),
        [
            ('main', ['--config=configs/synthetic.py', '--workdir=s3://b/x'], 1),
            (
                'main',
                [
                    '--config=configs/horse2zebra.py',
                    '--workdir=x',
                    '--config.data.path=hdfs://b/x',
                ],
                1,
            ),
            ('cyclegan_jax.translate', ['--model=s3://b/x', '--input=x', '--output=y'], 2),
            ('cyclegan_jax.translate', ['--model=x', '--input=gs://b/x', '--output=y'], 2),
            ('cyclegan_jax.evaluate', ['--workdir=gs:/b/x'], 2),
            ('cyclegan_jax.export', ['--model=x', '--output=gs://b/x'], 2),
        ],
    )
    def test_commands_refuse_it_before_they_import_jax(self, module, flags, status):
        code = f'import sys; sys.modules["jax"] = None; import runpy; sys.argv = {["x", *flags]};'
        code += f'runpy.run_module({module!r}, run_name="__main__")'
        result = subprocess.run(
            [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True
        )
        assert result.returncode == status, result.stderr
        assert '://' in result.stderr.splitlines()[-1]
        assert 'Traceback' not in result.stderr


@pytest.fixture
def store(monkeypatch):
    """In memory; there, two seconds are minutes."""
    monkeypatch.setattr(bucket, '_RUNS_OUT', 0.5)
    return tensorstore.KvStore.open('memory://').result()


def lock_in(store):
    return bucket.Lock(store, 'gs://b/run')


class TestLock:
    def test_names_its_holder_and_ends_with_it(self, store):
        lock = lock_in(store)
        lock.take()
        says = json.loads(store['run.lock'])
        assert says.keys() == {'process', 'host', 'time', 'id'}
        assert abs(says['time'] - time.time()) < 60
        lock.release()
        assert store.list().result() == []

    def test_one_that_is_renewed_is_respected(self, store):
        one = lock_in(store)
        one.take()
        with bucket.repeated(one.renew, 0.05), pytest.raises(UserError) as error:
            lock_in(store).take()
        assert 'gs://b/run is in use by process' in str(error.value)
        one.check()

    def test_one_that_is_not_runs_out_and_its_holder_is_told(self, store, caplog):
        dead, new = lock_in(store), lock_in(store)
        dead.take()
        new.take()
        assert 'waiting up to' in caplog.text
        dead.renew()
        with pytest.raises(UserError, match='taken by another process'):
            dead.check()
        dead.release()  # not that of the other
        new.renew()
        new.check()

    def test_an_old_one_is_not_watched(self, store, monkeypatch):
        monkeypatch.setattr(bucket, '_RUNS_OUT', 1e9)
        store['run.lock'] = json.dumps({'time': time.time() - 3600}).encode()
        lock_in(store).take()
        store['run.lock'] = b'no JSON'
        lock_in(store).take()

    def test_of_two_that_find_it_free_one_gets_it(self, store, monkeypatch):
        read, gate = bucket.Lock._read, threading.Barrier(2)

        def together(self):
            found = read(self)
            if found.state == 'missing':
                gate.wait(10)
            return found

        monkeypatch.setattr(bucket.Lock, '_read', together)
        outcomes = []

        def take():
            try:
                lock_in(store).take()
                outcomes.append('taken')
            except UserError as error:
                outcomes.append(str(error))

        threads = [threading.Thread(target=take) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum('in use by' in outcome for outcome in outcomes) == 1
        assert outcomes.count('taken') == 1

    def test_one_that_was_removed_is_lost(self, store):
        lock = lock_in(store)
        lock.take()
        del store['run.lock']
        lock.renew()
        assert lock.lost

    def test_a_renewal_whose_answer_was_lost_counts(self, store, monkeypatch):
        lock = lock_in(store)
        lock.take()
        known = lock._generation
        lock.renew()
        lock._generation = known
        lock.renew()
        lock.check()

    def test_a_network_that_fails_for_a_moment_is_a_warning(self, store, monkeypatch, caplog):
        lock = lock_in(store)
        lock.take()
        with monkeypatch.context() as patch:
            patch.setattr(lock, '_store', None)
            lock.renew()
        assert 'could not be renewed' in caplog.text
        lock.renew()
        lock.check()


class TestCopies:
    """On a disk in place of a bucket: only the target's `write_bytes` is asked for."""

    def test_what_changes_is_copied_and_nothing_else(self, tmp_path, monkeypatch):
        files, target = tmp_path / 'files', tmp_path / 'bucket'
        (files / 'samples').mkdir(parents=True)
        (target / 'samples').mkdir(parents=True)
        copies = bucket.Copies(files, target)
        (files / 'metrics.jsonl').write_text('1\n')
        (files / 'samples' / 'step_1.png').write_bytes(b'png')
        (files / '.half.tmp').touch()
        assert copies.update()
        assert (target / 'samples' / 'step_1.png').read_bytes() == b'png'
        assert not (target / '.half.tmp').exists()
        (target / 'samples' / 'step_1.png').unlink()
        with (files / 'metrics.jsonl').open('a') as file:
            file.write('2\n')
        assert copies.update()
        assert (target / 'metrics.jsonl').read_text() == '1\n2\n'
        assert not (target / 'samples' / 'step_1.png').exists(), 'it had not changed'
        (files / 'large').write_bytes(bytes(100))
        assert copies.update(below=100) and not (target / 'large').exists()
        assert copies.update() and (target / 'large').exists()

    def test_a_failure_is_one_warning_and_made_good_later(self, tmp_path, caplog):
        files, target = tmp_path / 'files', tmp_path / 'bucket'
        files.mkdir()
        (files / 'config.json').write_text('{}')
        copies = bucket.Copies(files, target)
        assert not copies.update() and not copies.update()
        assert caplog.text.count('Could not copy') == 1
        target.mkdir()
        assert copies.update()
        assert (target / 'config.json').read_text() == '{}'

    def test_a_run_that_goes_on_has_its_log_and_the_names_of_its_samples(self, tmp_path):
        files, target = tmp_path / 'files', tmp_path / 'bucket'
        files.mkdir()
        (target / 'samples').mkdir(parents=True)
        (target / 'metrics.jsonl').write_text('{"step": 1}\n')
        (target / 'samples' / 'step_1.png').write_bytes(b'png')
        copies = bucket.Copies(files, target)
        copies.fetch()
        assert (files / 'metrics.jsonl').read_text() == '{"step": 1}\n'
        assert (files / 'samples' / 'step_1.png').exists()
        assert copies.update()
        assert (target / 'samples' / 'step_1.png').read_bytes() == b'png', 'only its name is here'
