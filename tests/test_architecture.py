"""The rules of the house: who may import what."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / 'cyclegan_jax'
MODULES = sorted(PACKAGE.rglob('*.py'))

# Each outside library has one door, so that a change of its interface is a change of one place.
DOORS = {
    'flax.linen': ('ops/', 'networks.py'),
    'orbax': ('checkpoint.py',),
    'grain': ('data/',),
    'tensorflow_datasets': ('data/',),
    'datasets': ('data/',),
    'tensorboardX': ('log.py',),
    'clu': ('log.py',),
    'torch': ('interop/',),
    'safetensors': ('interop/',),
    'tensorflow': (),
}

# Imports go one way: what each module takes of ours, beside errors, storage and its own folder.
ALLOWED = {
    'errors': set(),
    'storage': set(),
    'ops': set(),
    'losses': set(),
    'image_pool': set(),
    'sharding': set(),
    'log': set(),
    'workdir': set(),
    'manifest': set(),
    'checkpoint': {'manifest'},
    'interrupt': set(),
    'process': set(),
    'data': set(),
    'networks': {'ops'},
    'train_state': {'networks', 'image_pool', 'sharding'},
    'train_step': {'networks', 'losses', 'train_state'},
    'visuals': {'log'},
    'program': {'networks', 'train_state', 'train_step', 'sharding', 'checks'},
}
ANYWHERE = {'errors', 'storage'}


def imports(path: Path) -> set[str]:
    """Dotted names of everything that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f'{node.module}.{alias.name}' for alias in node.names}
    return found


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize('library', DOORS)
def test_library_has_one_door(library):
    users = {
        name(path)
        for path in MODULES
        if any(item == library or item.startswith(f'{library}.') for item in imports(path))
    }
    strangers = {user for user in users if not user.startswith(DOORS[library] or ('none',))}
    assert not strangers, f'only {DOORS[library]} may import {library}'
    assert users or not DOORS[library], f'nobody imports {library}: drop it from the list'


@pytest.mark.parametrize('module', ALLOWED)
def test_imports_go_one_way(module):
    folder = PACKAGE / module
    paths = folder.rglob('*.py') if folder.is_dir() else [folder.with_suffix('.py')]
    ours = {
        item.split('.')[1]
        for path in paths
        for item in imports(path)
        if item.startswith('cyclegan_jax.')
    }
    assert ours - ANYWHERE - {module} == ALLOWED[module]
    assert module not in ANYWHERE or ours <= {'errors'}


@pytest.mark.parametrize('path', MODULES, ids=name)
def test_only_the_trainer_and_the_scripts_know_configs(path):
    if 'ml_collections' in imports(path):
        assert name(path) in ('train.py', 'run.py', 'program.py', 'checks.py')


@pytest.mark.parametrize('path', MODULES, ids=name)
def test_files_stay_readable(path):
    assert len(path.read_text().splitlines()) <= 330, 'two rooms, or less code'
    assert path.stem != 'utils'


def test_training_imports_neither_tensorflow_nor_torch():
    code = (
        'import sys; import cyclegan_jax.train, cyclegan_jax.data.loading; '
        "print({'tensorflow', 'torch'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, '-c', code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == 'set()'
