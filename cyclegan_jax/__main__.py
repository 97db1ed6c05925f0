"""The commands of cyclegan_jax.

cyclegan-jax train      two kinds of pictures in, two translators out; goes on where it stopped
cyclegan-jax translate  pictures, with a trained translator
cyclegan-jax demo       a page in which anyone translates pictures
cyclegan-jax evaluate   scores of translations
cyclegan-jax export     trained networks for other programs

Each tells its flags: cyclegan-jax train --help
"""

import importlib
import sys

from cyclegan_jax.errors import UserError, check_choice, tell

_COMMANDS = {
    'train': 'flags',
    'translate': 'translate',
    'demo': 'demo',
    'evaluate': 'evaluate',
    'export': 'export',
}


def main() -> int:
    """Runs the command that sys.argv names; returns its exit status."""
    command, *arguments = sys.argv[1:] or ['--help']
    if command in ('--help', '-h'):
        print(__doc__.strip())
        return 0
    try:
        check_choice('the command', command, list(_COMMANDS))
    except UserError as error:
        tell(f'error: {error}')
        return error.status
    return importlib.import_module(f'cyclegan_jax.{_COMMANDS[command]}').main(arguments)


if __name__ == '__main__':
    sys.exit(main())
