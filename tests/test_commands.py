"""`cyclegan-jax COMMAND` and `python -m cyclegan_jax COMMAND`, which are the same."""

import subprocess
import sys

import pytest


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, '-m', 'cyclegan_jax', *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize('arguments', [[], ['--help']])
def test_without_a_command_all_are_told(arguments):
    done = run(*arguments)
    assert done.returncode == 0
    for command in ('train', 'translate', 'evaluate', 'export'):
        assert f'cyclegan-jax {command} ' in done.stdout


def test_a_mistyped_command_is_one_line():
    done = run('trian')
    assert done.returncode == 2 and done.stderr.count('\n') == 1
    assert "did you mean 'train'" in done.stderr


@pytest.mark.parametrize(
    ('command', 'flag'),
    [('train', '--workdir'), ('translate', '--tile'), ('evaluate', '--fake'), ('export', '--push')],
)
def test_each_command_has_its_flags(command, flag):
    done = run(command, '--help')
    assert done.returncode == 0 and flag in done.stdout


def test_flags_go_to_the_command():
    """Also those that the dispatcher has itself."""
    done = run('train', '--config=synthetic', '--workdir=x', '--config.batch_sise=2')
    assert done.returncode == 1 and 'Did you mean "batch_size"' in done.stderr
