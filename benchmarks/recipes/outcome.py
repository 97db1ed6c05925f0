"""What the scripts here share: a small set-up, and how runs of it are trained and scored."""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import measure
from PIL import Image

ROOT = Path(__file__).parents[2]
DIRECTIONS = ('a2b', 'b2a')

# 64x64 pictures are a whole field of view for three strided blocks, so there are two.
SETTING = {
    'generator.width': 32,
    'generator.num_blocks': 3,
    'discriminator.width': 32,
    'discriminator.num_layers': 2,
    'sample_every': 2000,
    'checkpoint_every': 500,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add('--data', type=Path, required=True, metavar='FOLDER', help='with trainA, trainB, ...')
    add('--workdir', type=Path, required=True, metavar='FOLDER', help='of all runs')
    add('--score', type=shlex.split, required=True, metavar='COMMAND')
    add('--seeds', type=measure.whole_number, default='3', metavar='N', help='of each')
    add('--figure', type=Path, metavar='FILE', help='also draw the scores')


def fields(data: Path, size: int) -> dict:
    """Of the config: `SETTING` on pictures of this size, enlarged by an eighth and cropped."""
    sizes = {'data.load_size': size * 9 // 8, 'data.crop_size': size}
    return {**SETTING, 'data.path': data.absolute(), **sizes}


def epoch_length(data: Path) -> int:
    return max(len(list((data / f'train{domain}').iterdir())) for domain in 'AB')


def shrink(data: Path, output: Path, size: int, *, split: str = 'test') -> Path:
    """Pictures of a split at the networks' size, in folders a and b."""
    for domain in 'ab':
        folder = output / domain
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted((data / f'{split}{domain.upper()}').iterdir()):
            picture = Image.open(path).convert('RGB').resize((size, size), Image.BICUBIC)
            picture.save(folder / f'{path.stem}.png')
    return output


def train(workdir: Path, fields: Mapping) -> None:
    """Goes on where it was stopped."""
    where = {'config': ROOT / 'configs' / 'horse2zebra.py', 'workdir': workdir.absolute()}
    changed = {f'config.{name}': value for name, value in fields.items()}
    _run(ROOT / 'main.py', *flags(where | changed))


def translate(workdir: Path, real: Path, output: Path, weights: str = 'trained') -> dict[str, Path]:
    """Translates test pictures of folders a and b; where they are, by direction."""
    for direction in DIRECTIONS:
        arguments = {
            'model': workdir.absolute(),
            'weights': weights,
            'direction': direction,
            'input': (real / direction[0]).absolute(),
            'output': (output / direction).absolute(),
        }
        _run('-m', 'cyclegan_jax.translate', *flags(arguments))
    return directions_in(output)


def flags(arguments: Mapping) -> list[str]:
    return [f'--{name}={value}' for name, value in arguments.items()]


def directions_in(output: Path) -> dict[str, Path]:
    return {direction: output / direction for direction in DIRECTIONS}


def score(command: list[str], real: Path, translated: Mapping[str, Path]) -> dict[str, dict]:
    """Scores by direction, of translations against the test pictures of their domain."""
    found = {}
    for direction, folder in translated.items():
        pair = str(real / direction[-1]), str(folder)
        line = json.loads(subprocess.check_output([*command, *pair], text=True))
        found[direction] = {name: x for name, x in line.items() if isinstance(x, float)}
    return found


class Results:
    """The rows of FILE, which grow; what it has is not measured again, on whichever machine."""

    def __init__(self, benchmark: str, path: Path | None) -> None:
        self.benchmark, self.path = benchmark, path
        self.rows = json.loads(path.read_text())['results'] if path and path.exists() else []

    def has(self, point: Mapping) -> bool:
        return any(point.items() <= row.items() for row in self.rows)

    def add(self, *rows: dict) -> None:
        self.rows.extend(rows)
        measure.save(self.path, self.benchmark, measure.command(), self.rows)


def kept(path: Path, make: Callable[[], dict]) -> dict:
    """What `make` has returned, now or the time before."""
    if not path.exists():
        found = make()
        path.with_suffix('.part').write_text(json.dumps(found))
        path.with_suffix('.part').replace(path)
    return json.loads(path.read_text())


def _run(*command) -> None:
    subprocess.run([sys.executable, *map(str, command)], check=True, cwd=ROOT)
