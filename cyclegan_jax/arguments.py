"""What the arguments of translate, demo, evaluate and export have in common."""

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from cyclegan_jax import storage
from cyclegan_jax.errors import UserError, did_you_mean


def path_name(text: str) -> str:
    """A value that names a file or folder, on this machine or in a bucket."""
    return _checked(text, storage.as_path)


def local_name(text: str) -> str:
    """A value that names a file or folder on this machine."""
    return _checked(text, storage.check_local)


def local_path(text: str) -> Path:
    """The path of a file or folder on this machine."""
    return Path(local_name(text))


def _checked(text: str, check: Callable[[str], object]) -> str:
    try:
        check(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def add_model(add: Callable, more: str = '', **options) -> None:
    """--model, --step and --weights; `more` is said of --model, and `options` are its own."""
    add(
        '--model',
        required=True,
        type=path_name,
        metavar='DIR|FILE|ID',
        help='workdir of a run, exported folder, .safetensors, .pth or .bin file, or user/name of '
        f'the Hugging Face hub{more}',
        **options,
    )
    add('--step', metavar='N|best', help='checkpoint of a workdir; default: the latest')
    add_weights(add)


def add_weights(add: Callable) -> None:
    """--weights, by the `add_argument` of a parser or of a group."""
    add(
        '--weights',
        choices=('average', 'trained'),
        help='of a run with config.average: the averaged generators (default), or the last ones',
    )


def directions(text: str) -> list[str]:
    """'a2b', 'b2a' or both, as a2b,b2a."""
    found = text.split(',')
    if not set(found) <= {'a2b', 'b2a'} or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f'{text!r} is not a2b, b2a or a2b,b2a')
    return found


def image_size(text: str) -> int | tuple[int, int]:
    """The shorter side, or HEIGHTxWIDTH as (height, width)."""
    if not re.fullmatch(r'[1-9]\d*(x[1-9]\d*)?', text):
        raise argparse.ArgumentTypeError(f'{text!r} is neither a number nor HEIGHTxWIDTH')
    sides = tuple(map(int, text.split('x')))
    return sides if len(sides) == 2 else sides[0]


def positive(text: str) -> int:
    """A whole number from 1."""
    if not re.fullmatch(r'[1-9]\d*', text):
        raise argparse.ArgumentTypeError(f'{text!r} is not a positive whole number')
    return int(text)


def add_runtime(add: Callable) -> None:
    """--runtime and --dtype of a translator."""
    add(
        '--runtime',
        choices=('jax', 'onnxruntime', 'openvino'),
        default='jax',
        help='what runs the generator: JAX (default), or one of the others, on the CPU',
    )
    add(
        '--dtype',
        choices=('float32', 'bfloat16'),
        default='float32',
        help='of convolutions; bfloat16 is quicker where the device has it, and less exact',
    )


def parse_args(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, hint: str = 'see --help'
) -> argparse.Namespace:
    """`parser.parse_args`, that suggests what an unknown flag may have meant, or else `hint`."""
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        known = re.findall(r'--([\w-]+)', parser.format_usage())
        suggestion = did_you_mean(unknown[0].lstrip('-').partition('=')[0], known) or f' ({hint})'
        parser.error(f'unknown argument {unknown[0]!r}{suggestion}')
    return args
