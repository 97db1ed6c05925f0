"""A folder that is a Space of the Hugging Face hub: a page like that of `cyclegan_jax.demo`."""

import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import cyclegan_jax
from cyclegan_jax.errors import UserError
from cyclegan_jax.interop import Network, save_pretrained
from cyclegan_jax.storage import write_bytes

MODEL = 'model'  # the folder in it, as safetensors
GRADIO = '6.31.0'  # which a Space is told to have
_MARK = '# Written by cyclegan_jax'
_APP = f"""\
{_MARK}: the page that `python -m cyclegan_jax.demo` serves.
import sys
from pathlib import Path

from cyclegan_jax import demo

MODEL = Path(__file__).parent / '{MODEL}'

if __name__ == '__main__':
    sys.exit(demo.main([f'--model={{MODEL}}', '--host=0.0.0.0', *sys.argv[1:]]))
"""


def write(folder: Path, networks: Mapping[str, Network]) -> str:
    """Writes app.py, requirements.txt, the code and the model; returns how to see it here.

    Raises:
      UserError: the folder has an app.py that is not of such an export.
    """
    app = folder / 'app.py'
    if app.exists() and _MARK not in app.read_text(encoding='utf-8', errors='replace'):
        raise UserError(f'{app} is not of an export, and is not replaced; name another --output.')
    write_bytes(app, _APP.encode())
    write_bytes(folder / 'requirements.txt', _requirements().encode())
    # The code comes along: a Space shows for ever what this version shows.
    package = Path(cyclegan_jax.__file__).parent
    for path in sorted(package.rglob('*.py')):
        target = folder / package.name / path.relative_to(package)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, path.read_bytes())
    save_pretrained(folder / MODEL, networks)
    return f'To see it: python {app} --host=127.0.0.1'


def _requirements() -> str:
    """What the package needs to serve the page, but for Gradio, which the README names."""
    lines = metadata.requires('cyclegan_jax') or []
    needed = [line for line in lines if not re.search(r'\bextra\b', line)]
    return '\n'.join([_MARK, *needed]) + '\n'
