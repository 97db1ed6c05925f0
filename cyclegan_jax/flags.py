"""Trains a CycleGAN: python main.py --config=configs/synthetic.py --workdir=runs/synthetic

Or, once it is installed: cyclegan-jax train --config=synthetic --workdir=runs/synthetic

The same command, run again, continues where the run stopped. Every field of configs/default.py can
be changed: --config.batch_size=4.
"""

import importlib.util
import re
import sys
import traceback
from pathlib import Path

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from cyclegan_jax.errors import check_choice


def configs_folder() -> Path:
    """The folder of the configs: installed it lies in the package, in a checkout beside it."""
    package = Path(__file__).parent
    return next(path for path in (package / 'configs', package.parent / 'configs') if path.exists())


class _ByName(flags.ArgumentParser):
    """Reads a config file, or one that comes with the package, by its name: nft:A__2__B."""

    def __init__(self, files: flags.ArgumentParser):
        self._files = files

    def parse(self, argument: str) -> ConfigDict:
        folder = configs_folder()
        # A config says `from configs import default`, wherever it lies, whatever else is installed.
        spec = importlib.util.spec_from_file_location('configs', folder / '__init__.py')
        sys.modules['configs'] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        name, colon, rest = argument.partition(':')
        if not Path(name).is_file():  # there may be a folder of that name, of pictures
            names = sorted(file.stem for file in folder.glob('[!_]*.py'))
            check_choice('there is no such file, and the name', name, names)
            argument = f'{folder / name}.py{colon}{rest}'
        return self._files.parse(argument)


_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'What to train: a name of configs/, such as horse2zebra, or a file.'
)
flags.FLAGS['config'].parser = _ByName(flags.FLAGS['config'].parser)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run; made if it is not there.')
_MULTIHOST = flags.DEFINE_bool('multihost', False, 'Join the other processes of a pod or cluster.')


def main(argv: list[str] | None = None) -> None:
    """The command: does not return, but ends the process with the exit status of training."""
    if argv is not None:
        sys.argv[1:] = argv  # ml_collections looks there for the fields that are set
    app.run(_train, flags_parser=parse_flags)


def _train(_: list[str]) -> int:
    try:
        # Imported here, so that --help and a mistyped flag are answered at once.
        from cyclegan_jax import train

        return train.main(_CONFIG.value, _WORKDIR.value, multihost=_MULTIHOST.value)
    except KeyboardInterrupt:
        return 130


def parse_flags(argv: list[str]) -> list[str]:
    """absl's parser, with every mistake told in one line."""
    if {'--help', '-h'} & set(argv):
        print(f'{__doc__}\n{flags.FLAGS.module_help(__name__)}')
        sys.exit(0)
    if any(argument.lstrip('-').startswith('config.may_change') for argument in argv):
        sys.exit('error: config.may_change lists the fields that may change; it is not one of them')
    try:
        rest = flags.FLAGS(argv)
        if _CONFIG.value is None:
            sys.exit('error: --config is missing; name a file of configs/')
        _CONFIG.value.to_dict()  # a file that cannot be read fails only when it is used
    except (AttributeError, KeyError) as error:  # of ml_collections, with a suggestion
        if isinstance(error, AttributeError) and not isinstance(error.args[0], KeyError):
            raise  # a fault of the file itself
        what = str(getattr(error.args[0], 'args', error.args)[0]).replace('\n', '. ')
        what = re.sub(
            r'(Key "\S+") does not exist.*?(Did you mean.*)?$',
            r'\1. \2',
            what,
        )
        where = _place(error)
        sys.exit(f'error: {where}configs/default.py, which lists all fields, has no {what.strip()}')
    except (flags.Error, OSError, TypeError, ValueError) as error:
        # Of a config that fails, the whole traceback; what is wrong is said in its last line.
        what = str(error).strip().splitlines()[-1].strip().removeprefix('ValueError: ')
        sys.exit(f'error: {_place(error)}{what}')
    if len(rest) > 1:
        sys.exit(f'error: unknown argument {rest[1]!r}; a field is set as --config.field=value')
    if not _WORKDIR.value:
        sys.exit('error: --workdir is missing; name the folder of the run')
    _check_paths()
    return rest


def _check_paths() -> None:
    """Before anything is imported: storage that is not read is told in the first second."""
    from cyclegan_jax import errors, storage

    config = _CONFIG.value
    try:
        storage.as_path(_WORKDIR.value, '--workdir')
        storage.as_path(config.data.path, '--config.data.path')
        storage.as_path(config.init_from, '--config.init_from')
    except errors.UserError as error:
        sys.exit(f'error: {error}')


def _place(error: BaseException | None) -> str:
    """'FILE, line 4: ' of the config that raised an error; '' for one of the command line."""
    while error is not None:
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if frame.name == 'get_config':
                return f'{frame.filename}, line {frame.lineno}: '
        error = error.__context__
    return ''
