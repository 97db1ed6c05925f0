"""The rules of the house: who may import what."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / 'cyclegan_jax'
MODULES = sorted(PACKAGE.rglob('*.py'))

# Each outside library has one door, so that a change of its interface is a change of one place.
DOORS = {
    'flax.linen': ('ops/', 'networks/'),
    'orbax': ('checkpoint_format.py',),
    'grain': ('data/',),
    'tensorflow_datasets': ('data/',),
    'datasets': ('data/',),
    'tensorboardX': ('log.py',),
    'clu': ('log.py',),
    'torch': ('interop/',),
    'safetensors': ('interop/',),
    'portalocker': ('workdir.py',),
    'gcsfs': ('storage.py',),
    'fsspec': ('storage.py',),
    'etils': ('storage.py',),
    'tensorstore': ('bucket.py',),
    'av': ('data/clips.py',),
    'onnx': ('inference/onnx_graph.py',),
    'onnxruntime': ('inference/runtimes.py', 'evaluation/feature_network.py'),  # ours, any other
    'openvino': ('inference/runtimes.py',),
    'gradio': ('inference/demo_page.py',),
    'starlette': ('inference/demo_page.py',),
    'fcntl': (),  # neither is there on Windows; what replaces them are portalocker and psutil
    'resource': ('process.py',),
    'tensorflow': (),
}

# Imports go one way: what each room may import of the others. `errors`, `storage` and `pixels`,
# which know nothing of the rest, are for all; rooms that are not listed are at the far end, and may
# use any.
EVERYONE = {'errors', 'storage', 'pixels'}
ROOMS = {
    'errors': set(),
    'storage': set(),
    'pixels': set(),
    'arguments': set(),
    'process': set(),
    'bucket': set(),
    'workdir': {'bucket'},
    'interrupt': set(),
    'abort': set(),
    'watch': {'abort'},
    'hosts': {'watch'},
    'sharding': {'ops'},
    'image_pool': set(),
    'losses': set(),
    'augmentation': set(),
    'log': {'process'},
    'data': set(),
    'ops': set(),
    'networks': {'ops'},
    'manifest': set(),
    'checkpoint_format': {'manifest'},
    'checkpoint_folders': set(),
    'checkpoint_reader': {'checkpoint_folders', 'checkpoint_format', 'manifest'},
    'checkpoint': {'checkpoint_format', 'checkpoint_reader', 'hosts', 'manifest'},
    'train_state': {'networks', 'image_pool', 'sharding'},
    'train_step': {'networks', 'losses', 'augmentation', 'ops', 'train_state'},
    'visuals': {'log', 'data'},
    'interop': {'networks', 'checkpoint_reader'},
    'checks': {'data', 'networks', 'sharding'},
    'program': {'checks', 'networks', 'ops', 'sharding', 'train_state', 'train_step'},
    'inference': {'interop', 'data', 'networks', 'ops', 'sharding', 'arguments'},
    'evaluation': {
        'checkpoint_format',
        'checkpoint_reader',
        'data',
        'interop',
        'sharding',
        'train_step',
    },
}

# Who reads the config of a run; everything else takes plain arguments.
READERS = ('flags.py', 'train.py', 'run.py', 'program.py', 'checks.py')


@functools.cache
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


def room(path: Path) -> str:
    """A module, or the folder that it lies in."""
    return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


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


@pytest.mark.parametrize('one', ROOMS)
def test_imports_go_one_way(one):
    ours = {
        item.split('.')[1]
        for path in MODULES
        if room(path) == one
        for item in imports(path)
        if item.startswith('cyclegan_jax.')
    }
    assert ours - {one} - EVERYONE == ROOMS[one]


@pytest.mark.parametrize('path', MODULES, ids=name)
def test_only_the_trainer_knows_configs(path):
    if 'ml_collections' in imports(path):
        assert name(path) in READERS


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
