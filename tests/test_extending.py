"""docs/extending.md works as it is printed: applied to a copy, tested, and run."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / 'docs' / 'extending.md').read_text()
STEP = re.compile(r'^(New file|Change) `(\S+)`:\n\n```\w+\n(.*?)^```$', re.DOTALL | re.MULTILINE)
SMALL = {
    'data.max_images': 4,
    'data.load_size': 16,
    'data.crop_size': 16,
    'generator.width': 4,
    'discriminator.width': 4,
    'discriminator.num_layers': 1,
    'max_steps': 2,
    'log_every': 1,
    'evaluate_every': 2,
}


@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    """The package with all that the page adds."""
    folder = tmp_path_factory.mktemp('copy')
    for name in ('cyclegan_jax', 'configs'):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns('__pycache__'))
    shutil.copy(ROOT / 'main.py', folder)
    (folder / 'tests').mkdir()
    for what, name, block in STEP.findall(PAGE):
        path = folder / name
        if what == 'New file':
            assert not path.exists(), f'{name} is not new'
            path.write_text(block)
        else:
            source, lines = path.read_text(), block.splitlines(keepends=True)
            old = ''.join(line[1:] for line in lines if line[0] != '+')
            new = ''.join(line[1:] for line in lines if line[0] != '-')
            assert source.count(old) == 1, f'the page does not find its place in {name}:\n{old}'
            path.write_text(source.replace(old, new))
    return folder


def python(folder, *arguments):
    environment = os.environ | {
        'PYTHONPATH': str(folder),
        'PYTHONDONTWRITEBYTECODE': '1',
        'JAX_NUM_CPU_DEVICES': '1',  # one device, as a newcomer's machine has
    }
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def test_every_block_of_the_page_is_applied():
    blocks = re.findall(r'^```(?!bash)\w+$', PAGE, re.MULTILINE)
    assert len(blocks) == len(STEP.findall(PAGE))


def test_the_tests_of_the_page_pass(copy):
    assert '6 passed' in python(copy, '-m', 'pytest', '-q', '-p', 'no:xdist', 'tests')


def test_the_code_of_the_page_is_clean(copy):
    for command in (['format', '--check'], ['check']):
        python(copy, '-m', 'ruff', *command, f'--config={ROOT / "pyproject.toml"}', '.')


def test_its_commands_train_score_and_export(copy):
    """All in one run: a zip file, the plain generator, the term, and the scores."""
    with zipfile.ZipFile(copy / 'mine.zip', 'w') as archive:
        random = np.random.default_rng(0)
        for split in ('trainA', 'trainB', 'testA', 'testB'):
            for i in range(4):
                encoded = io.BytesIO()
                pixels = random.integers(0, 256, (16, 16, 3), np.uint8)
                Image.fromarray(pixels).save(encoded, 'PNG')
                archive.writestr(f'{split}/{i}_{split[-1]}.png', encoded.getvalue())
    commands = re.findall(r'^python main\.py (.*)$', PAGE, re.MULTILINE)
    printed = dict(flag[2:].split('=') for line in commands for flag in line.split())
    fields = printed | {f'config.{name}': value for name, value in SMALL.items()}
    fields |= {'config': 'configs/synthetic.py', 'workdir': 'run'}
    python(copy, 'main.py', *(f'--{name}={value}' for name, value in fields.items()))
    lines = (copy / 'run' / 'metrics.jsonl').read_text().splitlines()
    found = {name for line in lines for name in json.loads(line)}
    assert found >= {
        'generator/smoothness_a',
        'evaluation/energy/a2b',
        'evaluation/energy/a2b_floor',
        'evaluation/energy/a2b_ceiling',
        'evaluation/edges/b2a',
        'evaluation/edges/b2a_untranslated',
    }
    export = ['-m', 'cyclegan_jax.export', '--model=run', '--output=out', '--format=safetensors']
    python(copy, *export)
    spec = json.loads((copy / 'out' / 'config.json').read_text())['cyclegan_jax']['a2b']['spec']
    assert spec == {'kind': 'plain', 'width': 4, 'num_convs': 2}
