"""Translates pictures and videos with a trained generator.

    python -m cyclegan_jax.translate --model=runs/horse2zebra --input=photos --output=zebras

Every picture comes back at its own size, in its own format and place in the folder tree, with its
transparency, colour profile, resolution and 16 bits of grey, if it has them. A picture that cannot
be read or written is named, the others are done, and the exit status is 1.

A video keeps its size, the times of its frames and its sound. What is killed within one leaves the
finished parts in a hidden folder beside the output; the same command goes on after them.
"""

import argparse
import sys
from pathlib import Path

from cyclegan_jax.arguments import (
    add_model,
    add_runtime,
    directions,
    image_size,
    local_name,
    local_path,
    parse_args,
    positive,
)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m cyclegan_jax.translate',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add_model(add)
    add(
        '--direction',
        default='a2b',
        type=directions,
        help='a2b (default) or b2a; a2b,b2a does both, in folders of their own',
    )
    add(
        '--input',
        required=True,
        type=local_name,
        metavar='FILE|DIR|GLOB',
        help='pictures and videos; quote a GLOB',
    )
    add(
        '--output',
        required=True,
        metavar='DIR|FILE.mp4',
        type=local_path,
        help='a folder; of one video it may be the file',
    )
    add(
        '--size',
        type=image_size,
        metavar='N|HxW',
        help='resize first, bicubic: shorter side, or height and width; the result is resized back',
    )
    add(
        '--tile',
        type=positive,
        metavar='N',
        help='translate larger pictures in overlapping tiles of N x N pixels, to save memory',
    )
    add('--batch', type=positive, default=1, metavar='N', help='pictures of one size at a time')
    add('--format', metavar='png|jpg|mp4|...', help="default: each picture's own")
    add(
        '--colour',
        choices=('keep', 'model'),
        default='keep',
        help='of grey pictures: keep them grey (default), or give what the model makes of them',
    )
    add_runtime(add)
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument(
        '--skip-existing', action='store_true', help='go on where an earlier run stopped'
    )
    existing.add_argument(
        '--overwrite', action='store_true', help='replace files in DIR that are no translations'
    )
    return parse_args(parser, argv)


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status.

    0 all done, 1 some pictures could not be, 2 a mistake in the call, 4 out of memory.
    """
    args = parse(argv)
    from cyclegan_jax import process

    return process.run_command(
        lambda: translate_pictures(args),
        interrupted='Interrupted; the same command with --skip-existing goes on from here.',
        out_of_memory='use --tile=512, a smaller --size, or a smaller --batch.',
    )


def translate_pictures(args: argparse.Namespace) -> int:
    """Returns the exit status."""
    # Imported here, so that --help is answered at once.
    from cyclegan_jax.data import clips
    from cyclegan_jax.errors import UserError, printable
    from cyclegan_jax.inference import files

    one_clip = clips.is_clip(args.output) and not args.output.is_dir()
    if args.output.exists() and not args.output.is_dir() and not one_clip:
        raise UserError(f'--output={args.output} is a file; name a folder.')
    translators = files.load_translators(
        args.model,
        args.direction,
        args.step,
        args.weights,
        runtime=args.runtime,
        dtype=args.dtype,
    )
    photographs = all(translator.photographs for translator in translators.values())
    if args.colour != 'keep' and not photographs:
        raise UserError(
            f'--colour={args.colour} is of photographs, which {args.model} does not map; leave it '
            'out.'
        )
    suffixes = files.SUFFIXES if photographs else files.value_files.SUFFIXES
    images = files.find_images(args.input, args.output, suffixes)
    output = args.output
    if one_clip:
        if len(images) > 1 or not clips.is_clip(images[0][0]) or args.format or args.direction[1:]:
            raise UserError(
                f'--output={output} is a video: that is for one video, in one --direction, without '
                '--format; name a folder.'
            )
        images, output = [(images[0][0], Path(output.name))], output.parent
    jobs = {
        direction: files.make_jobs(
            images,
            output / direction if len(translators) > 1 else output,
            suffix=args.format and f'.{args.format.lstrip(".")}',
            skip_existing=args.skip_existing,
            overwrite=args.overwrite,
            pixels=None if photographs else translator.pixels[1],
        )
        for direction, translator in translators.items()
    }
    failed = sum(
        _translate(translator, jobs[direction], args, direction)
        for direction, translator in translators.items()
    )
    planned = sum(map(len, jobs.values()))
    there = len(images) * len(translators) - planned
    skipped = f'; {there} were there already' if there else ''
    what = 'videos' if all(clips.is_clip(source) for source, _ in images) else 'pictures'
    written = f'Wrote {planned - failed} of {planned} {what} to {args.output}{skipped}.'
    print(printable(written))
    return 1 if failed else 0


def _translate(translator, jobs: list, args: argparse.Namespace, label: str) -> int:
    """Translates pictures, then videos; returns how many could not be."""
    from cyclegan_jax import process
    from cyclegan_jax.data import clips
    from cyclegan_jax.data.images import ImageError
    from cyclegan_jax.errors import describe, printable, tell
    from cyclegan_jax.inference import files, video

    how = {'batch_size': args.batch, 'size': args.size, 'tile': args.tile}
    videos = [job for job in jobs if translator.photographs and clips.is_clip(job.source)]
    others = [job for job in jobs if job not in videos]
    failed = 0
    if others:
        failed = files.translate_files(translator, others, colour=args.colour, label=label, **how)
    for source, target in videos:
        computed = {'runtime': args.runtime, 'dtype': args.dtype}
        parts = video.translate_clip(translator, source, target, label=label, how=computed, **how)
        done, name = 0, printable(str(source))
        try:
            while done is not None:
                with process.ends_at_once(
                    f'Interrupted; {done} frames of {name} are kept: the same command with '
                    '--skip-existing goes on from there.'
                ):
                    done = next(parts, None)
        except (ImageError, OSError) as error:
            failed += 1
            tell(f'error: {describe(error)}')
    return failed


if __name__ == '__main__':
    sys.exit(main())
