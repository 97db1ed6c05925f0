"""What must hold where no test runs: on Windows, which has neither `fcntl` nor `resource`, and in
containers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import FLAGS

ROOT = Path(__file__).parents[1]

# The libraries below ours take their forms for Windows by its name; here they may have both.
WITHOUT = """
import builtins, sys

def import_without(name, globals=None, *rest, really=builtins.__import__):
    importer = (globals or {}).get('__name__', '').partition('.')[0]
    if name in ('fcntl', 'resource') and importer in ('cyclegan_jax', 'configs'):
        raise ModuleNotFoundError(f'No module named {name!r}')
    return really(name, globals, *rest)

builtins.__import__ = import_without
from cyclegan_jax import flags
flags.main()
"""


@pytest.mark.slow
def test_a_step_is_trained_without_what_windows_lacks(tmp_path):
    command = [sys.executable, '-c', WITHOUT, '--config=synthetic', '--workdir=run', *FLAGS]
    environment = os.environ | {'PYTHONPATH': str(ROOT), 'JAX_NUM_CPU_DEVICES': '1'}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    line = json.loads((tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()[0])
    assert line['memory/host_peak_gib'] > 0.05


def test_the_dockerfile_is_clean():
    if not shutil.which('hadolint'):
        pytest.skip('hadolint is not installed')
    done = subprocess.run(['hadolint', ROOT / 'Dockerfile'], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
