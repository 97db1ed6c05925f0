"""Writes trained networks in a form that other programs read.

python -m cyclegan_jax.export --model=runs/horse2zebra --output=exported --format=safetensors

safetensors  all networks and config.json, for cyclegan_jax.translate and for sharing
pytorch      latest_net_G_A.pth, ... for pytorch-CycleGAN-and-pix2pix (needs torch)
huggan       for GeneratorResNet.from_pretrained
stablehlo    for jax.export.deserialize: any size, CPU, GPU and TPU
onnx         for onnxruntime, netron and the like: any size
web          a page that translates pictures in the visitor's browser, for any web server
space        a Space of the Hugging Face hub, with the page of cyclegan_jax.demo

Each has a model card, README.md, with what the run kept: data, config, scores, samples.
"""

import argparse
import sys
from pathlib import Path

from cyclegan_jax.arguments import add_model, local_path, parse_args

FORMATS = ('safetensors', 'pytorch', 'huggan', 'stablehlo', 'onnx', 'web', 'space')
_SPACES = {'web': 'static', 'space': 'gradio'}  # what the hub makes of them


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m cyclegan_jax.export',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add_model(add)
    add(
        '--output',
        required=True,
        type=local_path,
        metavar='DIR',
        help='made if it is not there',
    )
    add('--format', default='safetensors', choices=FORMATS, help='default: safetensors')
    add(
        '--dtype',
        default='float32',
        choices=('float32', 'float16'),
        help='of safetensors; float16: the generators alone, in half the bytes, to translate with',
    )
    add(
        '--onnxruntime-web',
        metavar='DIR|FILE.tgz',
        type=Path,
        help='npm package that --format=web needs; default: that of node_modules here, or fetched '
        'by npm',
    )
    add(
        '--push',
        metavar='USER/NAME',
        help='then upload it to the Hugging Face hub; web and space become a Space',
    )
    return parse_args(parser, argv)


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, 2 for what cannot be, 4 out of memory, 130 after Ctrl-C."""
    args = parse(argv)
    # Imported here, so that --help is answered at once.
    from cyclegan_jax import process

    return process.run_command(
        lambda: _export(args),
        interrupted='Interrupted; files that are there are whole, others are missing.',
        out_of_memory='end other programs that use the memory, or take another machine.',
    )


def _export(args: argparse.Namespace) -> int:
    from cyclegan_jax import card, provenance
    from cyclegan_jax.errors import UserError, printable
    from cyclegan_jax.inference import space
    from cyclegan_jax.inference.exporting import export
    from cyclegan_jax.interop import generators, hub

    web = args.format == 'web'
    if args.onnxruntime_web and not web:
        raise UserError(f'--onnxruntime-web is of no use to --format={args.format}; leave it out.')
    half = args.dtype == 'float16'
    if half and args.format != 'safetensors':
        raise UserError(f'--dtype=float16 is of --format=safetensors, not {args.format}.')
    card.check(args.output)
    networks, about = provenance.load(args.model, args.step, args.weights)
    options = {'domains': about.domains, 'runtime': args.onnxruntime_web} if web else {}
    if half:  # discriminators are not written, so that the card must not tell of them
        networks = generators(networks)
        options = {'half': True}
    note = export(networks, args.output, args.format, **options)
    if args.format == 'space':
        provenance.write_examples(args.model, args.output / space.MODEL / provenance.EXAMPLES)
    card.write(args.output, args.format, networks, about, note)
    print(printable(f'Wrote {args.output} ({args.format}).'))
    if note:
        print(note)
    if args.push:
        print(f'Pushed to {hub.push(args.output, args.push, space=_SPACES.get(args.format))}.')
    return 0


if __name__ == '__main__':
    sys.exit(main())
