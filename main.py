"""Trains a CycleGAN: python main.py --config=configs/synthetic.py --workdir=runs/synthetic

The same command, run again, continues where the run stopped. Every field of configs/default.py can
be changed: --config.batch_size=4.
"""

import re
import sys
import traceback

from absl import app, flags
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'What to train: a file of configs/.', lock_config=True
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run; made if it is not there.')
_MULTIHOST = flags.DEFINE_bool('multihost', False, 'Join the other processes of a pod or cluster.')


def parse_flags(argv: list[str]) -> list[str]:
    """absl's parser, with every mistake told in one line."""
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
    return rest


def _place(error: BaseException | None) -> str:
    """'FILE, line 4: ' of the config that raised an error; '' for one of the command line."""
    while error is not None:
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if frame.name == 'get_config':
                return f'{frame.filename}, line {frame.lineno}: '
        error = error.__context__
    return ''


def main(_: list[str]) -> int:
    try:
        # Imported here, so that --help and a mistyped flag are answered at once.
        from cyclegan_jax import train

        return train.main(_CONFIG.value, _WORKDIR.value, multihost=_MULTIHOST.value)
    except KeyboardInterrupt:
        return 130


if __name__ == '__main__':
    app.run(main, flags_parser=parse_flags)
