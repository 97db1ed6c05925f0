"""Translates pictures with a trained generator.

    python -m cyclegan_jax.translate --model=runs/horse2zebra --input=photos --output=zebras

Every picture comes back at its own size, in its own format and place in the folder tree, with its
transparency and its 16 bits, if it has them. A picture that cannot be read is named, the others are
done, and the exit status is 1.
"""

import argparse
import re
import sys
from pathlib import Path


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m cyclegan_jax.translate',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        '--model',
        required=True,
        metavar='DIR|FILE|ID',
        help='workdir of a run, exported folder, .safetensors, .pth or .bin file, or user/name of '
        'the Hugging Face hub',
    )
    add(
        '--direction',
        default='a2b',
        type=_directions,
        help='a2b (default) or b2a; a2b,b2a does both, in folders of their own',
    )
    add('--step', metavar='N|best', help='checkpoint of a workdir; default: the latest')
    add('--input', required=True, metavar='FILE|DIR|GLOB', help='pictures; quote a GLOB')
    add('--output', required=True, metavar='DIR', type=Path)
    add(
        '--size',
        type=_size,
        metavar='N|HxW',
        help='resize first, bicubic: shorter side, or height and width; the result is resized back',
    )
    add(
        '--tile',
        type=_positive,
        metavar='N',
        help='translate larger pictures in overlapping tiles of N x N pixels, to save memory',
    )
    add('--batch', type=_positive, default=1, metavar='N', help='pictures of one size at a time')
    add('--format', metavar='png|jpg|...', help="default: each picture's own")
    add('--skip-existing', action='store_true', help='go on where an earlier run stopped')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status.

    0 all done, 1 some pictures could not be, 2 a mistake in the call, 4 out of memory.
    """
    args = parse(argv)
    # Imported here, so that --help is answered at once.
    import jax

    from cyclegan_jax import process
    from cyclegan_jax.inference import script

    process.set_up()
    done = failed = 0
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        images = script.find_images(args.input, exclude=args.output)
        translators = script.load_translators(args.model, args.direction, args.step)
        for direction, translator in translators.items():
            output = args.output / direction if len(translators) > 1 else args.output
            jobs = script.make_jobs(
                images,
                output,
                suffix=args.format and f'.{args.format.lstrip(".")}',
                skip_existing=args.skip_existing,
            )
            done += len(jobs)
            failed += script.translate(
                translator,
                jobs,
                batch_size=args.batch,
                size=args.size,
                tile=args.tile,
                label=direction,
            )
    except (ValueError, OSError, ImportError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        print('error: out of memory; use --tile=512, or a smaller --batch.', file=sys.stderr)
        return 4
    except KeyboardInterrupt:
        print(
            'Interrupted; the same command with --skip-existing goes on from here.', file=sys.stderr
        )
        return 130
    there = len(images) * len(translators) - done
    skipped = f'; {there} were there already' if there else ''
    print(f'Wrote {done - failed} of {done} pictures to {args.output}{skipped}.')
    return 1 if failed else 0


def _directions(text: str) -> list[str]:
    directions = text.split(',')
    if not set(directions) <= {'a2b', 'b2a'} or len(set(directions)) < len(directions):
        raise argparse.ArgumentTypeError(f'{text!r} is not a2b, b2a or a2b,b2a')
    return directions


def _size(text: str) -> int | tuple[int, int]:
    if not re.fullmatch(r'[1-9]\d*(x[1-9]\d*)?', text):
        raise argparse.ArgumentTypeError(f'{text!r} is neither a number nor HEIGHTxWIDTH')
    sides = tuple(map(int, text.split('x')))
    return sides if len(sides) == 2 else sides[0]


def _positive(text: str) -> int:
    if not re.fullmatch(r'[1-9]\d*', text):
        raise argparse.ArgumentTypeError(f'{text!r} is not a positive whole number')
    return int(text)


if __name__ == '__main__':
    sys.exit(main())
