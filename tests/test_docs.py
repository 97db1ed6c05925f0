"""The pages of docs/: what they promise, and that each of their commands runs as it is printed.

The commands of a page run one after the other in one folder, which has the data sets and pictures
that they name, with flags that make a training short. One that needs what is not here is marked on
the page, in a line above its block: <!-- not run: REASON -->
"""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from small_run import FLAGS

from configs import default

ROOT = Path(__file__).parents[1]
DOCS = ROOT / 'docs'
PAGES = sorted(page.name for page in DOCS.glob('*.md'))
TESTED_ELSEWHERE = {'extending.md': 'test_extending.py'}
BLOCK = re.compile(
    r'^(?:New file `(?P<file>\S+)`:\n\n|<!-- not run: (?P<reason>.+) -->\n)?'
    r'```(?P<language>\w+)\n(?P<text>.*?)^```$',
    re.DOTALL | re.MULTILINE,
)


@pytest.mark.parametrize('page', PAGES)
def test_a_page_opens_with_what_one_can_do(page):
    title, _, rest = (DOCS / page).read_text().partition('\n\n')
    assert title.startswith('# ')
    assert 'you can' in rest.partition('\n\n')[0]


def test_all_fields_are_on_their_page():
    spec = importlib.util.spec_from_file_location('write_configs', DOCS / 'write_configs.py')
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = (DOCS / 'configs.md').read_text()
    assert text == script.page(), 'configs/default.py has changed: run python docs/write_configs.py'
    config = default.get_config()
    names = set()
    for name, value in config.to_dict().items():
        names |= {f'{name}.{field}' for field in value} if isinstance(value, dict) else {name}
    rows = {row[1]: row[2] for row in re.finditer(r'^\| `([a-z]\S*)` .*\|(.*)\|$', text, re.M)}
    assert set(rows) == names - {'may_change'}
    assert all(meaning.strip() for meaning in rows.values()), 'a field lacks its comment'


def test_the_site_builds(tmp_path):
    pytest.importorskip('material')
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '-d', tmp_path]
    environment = os.environ | {'NO_MKDOCS_2_WARNING': '1'}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in PAGES:
        assert (tmp_path / page.removesuffix('.md').removesuffix('index') / 'index.html').exists()


def test_one_version():
    version = re.search(r'^version = "(.+)"$', (ROOT / 'pyproject.toml').read_text(), re.MULTILINE)
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert citation['version'] == version[1]
    assert f'\n## {version[1]}\n' in (ROOT / 'CHANGELOG.md').read_text()


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The environment of the processes below: as if the package were installed."""
    program = tmp_path / 'programs' / 'cyclegan-jax'
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cyclegan_jax "$@"\n')
    program.chmod(0o755)
    path = [str(program.parent), str(Path(sys.executable).parent), os.defpath]
    monkeypatch.setenv('PATH', os.pathsep.join(path))
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.setenv('XLA_FLAGS', '')  # one device, as a newcomer's machine has


@pytest.mark.slow
@pytest.mark.usefixtures('installed')
@pytest.mark.parametrize('page', [page for page in PAGES if page not in TESTED_ELSEWHERE])
def test_the_commands_of_a_page_run(page, tmp_path):
    text = (DOCS / page).read_text()
    if 'cyclegan_jax[torch]' in text:
        pytest.importorskip('torch')
    if 'cyclegan_jax[video]' in text:
        pytest.importorskip('av')
        make_clip(tmp_path / 'clip.mp4')
    make_pictures(text, tmp_path)
    for block in BLOCK.finditer(text):
        if block['file']:
            (tmp_path / block['file']).write_text(block['text'])
        if block['language'] != 'bash' or block['reason']:
            continue
        for command in block['text'].replace('\\\n', '').splitlines():
            if command.startswith('pip install'):  # that is what the tests run on
                continue
            if command.startswith('cyclegan-jax train '):
                command = shlex.join([*shlex.split(command), *FLAGS])
            done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, f'{command}\n{done.stdout}\n{done.stderr[-3000:]}'


@pytest.mark.slow
@pytest.mark.usefixtures('installed')
def test_the_notebook_runs(tmp_path):
    pytest.importorskip('nbclient')
    text = (ROOT / 'examples' / 'colab.ipynb').read_text()
    flags = ' '.join(FLAGS).replace("'", '')
    short, count = re.subn(r'("!cyclegan-jax train [^"]*)"', rf'\1 {flags}"', text)
    assert count == 1
    (tmp_path / 'notebook.ipynb').write_text(short)
    # In a process of its own: what its libraries warn of is not ours.
    code = (
        'import nbclient, nbformat, sys\n'
        'notebook = nbformat.read("notebook.ipynb", 4)\n'
        'nbclient.NotebookClient(notebook, timeout=600).execute()\n'
        'for cell in notebook.cells:\n'
        '    print([key for output in cell.get("outputs", []) for key in output.get("data", ())])'
    )
    command = [sys.executable, '-c', code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count('image/png') == 2, done.stdout


def make_clip(path: Path) -> None:
    import av

    random = np.random.default_rng(0)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, 'yuv420p'
        for _ in range(3):
            pixels = random.integers(0, 256, (32, 32, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format='rgb24')))
        container.mux(stream.encode())


def make_pictures(text: str, folder: Path) -> None:
    """The data sets that a page names, as datasets/NAME, and the folder photos."""
    random = np.random.default_rng(0)
    sets = {Path('datasets', name) for name in re.findall(r'datasets/(\w+)', text)}
    splits = {path / split for path in sets for split in ('trainA', 'trainB', 'testA', 'testB')}
    for path in splits | {Path('photos')}:
        (folder / path).mkdir(parents=True)
        for number in range(2):
            pixels = random.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(folder / path / f'{number}_{path.name[-1]}.png')
