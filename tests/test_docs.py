"""README.md and the pages of docs/: what they promise, and that each command runs as it is printed.

The commands of a page, and its Python, run one after the other in one folder, which has the data
sets, the pictures and the run that they name, with flags that make a training short. A block that
needs what is not here is marked on the page, in a line above it: <!-- not run: REASON -->
"""

import functools
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from small_run import FLAGS

import cyclegan_jax.__main__
from configs import default

ROOT = Path(__file__).parents[1]
DOCS = ROOT / 'docs'
PAGES = sorted(page.name for page in DOCS.glob('*.md'))
TEXTS = {'README.md': (ROOT / 'README.md').read_text()} | {
    page: (DOCS / page).read_text() for page in PAGES
}
TESTED_ELSEWHERE = {'extending.md': 'test_extending.py'}
INSTALLS = ('pip install ', 'python3 -m venv ')  # that is what the tests run on
NEEDS = {
    'video': 'av',  # extras, and a module of each
    'export': 'flatbuffers',
    'onnxruntime': 'onnxruntime',
    'openvino': 'openvino',
    'science': 'tifffile',
    'torch': 'torch',
}
BLOCK = re.compile(
    r'^(?:New file `(?P<file>\S+)`:\n\n|<!-- not run: (?P<reason>.+) -->\n)?'
    r'```(?P<language>\w+)\n(?P<text>.*?)^```$',
    re.DOTALL | re.MULTILINE,
)


@pytest.mark.parametrize('page', PAGES)
def test_a_page_opens_with_what_one_can_do(page):
    title, _, rest = TEXTS[page].partition('\n\n')
    assert title.startswith('# ')
    assert 'you can' in rest.partition('\n\n')[0]


def test_all_fields_are_on_their_page():
    spec = importlib.util.spec_from_file_location('write_configs', DOCS / 'write_configs.py')
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = (DOCS / 'configs.md').read_text()
    assert text == script.page(), 'configs/default.py has changed: run python docs/write_configs.py'
    table, config = text.partition(script.MARK)[2], default.get_config()
    names = set()
    for name, value in config.to_dict().items():
        names |= {f'{name}.{field}' for field in value} if isinstance(value, dict) else {name}
    rows = {row[1]: row[2] for row in re.finditer(r'^\| `([a-z]\S*)` .*\|(.*)\|$', table, re.M)}
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


@pytest.mark.parametrize('page', TEXTS)
def test_every_command_flag_and_field_is_there(page):
    """Also in blocks that are not run, and within the text."""
    flags = flags_of_commands()
    for command, rest in re.findall(
        r'(?:cyclegan-jax |-m cyclegan_jax[. ]|python (?=main\.py))([a-z]+)(?:\.py)?'
        r'((?: +[^\s`]+| *\\\n)*)',
        TEXTS[page],
    ):
        assert command in flags, f'no command {command}'
        named = re.findall(r'(?<= )--(?!config\.)([a-z][a-z-]*)', rest)
        assert set(named) <= flags[command], f'{command}{rest}'
    config = default.get_config()
    if page not in TESTED_ELSEWHERE:
        for field in re.findall(r'--config\.([a-z]\w*(?:\.\w+)?)', TEXTS[page]):
            owner, _, name = field.rpartition('.')
            assert name in (config[owner] if owner else config), f'no field {field}'


def test_links_of_the_readme_lead_somewhere():
    """Those of docs/ are checked where the site is built."""
    for link in re.findall(r'\]\((?!https:)([^)]+)\)', TEXTS['README.md']):
        path, _, anchor = link.partition('#')
        assert (ROOT / path).exists(), link
        if anchor:
            titles = re.findall(r'^#+ (.+)$', (ROOT / path).read_text(), re.MULTILINE)
            assert anchor in {re.sub(r'\W+', '-', title.lower()) for title in titles}, link


def test_the_readme_ends_with_every_module():
    layout = TEXTS['README.md'].rpartition('```text\n')[2]
    for path in (ROOT / 'cyclegan_jax').iterdir():
        if (path.suffix == '.py' and path.name != '__init__.py') or (path / '__init__.py').exists():
            name = path.name if path.suffix else f'{path.name}/'
            assert re.search(rf'(?<![\w.]){re.escape(name)}', layout), f'{name} is not in README.md'


@pytest.mark.parametrize('page', TEXTS)
def test_no_command_escapes(page):
    """Every block has a language, which says whether it is run, and none hides in a list."""
    fences = re.findall(r'^( *)```(.*)$', TEXTS[page], re.MULTILINE)
    for (indent, language), (_, end) in zip(fences[::2], fences[1::2], strict=True):
        assert end == '' and language in ('bash', 'python', 'diff', 'text')
        assert not (indent and language == 'bash'), 'a command within a list is not run'


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
    monkeypatch.setenv('JAX_NUM_CPU_DEVICES', '1')  # one device, as a newcomer's machine has


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """What pages call runs/x: a run of the embedded data set."""
    folder = tmp_path_factory.mktemp('runs') / 'x'
    command = [sys.executable, 'main.py', '--config=configs/synthetic.py', f'--workdir={folder}']
    environment = os.environ | {'JAX_NUM_CPU_DEVICES': '1'}
    done = subprocess.run([*command, *FLAGS], cwd=ROOT, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures('installed')
@pytest.mark.parametrize('page', [page for page in TEXTS if page not in TESTED_ELSEWHERE])
def test_the_commands_of_a_page_run(page, run, tmp_path):
    blocks = [block for block in BLOCK.finditer(TEXTS[page]) if not block['reason']]
    commands = [command for block in blocks for command in commands_of(block)]
    for extra in re.findall(r"(?<=['\[,])\w+(?=[,\]])", ' '.join(filter(installs, commands))):
        if extra in NEEDS:
            pytest.importorskip(NEEDS[extra])
    for name in ('main.py', 'configs', 'examples'):
        (tmp_path / name).symlink_to(ROOT / name)
    make_pictures(TEXTS[page], tmp_path)
    if '=runs/x' in ' '.join(commands):
        shutil.copytree(run, tmp_path / 'runs' / 'x')
    for block in blocks:
        if block['file']:
            (tmp_path / block['file']).write_text(block['text'])
    for command in commands:
        if installs(command):
            continue
        if command.startswith(('cyclegan-jax train ', 'python main.py ')):
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


@functools.cache
def flags_of_commands() -> dict[str, set[str]]:
    """The flags of each command, as its --help names them; main.py is train."""
    flags = {}
    for command in re.findall('^cyclegan-jax ([a-z]+) ', cyclegan_jax.__main__.__doc__, re.M):
        arguments = [sys.executable, '-m', 'cyclegan_jax', command, '--help']
        text = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
        flags[command] = {'help', *re.findall(r'--(?:\[no\])?([a-z][a-z-]*)', text)}
    return flags | {'main': flags['train']}


def installs(command: str) -> bool:
    return command.startswith(INSTALLS)


def commands_of(block: re.Match) -> list[str]:
    """What a shell runs of a block."""
    if block['language'] == 'bash':
        return block['text'].replace('\\\n', '').splitlines()
    if block['language'] == 'python' and not block['file']:
        return [shlex.join([sys.executable, '-c', block['text']])]
    return []


def make_pictures(text: str, folder: Path) -> None:
    """The data sets that a page names, as datasets/NAME, and photos, among them the named ones."""
    random = np.random.default_rng(0)
    sets = {Path('datasets', name) for name in re.findall(r'datasets/(\w+)', text)}
    splits = {path / split for path in sets for split in ('trainA', 'trainB', 'testA', 'testB')}
    for path in splits | {Path('photos')}:
        (folder / path).mkdir(parents=True)
        for number in range(2):
            pixels = random.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(folder / path / f'{number}_{path.name[-1]}.png')
    for name in re.findall(r'photos/(\w+\.png)', text):
        shutil.copy(folder / 'photos' / '0_s.png', folder / 'photos' / name)
    if 'clip.mp4' in text:
        make_clip(folder / 'clip.mp4')


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
