"""The benchmarks answer, measure what they say, and the table shows what was measured."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(
    str(path.relative_to(ROOT / 'benchmarks'))
    for path in (ROOT / 'benchmarks').rglob('*.py')
    if '__main__' in path.read_text()
)
TINY = ('--size=32', '--width=8', '--blocks=1', '--repeats=2')

sys.path.append(str(ROOT / 'benchmarks'))
import table  # noqa: E402
import tiles  # noqa: E402


def run(script, *arguments):
    command = [sys.executable, str(ROOT / 'benchmarks' / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def measured(script, *arguments, folder):
    """Runs a benchmark; its exit status, the document that it saved, and its stderr."""
    path = folder / 'results.json'
    done = run(script, *TINY, *arguments, f'--json={path}')
    assert path.exists(), done.stderr
    return done.returncode, json.loads(path.read_text()), done.stderr


def check(side):
    low, high = side['step_seconds_quartiles']
    assert 0 < low <= side['step_seconds'] <= high < 60
    assert len(side['turns']) == 2
    assert side['images_per_second'] == pytest.approx(side['images'] / side['step_seconds'])
    assert side['share_of_matrix_rate'] > 0
    assert 2**26 < side['peak_memory_bytes'] < 2**34
    assert side['first_step_seconds'] > 0
    assert side['platform'] == 'cpu'


@pytest.mark.parametrize('script', SCRIPTS)
def test_help(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', [script, '--help'])
    monkeypatch.syspath_prepend((ROOT / 'benchmarks' / script).parent)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / 'benchmarks' / script), run_name='__main__')
    assert end.value.code in (None, 0)
    assert f'benchmarks/{script}' in capsys.readouterr().out  # the docstring has the command


def test_a_mistake_is_told():
    done = run('compare.py', '--mode=eager,fast')
    assert done.returncode == 2
    assert "--mode: 'fast' is neither eager nor of autocast" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_train_step_goes_on_after_a_failure(tmp_path):
    status, document, stderr = measured(
        'train_step.py', '--batch=1,2', '--devices=2', folder=tmp_path
    )
    assert status == 1
    failed, done = (result['sides']['cyclegan_jax'] for result in document['results'])
    assert f'cyclegan_jax: {failed["error"]}' in stderr.splitlines()
    assert 'batch_size is 1, which 2 devices cannot share' in failed['error']
    check(done)
    assert done['images'] == 2
    assert done['compile_seconds'] > 0
    planned = done['planned_bytes']
    assert planned['alias'] > 0.9 * planned['output']  # the state is written over, not copied


def test_a_file_that_cannot_be_written_is_told_before_measuring(tmp_path):
    done = run('train_step.py', f'--json={tmp_path}/nowhere/x.json')
    assert done.returncode == 2
    assert 'cannot be written; name a file in a folder' in done.stderr


@pytest.mark.slow
def test_start_up(tmp_path):
    """It reads the console of main.py."""
    fields = ('generator.width=4', 'generator.num_blocks=1', 'discriminator.width=4')
    fields += ('batch_size=8', 'data.max_images=16', 'evaluate_every=0', 'keep_best=')
    sizes = [f'--config.{field}' for field in fields]
    file = tmp_path / 'start_up.json'
    done = run('start_up.py', '--repeats=1', f'--json={file}', *sizes)
    assert done.returncode == 0, done.stderr
    _, cold, warm = json.loads(file.read_text())['results']
    for start in cold, warm:
        assert 0 < start['described'] < start['compiled'] < start['first_step'] < start['end']


@pytest.mark.slow
@pytest.mark.parametrize('what', ['train_step', 'translate'])
def test_compare(what, tmp_path):
    pytest.importorskip('torch')
    modes = '--mode=eager,channels_last+autocast'
    status, document, stderr = measured('compare.py', f'--what={what}', modes, folder=tmp_path)
    assert status == 0, stderr
    assert document['command'].startswith(f'python benchmarks/compare.py {TINY[0]}')
    [result] = document['results']
    ours, *peers = sides = result['sides'].values()
    for side in sides:
        check(side)
        assert side['flops'] == ours['flops']  # counted by each side for itself
    assert list(result['ratios']) == list(result['sides'])[1:]
    for ratio, peer in zip(result['ratios'].values(), peers, strict=True):
        turns = [theirs / our for theirs, our in zip(peer['turns'], ours['turns'], strict=True)]
        assert ratio['median'] == pytest.approx(sum(turns) / 2)
    if what == 'translate':
        assert result['largest_difference']['PyTorch eager'] < 1e-5
    assert 'autocast' in table.render({'x.json': document})


@pytest.mark.slow
def test_translate_takes_turns_with_other_runtimes(tmp_path):
    pytest.importorskip('onnxruntime')
    flags = '--runtime=jax,onnxruntime', '--mode='
    status, document, stderr = measured('translate.py', *flags, folder=tmp_path)
    assert status == 0, stderr
    [result] = document['results']
    names = ['cyclegan_jax', 'cyclegan_jax --dtype=bfloat16', 'cyclegan_jax --runtime=onnxruntime']
    assert list(result['sides']) == names
    for side in result['sides'].values():
        check(side)
    bfloat16, onnxruntime = result['largest_difference'].values()
    assert onnxruntime < 1e-5 < 1e-3 < bfloat16
    assert names[2] in table.render({'x.json': document})


def document(benchmark, **result):
    return {
        'benchmark': benchmark,
        'command': f'python benchmarks/{benchmark}.py --size=256',
        'machine': {'processor': 'Some CPU', 'cores': 2},
        'results': [result],
    }


def side(seconds, platform='cpu'):
    return {
        'step_seconds': seconds,
        'images_per_second': 1 / seconds,
        'peak_memory_bytes': 3 * 2**30,
        'platform': platform,
        'device': 'Some GPU',
    }


def test_tiles_are_compared_with_the_whole():
    """Half of a picture is a level too light; then one column is."""
    light = np.zeros((128, 128, 3), np.float32)
    light[:, :64] = 1 / 127.5
    assert tiles.differences(light) == {'mean': 0.5, 'drift': 0.5}
    light[:, 1:] = 0
    assert tiles.differences(light) == {'mean': 0.01, 'drift': 0.01}


def rows_of(table):
    _, _, *rows = (line for line in table.splitlines() if line.startswith('|'))
    return rows


def test_table():
    shape = {'size': 256, 'batch': 1, 'dtype': 'float32', 'width': 64, 'blocks': 9}
    compared = document(
        'compare',
        work='translate',
        **shape,
        sides={
            'cyclegan_jax': side(0.25),
            'PyTorch eager': side(0.5),
            'PyTorch compile': side(0.4),
        },
        ratios={
            'PyTorch eager': {'median': 2.0, 'quartiles': [1.9, 2.1]},
            'PyTorch compile': {'median': 1.6, 'quartiles': [1.5, 1.7]},
        },
        best_peer='PyTorch compile',
    )
    alone = document(
        'train_step',
        work='train_step',
        **shape,
        remat=True,
        sides={'cyclegan_jax': side(0.01, 'gpu')},
    )
    full = document(
        'train_step',
        work='train_step',
        **shape,
        sides={'cyclegan_jax': {'error': 'JaxRuntimeError: RESOURCE_EXHAUSTED: Out of memory'}},
    )
    text = table.render(
        {'a.json': compared, 'b.json': alone, 'c.json': full, 'd.json': document('start_up')}
    )
    gpu, cpu = text.split('**Some GPU**')[1].split('**Some CPU, 2 cores**')
    size, ours = '256 | 1', 'cyclegan_jax float32'
    assert rows_of(gpu) == [f'| training, remat | {size} | {ours} | 10 ms | 100 |  | 3.0 GiB |']
    assert rows_of(cpu) == [
        f'| training | {size} | {ours} | out of memory |  |  |  |',
        f'| translation | {size} | {ours} | 0.25 s | 4 |  | 3.0 GiB |',
        f'| translation | {size} | PyTorch eager | 0.5 s | 2 | **2.00** (1.90 to 2.10) | 3.0 GiB |',
        f'| translation | {size} | PyTorch compile | 0.4 s | 2.5 | **1.60** (1.50 to 1.70) '
        '| 3.0 GiB |',
    ]
    assert '- `a.json`: `python benchmarks/compare.py --size=256`' in text
    assert 'start_up' not in text  # it has no row

    readme = f'before\n{table.START}\nold\n{table.END}\nafter\n'
    updated = table.insert(readme, text)
    assert updated == f'before\n{table.START}\n{text}\n{table.END}\nafter\n'
    assert table.insert(updated, text) == updated
    assert table.insert('no markers', text) is None
