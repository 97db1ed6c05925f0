"""What `pip install` gives: the commands and the configs, without a checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from small_run import FLAGS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """Built as pip builds it, from the files that go into an image: Dockerfile does the same."""
    folder, source = tmp_path_factory.mktemp('wheel'), tmp_path_factory.mktemp('source')
    for line in (ROOT / '.dockerignore').read_text().splitlines():
        path = ROOT / line.removeprefix('!')
        if line.startswith('!') and path.is_dir():
            ignore = shutil.ignore_patterns('__pycache__')
            shutil.copytree(path, source / path.name, ignore=ignore)
        elif line.startswith('!'):
            shutil.copy(path, source)
    command = [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '-w', folder, source]
    subprocess.run(command, check=True)
    return next(folder.iterdir())


@pytest.fixture(scope='module')
def run(wheel, tmp_path_factory):
    """Runs a program of a fresh environment that has the wheel, in an empty folder."""
    folder = tmp_path_factory.mktemp('elsewhere')
    home = folder / 'environment'
    venv.create(home, symlinks=True)
    programs = home / ('Scripts' if os.name == 'nt' else 'bin')
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    environment['JAX_NUM_CPU_DEVICES'] = '1'  # one device, as a newcomer's machine has

    def run(program: str, *arguments) -> str:
        command = [programs / program, *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    site = run('python', '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))').strip()
    # The libraries are those of this environment; a path file brings no editable install along.
    Path(site, 'libraries.pth').write_text(sysconfig.get_path('purelib'))
    install = ['install', '--quiet', '--no-deps', '--no-index', wheel]
    command = [sys.executable, '-m', 'pip', '--python', programs / 'python', *install]
    subprocess.run(command, check=True)
    return run


def test_the_wheel_holds_what_git_does(wheel):
    tracked = subprocess.run(
        ['git', 'ls-files', 'cyclegan_jax', 'configs'], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    if not tracked:
        pytest.skip('this is no git checkout')
    expected = {f'cyclegan_jax/{name}' if name[:7] == 'configs' else name for name in tracked}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if '.dist-info/' not in name}
    assert names == expected


def test_it_trains_translates_scores_and_exports(run):
    place = run('python', '-c', 'import cyclegan_jax; print(cyclegan_jax.__file__)')
    assert 'environment' in place
    run('cyclegan-jax', 'train', '--config=synthetic', '--workdir=run', *FLAGS)
    run('cyclegan-jax', 'export', '--model=run', '--output=exported')
    code = "from PIL import Image; Image.new('RGB', (9, 13)).save('horse.png')"
    run('python', '-c', code)
    translate = ['translate', '--model=exported', '--input=horse.png', '--output=zebras']
    assert 'Wrote 1 of 1 pictures' in run('cyclegan-jax', *translate)
    scores = run('cyclegan-jax', 'evaluate', '--workdir=run', '--metrics=paired')
    assert 'psnr' in scores.lower()


def test_a_config_file_of_ones_own_starts_from_ours(run):
    code = """
from pathlib import Path
Path('mine.py').write_text('''
from configs import default
def get_config():
    config = default.get_config()
    config.domain_b = 'mine'
    return config
''')
from cyclegan_jax import flags
flags.parse_flags(['train', '--config=mine.py', '--workdir=x'])
print(flags._CONFIG.value.domain_b)
"""
    assert run('python', '-c', code) == 'mine\n'
