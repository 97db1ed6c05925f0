"""Every config loads, every field is used, and a slip of the pen is told in one line."""

import ast
import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

import configs
from cyclegan_jax import checks, losses
from cyclegan_jax.data.loading import load
from cyclegan_jax.networks import KINDS, fields_of
from cyclegan_jax.train_state import learning_rate_schedule

ROOT = Path(__file__).parents[1]
NAMES = sorted(module.name for module in pkgutil.iter_modules(configs.__path__))


def get(name: str) -> ConfigDict:
    return importlib.import_module(f'configs.{name}').get_config()


def flattened(config: ConfigDict) -> set[str]:
    """The names of all fields, as the command line spells them."""
    names = set()
    for name, value in config.to_dict().items():
        inner = value if isinstance(value, dict) else {}
        names |= {name} | {f'{name}.{field}' for field in inner}
    return names


def main(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, 'main.py', *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize('name', NAMES)
def test_config_is_sound_and_adds_no_field(name):
    config = get(name)
    checks.check_config(config)
    assert flattened(config) == flattened(get('default'))


@pytest.mark.parametrize('name', NAMES)
def test_config_opens_with_its_command(name):
    first_lines = importlib.import_module(f'configs.{name}').__doc__
    assert f'python main.py --config=configs/{name}.py' in first_lines


def test_the_published_setups_are_what_their_documents_say():
    sim2real, nft, anime = get('sim2real'), get('nft'), get('anime')
    assert (sim2real.data.crop_size, sim2real.batch_size) == (512, 8)
    assert sim2real.data.name == 'huggan/sim2real_gta5_to_cityscapes'
    assert sim2real.schedule.decay_start_epoch == 100 and nft.schedule.decay_start_epoch == 80
    assert (nft.data.crop_size, nft.batch_size) == (256, 8)
    assert sim2real.generator.upsample == nft.generator.upsample == 'nearest'
    assert (anime.generator.kind, anime.loss.gan, anime.pool_size) == ('unet', 'vanilla', 0)
    assert anime.schedule.decay_start_epoch == anime.schedule.num_epochs, 'a constant rate'
    for name in NAMES:
        if name != 'synthetic':
            config = get(name)
            assert (config.loss.cycle_weight, config.loss.identity_weight) == (10, 5)
            assert (config.optimizer.learning_rate, config.optimizer.b1) == (2e-4, 0.5)
            assert config.schedule.num_epochs == 200


def test_the_improved_recipe_is_one_of_any_other_config():
    module = importlib.import_module('configs.improved')
    for of, name in {'monet': 'monet', 'nft:apes__2__punks': 'nft'}.items():
        config, other = module.get_config(of), get(name)
        changed = {'average', *(['domain_a', 'domain_b'] if name == 'nft' else [])}
        assert config.generator.global_skip and config.average
        for key, value in other.items():
            if key not in changed and not isinstance(value, ConfigDict):
                assert config[key] == value, key
        differing = {k for k, v in other.generator.items() if config.generator[k] != v}
        assert differing == {'global_skip'}
    assert module.get_config('nft:apes__2__punks').data.name_b == 'huggingnft/punks'
    with pytest.raises(ValueError, match=r'must be one of anime, .* synthetic$'):
        module.get_config('improved')


def test_nft_takes_its_collections_by_argument():
    module = importlib.import_module('configs.nft')
    config = module.get_config('apes__2__punks')
    assert (config.data.name, config.data.name_b) == ('huggingnft/apes', 'huggingnft/punks')
    with pytest.raises(ValueError, match='A__2__B'):
        module.get_config('apes')


def test_every_field_is_read_somewhere():
    """`config.x` and `config.x.y` in the rooms that read a config; whole groups as `**config.x`."""
    read, handed_on = set(), set()
    for name in ('train', 'run', 'program', 'checks'):
        for node in ast.walk(ast.parse((ROOT / f'cyclegan_jax/{name}.py').read_text())):
            if isinstance(node, ast.Attribute):
                base, _, field = ast.unparse(node).partition('.')
                if base == 'config':
                    read.add(field)
            elif isinstance(node, ast.keyword) and node.arg is None:
                handed_on.add(ast.unparse(node.value).removeprefix('config.'))
    groups = {'data': arguments(load), 'schedule': arguments(learning_rate_schedule)}
    assert set(groups) <= handed_on
    # What these are made from says by itself what it reads.
    groups['loss'] = {
        'gan',
        'penalty_weight',
        'penalty_every',
        'cycle_weight_end',
        'identity_weight_end',
    }
    groups['loss'] |= {f'{term}_weight' for term in losses.TERMS}
    for role, kinds in KINDS.items():
        assert get('default')[role].to_dict() == {'kind': next(iter(kinds))} | fields_of(role)
        groups[role] = {'kind'} | set(fields_of(role))
    read |= {'licence'}  # by the card, from what the run keeps: test_card.py
    read |= {f'{group}.{field}' for group, fields in groups.items() for field in fields}
    assert flattened(get('default')) - set(groups) - read == set()


def arguments(function) -> set[str]:
    return set(inspect.signature(function).parameters)


def test_each_field_says_whether_it_may_change():
    """A new field must be put into one of the two: what a resumed run must keep, and the rest."""
    kept = {
        'seed',
        'batch_size',
        'pool_size',
        'augment',
        'data.load_size',
        'data.crop_size',
        'data.resize',
        'data.flip',
        'data.channels_a',
        'data.channels_b',
        'data.dtype_a',
        'data.dtype_b',
        'data.range',
        'data.range_a',
        'data.range_b',
        'data.outside',
        'data.not_finite',
        'data.pages',
        'data.bands_a',
        'data.bands_b',
        'generator.kind',
        'generator.width',
        'generator.num_blocks',
        'generator.num_downs',
        'generator.downsample',
        'generator.upsample',
        'generator.global_skip',
        'generator.dropout',
        'discriminator.kind',
        'discriminator.width',
        'discriminator.num_layers',
        'discriminator.downsample',
        'loss.gan',
        'loss.adversarial_weight',
        'loss.cycle_weight',
        'loss.identity_weight',
        'loss.cycle_weight_end',
        'loss.identity_weight_end',
        'loss.penalty_weight',
        'loss.penalty_every',
        'optimizer.b1',
        'optimizer.b2',
    }
    config = get('default')
    groups = {'data', 'generator', 'discriminator', 'loss', 'optimizer', 'schedule'}
    assert flattened(config) - groups - kept == set(config.may_change)


def test_sizes_may_be_height_and_width_in_a_file_and_on_the_command_line(tmp_path):
    config = get('default')
    config.data.crop_size = (64, 128)
    assert config.data.crop_size == (64, 128)
    code = (
        'import sys; from cyclegan_jax import flags\n'
        'flags.parse_flags(sys.argv); print(flags._CONFIG.value.data.crop_size)'
    )
    command = [sys.executable, '-c', code, '--config=configs/default.py', '--workdir=x']
    for text in ('(64, 128)', '64'):
        done = subprocess.run(
            [*command, f'--config.data.crop_size={text}'], cwd=ROOT, capture_output=True, text=True
        )
        assert done.stdout.strip() == text, done.stderr


def test_a_slip_in_a_file_is_told_as_one_on_the_command_line(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(
        'from configs import default\n'
        'def get_config():\n'
        '    config = default.get_config()\n'
        '    config.pool_sise = 0\n'
        '    return config\n'
    )
    result = main(f'--config={path}', f'--workdir={tmp_path}/run')
    assert result.returncode == 1 and result.stderr.count('\n') == 1
    assert 'Did you mean "pool_size" instead of "pool_sise"' in result.stderr
    assert f'error: {path}, line 4: ' in result.stderr
    path.write_text(path.read_text().replace('config.pool_sise = 0', 'config.pool_size = "many"'))
    result = main(f'--config={path}', f'--workdir={tmp_path}/run')
    assert result.returncode == 1 and result.stderr.count('\n') == 1
    assert (
        f"error: {path}, line 4: TypeError: Could not override field 'pool_size'" in result.stderr
    )


@pytest.mark.parametrize(
    ('field', 'value', 'said'),
    [
        ('batch_size', 0, 'batch_size is 0; it must be at least 1'),
        ('log_every', 0, 'log_every is 0'),
        ('pool_size', -1, 'pool_size is -1'),
        ('max_steps', 0, 'max_steps is 0'),
        ('schedule.decay_start_epoch', 300, 'past the last epoch, schedule.num_epochs = 200'),
        ('optimizer.learning_rate', 0.0, 'optimizer.learning_rate is 0.0'),
        ('optimizer.learning_rate', float('nan'), 'must be a positive number'),
        ('optimizer.discriminator_rate', -1.0, 'discriminator_rate is -1.0'),
        ('optimizer.b1', 1.0, 'optimizer.b1 is 1.0'),
        ('loss.cycle_weight_end', 3.0, 'decay_start_epoch and schedule.num_epochs are both 200'),
        ('average', 1.0, 'average is 1.0; it must be at least 0 and below 1'),
    ],
)
def test_values_out_of_range_are_refused(field, value, said):
    config = get('default')
    if field.endswith('_end'):
        config.schedule.decay_start_epoch = config.schedule.num_epochs
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError) as error:
        checks.check_config(config)
    assert said in str(error.value) and '\n' not in str(error.value)


def test_a_best_checkpoint_that_nothing_scores_is_told(caplog):
    config = get('synthetic')
    config.evaluate_every = 0
    checks.check_config(config)
    assert "keep_best is 'psnr_a2b', but evaluate_every is 0" in caplog.text


@pytest.mark.parametrize(
    ('argument', 'said'),
    [
        ('--config.generator.widht=3', 'Did you mean "width"'),
        ('--config.generatr.width=3', 'Did you mean "generator"'),
        ('--config.generator.zzz=3', "has no 'zzz'"),
        ('--config.batch_size=many', "invalid literal for int() with base 10: 'many'"),
        ('--workdri=x', 'Did you mean: workdir'),
        ('stray', "unknown argument 'stray'"),
        ("--config.may_change=('seed',)", 'error: config.may_change lists the fields that may'),
    ],
)
def test_slips_on_the_command_line_are_told_without_a_traceback(argument, said, tmp_path):
    result = main('--config=configs/synthetic.py', f'--workdir={tmp_path}', argument)
    assert result.returncode == 1
    assert said in result.stderr and 'Traceback' not in result.stderr


def test_sizes_and_ranges_are_pairs_in_a_file_and_on_the_command_line(tmp_path):
    (tmp_path / 'mine.py').write_text(
        'from configs import default\n\n\ndef get_config():\n'
        '    config = default.get_config()\n    config.data.crop_size = (64, 128)\n'
        '    config.data.range_a = (-1000, 2000)\n    return config\n'
    )
    code = (
        'import sys; from cyclegan_jax import flags\nflags.parse_flags(sys.argv)\n'
        'data = flags._CONFIG.value.data; print(data.crop_size, data.load_size, data.range_a)'
    )
    command = [sys.executable, '-c', code, f'--config={tmp_path}/mine.py', '--workdir=x']
    command += ['--config.data.load_size=(70, 130)']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == '(64, 128) (70, 130) (-1000, 2000)\n', done.stderr


def test_a_config_that_is_not_there_is_named(tmp_path):
    result = main('--config=configs/nope.py', f'--workdir={tmp_path}')
    assert result.returncode == 1
    assert 'configs/nope.py' in result.stderr and 'Traceback' not in result.stderr


def test_a_config_goes_by_its_name(tmp_path):
    """Wherever the process works, and whatever else is called configs there."""
    (tmp_path / 'configs.py').write_text('raise SystemExit("not this one")')
    (tmp_path / 'horse2zebra').mkdir()  # the data, perhaps
    code = (
        'import sys; from cyclegan_jax import flags\n'
        'flags.parse_flags(sys.argv); print(flags._CONFIG.value.domain_b)'
    )
    for name, domain in (('horse2zebra', 'zebra'), ('nft:ape__2__punk', 'punk')):
        command = [sys.executable, '-c', code, f'--config={name}', '--workdir=x']
        environment = os.environ | {'PYTHONPATH': f'{tmp_path}{os.pathsep}{ROOT}'}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
        assert done.stdout.decode().strip() == domain, done.stderr.decode()


def test_a_name_that_no_config_has_is_told():
    result = main('--config=horse2zebr', '--workdir=x')
    assert result.returncode == 1 and result.stderr.count('\n') == 1
    assert "did you mean 'horse2zebra'" in result.stderr


@pytest.mark.parametrize(
    ('arguments', 'missing'),
    [(['--workdir=x'], '--config'), (['--config=configs/synthetic.py'], '--workdir')],
)
def test_what_is_missing_is_named(arguments, missing):
    result = main(*arguments)
    assert result.returncode == 1
    assert f'error: {missing} is missing' in result.stderr and result.stderr.count('\n') == 1


def test_help_imports_nothing_heavy():
    """What makes it slow, on any machine; a clock fails on a busy one."""
    code = (
        'import runpy, sys\n'
        'sys.argv = ["main.py", "--help"]\n'
        'try:\n    runpy.run_path("main.py", run_name="__main__")\n'
        'finally:\n    print({"jax", "flax", "numpy", "PIL"} & set(sys.modules), file=sys.stderr)'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert '--workdir' in done.stdout and done.returncode == 0
    assert done.stderr.strip() == 'set()'
