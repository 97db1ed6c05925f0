"""Serves a page in which anyone translates pictures with trained generators.

    python -m cyclegan_jax.demo --model=runs/horse2zebra

The page is for this machine alone, unless --host says otherwise. A picture, or a folder of them,
goes in, and comes back as PNG, with the pixels that cyclegan_jax.translate gives. What was sent to
the page is deleted after an hour, and when it ends. Needs Gradio: pip install 'cyclegan_jax[demo]'
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from cyclegan_jax.arguments import (
    add_model,
    add_runtime,
    directions,
    image_size,
    parse_args,
    positive,
)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m cyclegan_jax.demo',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add_model(add, '; give it again for another model', action='append')
    add('--direction', type=directions, help='a2b or b2a; default: all that a model has')
    add(
        '--size',
        type=image_size,
        metavar='N|HxW',
        help='resize first, unless the page is told otherwise: shorter side, or height and width',
    )
    add(
        '--tile',
        type=positive,
        default=1024,
        metavar='N',
        help='translate larger pictures in tiles of N x N pixels, to save memory; default: 1024',
    )
    add_runtime(add)
    add(
        '--max-pixels',
        type=positive,
        default=2**25,
        metavar='N',
        help='refuse larger pictures; default: 33554432',
    )
    add(
        '--host',
        default='127.0.0.1',
        help='address to listen on; default: 127.0.0.1, for this machine alone; 0.0.0.0: for all',
    )
    add('--port', type=positive, default=7860, metavar='N', help='default: 7860')
    return parse_args(parser, argv)


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0 after Ctrl-C, 2 for what cannot be."""
    args = parse(argv)
    from cyclegan_jax import process

    return process.run_command(
        lambda: _serve(args),
        interrupted='Interrupted before the page was there.',
        out_of_memory='end other programs that use the memory, or take another machine.',
    )


def _serve(args: argparse.Namespace) -> int:
    # Gradio makes folders of its own below this one: nobody else can read what is sent to the page.
    with tempfile.TemporaryDirectory(prefix='cyclegan_jax_') as cache:
        os.environ['GRADIO_TEMP_DIR'] = cache  # read when it is imported
        os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
        demo_page = _demo_page()
        page = demo_page.make_page(
            offers(args, Path(cache)),
            Path(cache),
            size=args.size,
            tile=args.tile,
            max_pixels=args.max_pixels,
        )
        demo_page.serve(page, args.host, args.port)
    return 0


def _demo_page():
    from cyclegan_jax.errors import UserError

    try:
        from cyclegan_jax.inference import demo_page
    except ImportError as error:
        raise UserError(
            f"the demo needs Gradio ({error}): pip install 'cyclegan_jax[demo]'"
        ) from error
    return demo_page


def offers(args: argparse.Namespace, folder: Path) -> dict:
    """What the page offers, `uploads.Offer` by title, of all models and their directions.

    Args:
      folder: where example pictures are put.

    Raises:
      UserError: there is no such model, or not in these directions, or no browser shows its images.
    """
    from cyclegan_jax import provenance
    from cyclegan_jax.errors import UserError
    from cyclegan_jax.inference import Translator, pictures
    from cyclegan_jax.inference.uploads import Offer
    from cyclegan_jax.interop import generators

    found = {}
    for number, model in enumerate(dict.fromkeys(args.model)):
        networks, about = provenance.load(model, args.step, args.weights)
        networks = generators(networks)
        if missing := set(args.direction or ()) - set(networks):
            raise UserError(
                f'{model} has no generator {missing.pop()}; give --direction={",".join(networks)}.'
            )
        examples = provenance.write_examples(model, folder / 'examples' / str(number))
        for name in args.direction or networks:
            network = networks[name]
            pictures.check_photographs(name, network, 'use cyclegan_jax.translate')
            title = ' to '.join(about.domains[end] for end in name.split('2'))
            if len(args.model) > 1:
                title = f'{title}, by {model}'
            if title in found:  # both domains have one name
                title = f'{title} ({name})'
            translator = Translator(
                network, name=f'{name} of {model}', runtime=args.runtime, dtype=args.dtype
            )
            found[title] = Offer(name, translator, examples.get(name[0], []))
    return found


if __name__ == '__main__':
    sys.exit(main())
