"""Scores of translations: which checkpoint is best, and how good is it?

Three ways to ask, each a command:

    python -m cyclegan_jax.evaluate --workdir=runs/x
    python -m cyclegan_jax.evaluate --fake=DIR --real=DIR
    python -m cyclegan_jax.evaluate --predictions=DIR --labels=DIR

The first translates a run's test images, both ways, and writes evaluation/step_N.json there. The
second scores any pictures against any others. The third scores label maps: what a segmentation
network, or a photo-to-labels translation, makes of pictures whose labels are known.
"""

import argparse
import sys


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m cyclegan_jax.evaluate',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument_group('a training run').add_argument
    add('--workdir', metavar='DIR', help='the run')
    add('--step', default='latest', help='a number, latest (default) or best')
    add('--all-steps', action='store_true', help='every checkpoint that is there')
    add('--paired', action='store_true', help='test images of one name show the same thing')
    add('--save-images', metavar='DIR', help='also write the scored translations there, as PNG')
    add('--overwrite', action='store_true', help='into a folder that holds images already')

    add = parser.add_argument_group('two folders of pictures').add_argument
    add('--fake', metavar='DIR', help='translations')
    add('--real', metavar='DIR|FILE.npz', help='real pictures of the target domain')
    add(
        '--other-real',
        metavar='DIR',
        help='more of them, for the floor (default: halves of --real)',
    )
    add('--input', metavar='DIR', help='what was translated, for the ceiling')
    add('--truth', metavar='DIR', help='the right translations, for PSNR, SSIM and L1')
    add(
        '--save-real',
        metavar='FILE.npz',
        help='keep the features of --real, to be used in its place',
    )

    add = parser.add_argument_group('two folders of label maps').add_argument
    add('--predictions', metavar='DIR', help='predicted from translations')
    add('--labels', metavar='DIR', help='the truth')
    add('--untranslated', metavar='DIR', help='predicted without translation, to compare with')
    add('--oracle', metavar='DIR', help='predicted after training on real labels: the goal')
    add('--palette', default='cityscapes', help='classes and colours: cityscapes, labels, stripes')
    add(
        '--label-ids', action='store_true', help="class numbers are Cityscapes' and GTA5's labelIds"
    )

    add = parser.add_argument_group('scores').add_argument
    add('--metrics', help='comma-separated; default: all but those of fid_clean and fid_tensorflow')
    add('--inception', metavar='FILE', help='weights of the FID network, as .pth or converted')
    add('--save-inception', metavar='FILE.safetensors', help='only convert them, to need no torch')
    add('--legacy', action='store_true', help="label scores by the paper's formula")
    add('--batch-size', type=int, default=16, help='images in a call of a network (default 16)')
    add('--output', metavar='FILE.json', help='where to write all numbers and their protocol')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    # Imported here, so that --help and a mistyped flag are answered at once.
    from cyclegan_jax import process
    from cyclegan_jax.evaluation import script

    process.set_up()
    try:
        return script.run(args)
    except KeyboardInterrupt:
        print('Interrupted.', file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2


if __name__ == '__main__':
    sys.exit(main())
