"""What the exported page is made of, and where its files come from; in a browser: see the other."""

import io
import json
import subprocess
import tarfile

import numpy as np
import pytest
from translate_fixtures import RESNET, random_network

from cyclegan_jax import export, interop
from cyclegan_jax.inference import exporting, webpage

pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')


@pytest.fixture
def runtime(tmp_path):
    """Stands for the npm package."""
    folder = tmp_path / 'runtime'
    (folder / 'dist').mkdir(parents=True)
    for name in webpage._RUNTIME:
        (folder / 'dist' / name).write_text(name)
    (folder / 'package.json').write_text('{"version": "1.2.3"}')
    return folder


def run(tmp_path, *flags, spec=RESNET, channels=(3, 3), format='web'):
    networks = {'a2b': random_network(channels, spec, 1), 'b2a': random_network(channels, spec, 2)}
    interop.save_pretrained(tmp_path / 'model', networks)
    out = tmp_path / 'out'
    return export.main(
        [f'--model={tmp_path / "model"}', f'--output={out}', f'--format={format}', *flags]
    ), out


def test_the_folder_is_all_that_the_page_needs(tmp_path, runtime, capsys):
    status, out = run(tmp_path, f'--onnxruntime-web={runtime}')
    assert status == 0
    described = json.loads((out / 'model.json').read_text())
    assert described['runtime'] == '1.2.3'
    assert [g['name'] for g in described['generators']] == ['a2b', 'b2a']
    for generator in described['generators']:
        assert (out / generator['file'].partition('?')[0]).stat().st_size == generator['bytes']
    assert (out / 'runtime' / 'ort.wasm.min.js').read_text() == 'ort.wasm.min.mjs'
    for name in ('index.html', 'page.js', 'page.css', 'worker.js', 'README.md'):
        assert (out / name).is_file()
    assert 'sdk: static' in (out / 'README.md').read_text()
    assert 'python -m http.server' in capsys.readouterr().out
    assert run(tmp_path, f'--onnxruntime-web={runtime}')[0] == 0  # it may be written anew


def test_half_precision_is_kept_only_where_it_shows_nowhere(tmp_path, runtime, capsys, monkeypatch):
    monkeypatch.setattr(exporting, '_change', lambda *args: 1)
    assert run(tmp_path, f'--onnxruntime-web={runtime}')[0] == 0
    half = (tmp_path / 'out' / 'a2b.onnx').stat().st_size
    assert 'a2b: half-precision weights' in capsys.readouterr().out
    monkeypatch.setattr(exporting, '_change', lambda *args: 2)
    assert run(tmp_path, f'--onnxruntime-web={runtime}')[0] == 0
    assert 'a2b: float32 weights, as those of half precision change pixels by 2' in (
        capsys.readouterr().out
    )
    assert (tmp_path / 'out' / 'a2b.onnx').stat().st_size > 1.4 * half


def test_the_change_is_that_of_the_worst_pixel_and_of_what_is_not_finite():
    identity = lambda x: x
    assert exporting._change(identity, identity, 3) == 0
    assert exporting._change(identity, lambda x: np.where(x == x.max(), x - 3 / 127.5, x), 3) == 3
    assert exporting._change(identity, lambda x: np.where(x == x.max(), np.nan, x), 3) == 255


def test_the_page_of_another_is_not_replaced(tmp_path, runtime, capsys):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'index.html').write_text('<h1>mine</h1>')
    status, out = run(tmp_path, f'--onnxruntime-web={runtime}')
    assert status == 2
    assert 'index.html is not of an export' in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ['index.html']


def test_channels_that_no_browser_shows(tmp_path, runtime, capsys):
    status, out = run(tmp_path, f'--onnxruntime-web={runtime}', channels=(2, 2))
    assert status == 2
    assert 'a2b maps 2 channels to 2' in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_that_is_not_the_package(tmp_path, runtime, capsys):
    (runtime / 'dist' / 'ort.webgpu.min.mjs').unlink()
    status, out = run(tmp_path, f'--onnxruntime-web={runtime}')
    error = capsys.readouterr().err
    assert status == 2 and error.count('\n') == 1
    assert 'has no ort.webgpu.min.mjs' in error and 'npm install onnxruntime-web@' in error
    assert not out.exists()


def test_the_package_is_found_in_node_modules_here_or_above(tmp_path, runtime, monkeypatch):
    (tmp_path / 'node_modules').mkdir()
    runtime.rename(tmp_path / 'node_modules' / 'onnxruntime-web')
    (tmp_path / 'below').mkdir()
    monkeypatch.chdir(tmp_path / 'below')
    assert webpage.find_runtime(None)['ort.wasm.min.mjs'] == b'ort.wasm.min.mjs'
    assert webpage.find_runtime(tmp_path)['package.json'].startswith(b'{')


def archive(runtime):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode='w:gz') as tar:
        tar.add(runtime, 'package')
    return content.getvalue()


def test_what_npm_fetches_must_have_the_known_hash(tmp_path, runtime, monkeypatch, capsys):
    def npm(command, cwd, **_):
        with open(f'{cwd}/package.tgz', 'wb') as file:  # noqa: PTH123
            file.write(archive(runtime))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(webpage.shutil, 'which', lambda name: '/bin/npm')
    monkeypatch.setattr(webpage.subprocess, 'run', npm)
    status, out = run(tmp_path)
    assert status == 2
    assert 'its hash differs' in capsys.readouterr().err
    assert not out.exists()
    (tmp_path / 'package.tgz').write_bytes(archive(runtime))
    assert run(tmp_path, f'--onnxruntime-web={tmp_path / "package.tgz"}')[0] == 0


@pytest.mark.parametrize(
    ('npm', 'words'), [(None, 'is not here'), ('/bin/npm', '(npm error network is down)')]
)
def test_without_npm_or_a_connection_one_line_says_so(tmp_path, monkeypatch, capsys, npm, words):
    def fail(command, **_):
        message = 'npm error code ENOTFOUND\nnpm error network is down\n'
        raise subprocess.CalledProcessError(1, command, stderr=message)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(webpage.shutil, 'which', lambda name: npm)
    monkeypatch.setattr(webpage.subprocess, 'run', fail)
    status, out = run(tmp_path)
    error = capsys.readouterr().err
    assert status == 2 and error.count('\n') == 1
    assert words in error and '--onnxruntime-web=' in error
    assert not out.exists()


def test_the_runtime_is_of_no_use_to_other_formats(tmp_path, runtime, capsys):
    assert run(tmp_path, f'--onnxruntime-web={runtime}', format='onnx')[0] == 2
    assert 'is of no use to --format=onnx' in capsys.readouterr().err
