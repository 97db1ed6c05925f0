"""What reaches the console, `metrics.jsonl` and TensorBoard, and what a failing write does."""

import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cyclegan_jax import log
from cyclegan_jax.log import MetricWriter


def lines(workdir):
    return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def events(workdir):
    """The TensorBoard events of a workdir, file by file: records are length, crc, event, crc."""
    event = log._tensorboardx().proto.event_pb2.Event
    for path in sorted((workdir / 'tensorboard').iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack('<Q', data[:8])
            yield event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def run_python(code, **kwargs):
    command = [sys.executable, '-c', textwrap.dedent(code)]
    env = os.environ | {'PYTHONPATH': str(Path(log.__file__).parents[1])}
    return subprocess.Popen(command, text=True, env=env, **kwargs)


# Windows of steps


def test_averages_are_the_means_since_they_were_last_taken():
    averages = log.Averages()
    averages.add([{'x': np.float32(v), 'y': np.float32(2 * v)} for v in (1, 2)])
    averages.add([{'x': np.float32(6), 'y': np.float32(12)}])
    assert averages.take() == {'x': 3.0, 'y': 6.0}
    averages.add([{'x': np.float32(5)}])
    assert averages.take() == {'x': 5.0}


def test_averages_go_on_in_another_process_without_loss():
    steps = [{'x': np.float32(v)} for v in np.random.default_rng(0).normal(size=7)]
    whole, first = log.Averages(), log.Averages()
    whole.add(steps)
    first.add(steps[:3])
    second = log.Averages(json.loads(json.dumps(first.sums())))
    second.add(steps[3:])
    assert second.take() == whole.take()


def test_an_average_does_not_hide_a_nan():
    averages = log.Averages()
    averages.add([{'x': np.float32(1)}, {'x': np.float32('nan')}])
    assert np.isnan(averages.take()['x'])


def test_first_non_finite_names_the_step_and_the_term():
    good = {'discriminator/b': jnp.float32(1), 'generator/cycle_a': jnp.float32(1)}
    late = {**good, 'discriminator/b': jnp.float32('nan')}
    both = {'discriminator/b': jnp.float32('nan'), 'generator/cycle_a': jnp.float32('inf')}
    assert log.first_non_finite([good, good], 11) is None
    assert log.first_non_finite([good, late, both], 11) == (12, 'discriminator/b')
    assert log.first_non_finite([good, both], 11) == (12, 'generator/cycle_a')


def test_peak_memory_is_this_process_where_the_device_does_not_count():
    [(name, gib)] = log.peak_memory().items()
    assert name == 'memory/host_peak_gib'
    assert 0.05 < gib < 64


def test_peak_memory_is_the_device_where_it_counts(monkeypatch):
    class Device:
        def memory_stats(self):
            return {'peak_bytes_in_use': 3 * 2**29}

    monkeypatch.setattr(jax, 'local_devices', lambda: [Device()])
    assert log.peak_memory() == {'memory/device_peak_gib': 1.5}


def test_parameter_table_lists_every_leaf_and_the_total():
    kernel = jax.ShapeDtypeStruct((3, 3, 8, 100), jnp.float32)
    table = log.parameter_table({'a2b': {'conv': {'kernel': kernel, 'bias': jnp.zeros(100)}}})
    assert 'a2b/conv/kernel' in table
    assert 'a2b/conv/bias' in table
    assert 'Total: 7,300 -- 29,200 bytes' in table


# Console


def test_format_line():
    scalars = {  # sorted by name, as jit returns them
        'discriminator/a': 0.25,
        'discriminator/b': 0.5,
        'generator/adversarial_a2b': 0.75,
        'generator/cycle_a': 1.5,
        'generator/identity_a': 0.125,
        'generator/total': 2.375,
        'gradient_norm/a2b': 99.0,
        'score/real_a': 0.9,
    }
    line = log.format_line(
        scalars,
        step=300,
        total_steps=1200,
        epoch=3,
        num_epochs=200,
        learning_rate=2e-4,
        images_per_second=12.34,
        input_share=0.004,
        seconds_left=5025.4,
    )
    assert line == (
        'epoch 3/200  step 300/1200 (25%)  G 2.375  G_a2b 0.750  cycle_a 1.500  idt_a 0.125  '
        'D_a 0.250  D_b 0.500  lr 2.0e-04  12.3 img/s  input 0.4%  eta 1:23:45'
    )


CONSOLE = """
    from cyclegan_jax.log import Progress
    progress = Progress(1000)
    for step in range(1, 1001):
        progress.update(step)
        if step % 10 == 0:
            progress.log(f'line of step {step} ' + '.' * 1000)  # more than a pipe can hold
    progress.close()
    print('more')
    open('finished', 'w').close()
"""


def test_a_log_file_gets_plain_lines(tmp_path):
    with (tmp_path / 'log').open('w') as log:
        assert run_python(CONSOLE, stdout=log, stderr=log, cwd=tmp_path).wait(60) == 0
    text = (tmp_path / 'log').read_text()
    assert '\r' not in text
    assert text.count('line of step') == text.count('\n') - 1 == 100


def test_a_reader_that_leaves_does_not_end_the_training(tmp_path):
    pipe = subprocess.PIPE
    with run_python(CONSOLE, stdout=pipe, stderr=pipe, cwd=tmp_path) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ''
    assert process.returncode == 0
    assert (tmp_path / 'finished').exists()


@pytest.mark.parametrize('columns', [0, 80])
def test_a_terminal_gets_a_bar_below_the_lines(tmp_path, columns):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('HHHH', 24, columns, 0, 0))
    code = """
        from cyclegan_jax.log import Progress
        Progress(7, active=False).close()  # another process of a pod
        progress = Progress(40, start=10)
        progress.update(20)
        progress.log('a line')
        progress.update(40)
        progress.close()
    """
    process = run_python(code, stdout=theirs, stderr=theirs, cwd=tmp_path)
    os.close(theirs)
    assert process.wait(60) == 0
    screen = os.read(ours, 100_000).decode()
    os.close(ours)
    assert '\ra line\r\n' in screen  # at the line's start, once the bar is cleared
    assert '0/7' not in screen
    assert '10/40' in screen
    assert '40/40' in screen


def test_another_process_of_a_pod_prints_nothing(capfd):
    progress = log.Progress(10, active=False)
    progress.update(1)
    progress.log('a line')
    progress.close()
    assert capfd.readouterr() == ('', '')


# Files


def test_scalars_are_one_json_line_a_step(tmp_path):
    writer = MetricWriter(tmp_path / 'new' / 'run')
    writer.scalars(10, {'generator/total': 1.5, 'speed': np.float32(2)})
    # On disk at once, not at close.
    assert lines(tmp_path / 'new' / 'run') == [{'step': 10, 'generator/total': 1.5, 'speed': 2.0}]
    writer.close()


def test_non_finite_values_are_null(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.scalars(1, {'a': float('nan'), 'b': float('-inf'), 'c': 1.0})
    writer.close()
    assert lines(tmp_path) == [{'step': 1, 'a': None, 'b': None, 'c': 1.0}]


def test_tensorboard_gets_the_same_scalars_and_the_images(tmp_path):
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    writer = MetricWriter(tmp_path)
    writer.scalars(10, {'generator/total': 1.5, 'generator/cycle_a': 0.25})
    writer.images(10, {'samples/test': pixels})
    values = {
        (event.step, value.tag): value
        for event in events(tmp_path)
        for value in event.summary.value
    }
    assert values[10, 'generator/total'].simple_value == 1.5
    assert values[10, 'generator/cycle_a'].simple_value == 0.25
    png = values[10, 'samples/test'].image.encoded_image_string
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), pixels)
    writer.close()


def test_resume_drops_what_will_be_written_again(tmp_path):
    first = MetricWriter(tmp_path)
    for step in (10, 20, 30, 40):
        first.scalars(step, {'x': step})
    first.close()
    second = MetricWriter(tmp_path, resume_step=20)
    second.scalars(30, {'x': -1})
    second.close()
    assert [(line['step'], line['x']) for line in lines(tmp_path)] == [(10, 10), (20, 20), (30, -1)]
    # TensorBoard forgets events of an earlier file from the step of a session's start on.
    starts = [event.step for event in events(tmp_path) if event.HasField('session_log')]
    assert starts == [1, 21]


def test_resume_keeps_the_old_lines_if_it_dies_while_rewriting(tmp_path, monkeypatch):
    first = MetricWriter(tmp_path)
    first.scalars(10, {'x': 10})
    first.close()
    monkeypatch.setattr(Path, 'replace', lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        MetricWriter(tmp_path, resume_step=0)
    assert lines(tmp_path) == [{'step': 10, 'x': 10.0}]


@pytest.mark.parametrize(
    'torn', [b'{"step": 20, "x": 2', b'{"step": 20, "x": 2.0}\0\0\0', b'\xff\xfe']
)
def test_a_torn_last_line_is_passed_over(tmp_path, torn):
    whole = b'{"step": 10, "x": 1.0}\n'
    (tmp_path / 'metrics.jsonl').write_bytes(whole + torn)
    assert log.read_metrics(tmp_path) == [{'step': 10, 'x': 1.0}]
    writer = MetricWriter(tmp_path, resume_step=20)
    writer.scalars(30, {'x': 3})
    writer.close()
    assert [line['step'] for line in lines(tmp_path)] == [10, 30]


def test_read_metrics_of_a_new_workdir(tmp_path):
    assert log.read_metrics(tmp_path) == []


def test_another_process_of_a_pod_writes_nothing(tmp_path):
    writer = MetricWriter(tmp_path / 'run', active=False)
    writer.scalars(1, {'x': 1.0})
    writer.images(1, {'x': np.zeros((4, 4, 3), np.uint8)})
    writer.close()
    assert list(tmp_path.iterdir()) == []


def test_a_tensorboard_that_fails_is_one_warning(tmp_path, caplog):
    (tmp_path / 'tensorboard').write_text('a file where the folder should be')
    writer = MetricWriter(tmp_path)
    for step in (1, 2, 3):
        writer.scalars(step, {'x': 1.0})
        writer.images(step, {'x': np.zeros((4, 4, 3), np.uint8)})
    writer.close()
    assert [line['step'] for line in lines(tmp_path)] == [1, 2, 3]
    [record] = caplog.records
    assert str(tmp_path / 'tensorboard') in record.getMessage()
    assert 'training goes on' in record.getMessage()


FULL_DISK = Path('/dev/full')


@pytest.mark.skipif(not FULL_DISK.exists(), reason='needs the device that is always full')
def test_a_disk_full_for_tensorboard_neither_stops_nor_hangs_training(
    tmp_path, monkeypatch, caplog
):
    record_writer = log._tensorboardx().record_writer
    with FULL_DISK.open('wb', buffering=0) as file:
        monkeypatch.setattr(record_writer, 'open_file', lambda _: file)
        writer = MetricWriter(tmp_path)
        for step in range(30):
            writer.scalars(step, {'x': 1.0})
        writer.close()
    assert len(lines(tmp_path)) == 30
    [record] = caplog.records
    assert 'No space left' in record.getMessage()


@pytest.mark.skipif(not FULL_DISK.exists(), reason='needs the device that is always full')
def test_lines_come_back_once_the_disk_has_room(tmp_path, caplog):
    writer = MetricWriter(tmp_path)
    (tmp_path / 'metrics.jsonl').unlink()
    (tmp_path / 'metrics.jsonl').symlink_to(FULL_DISK)
    writer.scalars(1, {'x': 1.0})
    writer.scalars(2, {'x': 1.0})
    [record] = caplog.records
    assert f'{tmp_path}/metrics.jsonl' in record.getMessage()
    (tmp_path / 'metrics.jsonl').unlink()
    writer.scalars(3, {'x': 1.0})
    writer.close()
    assert [line['step'] for line in lines(tmp_path)] == [3]


def test_the_log_never_imports_what_it_does_not_use(tmp_path):
    code = """
        import sys
        from cyclegan_jax.log import MetricWriter
        writer = MetricWriter('.')
        writer.scalars(1, {'x': 1.0})
        writer.close()
        assert 'tensorboardX' in sys.modules
        assert not {'torch', 'tensorflow', 'google.cloud.storage'} & set(sys.modules)
    """
    assert run_python(code, cwd=tmp_path).wait(60) == 0
