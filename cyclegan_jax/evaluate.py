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
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from cyclegan_jax.arguments import add_weights, local_name, parse_args, path_name
from cyclegan_jax.errors import UserError, check_at_least, printable, tell


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m cyclegan_jax.evaluate',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument_group('a training run').add_argument
    add('--workdir', type=path_name, metavar='DIR', help='the run')
    add('--step', default='latest', help='a number, latest (default) or best')
    add('--all-steps', action='store_true', help='every checkpoint that is there')
    add_weights(add)
    add('--paired', action='store_true', help='test images of one name show the same thing')
    add(
        '--save-images',
        type=local_name,
        metavar='DIR',
        help='also write the scored translations there, as PNG',
    )
    add('--overwrite', action='store_true', help='into a folder that holds images already')

    add = parser.add_argument_group('two folders of pictures').add_argument
    add(
        '--fake',
        type=local_name,
        metavar='DIR',
        help='translations; a video counts as a folder of its frames',
    )
    add(
        '--real', type=local_name, metavar='DIR|FILE.npz', help='real pictures of the target domain'
    )
    add(
        '--other-real',
        type=local_name,
        metavar='DIR',
        help='more of them, for the floor (default: halves of --real)',
    )
    add(
        '--input',
        type=local_name,
        metavar='DIR',
        help='what was translated, for the ceiling and flicker',
    )
    add(
        '--truth',
        type=local_name,
        metavar='DIR',
        help='the right translations, for PSNR, SSIM and L1',
    )
    add(
        '--save-real',
        type=local_name,
        metavar='FILE.npz',
        help='keep the features of --real, to be used in its place',
    )

    add = parser.add_argument_group('two folders of label maps').add_argument
    add('--predictions', type=local_name, metavar='DIR', help='predicted from translations')
    add('--labels', type=local_name, metavar='DIR', help='the truth')
    add(
        '--untranslated',
        type=local_name,
        metavar='DIR',
        help='predicted without translation, to compare with',
    )
    add(
        '--oracle',
        type=local_name,
        metavar='DIR',
        help='predicted after training on real labels: the goal',
    )
    add('--palette', default='cityscapes', help='classes and colours: cityscapes, labels, stripes')
    add(
        '--label-ids', action='store_true', help="class numbers are Cityscapes' and GTA5's labelIds"
    )

    add = parser.add_argument_group('scores').add_argument
    add('--metrics', help='comma-separated, of those below; default: those with a *')
    add(
        '--inception',
        type=local_name,
        metavar='FILE',
        help='weights of the FID network, as .pth or converted',
    )
    add(
        '--features',
        type=local_name,
        metavar='FILE.onnx',
        help='a feature network: adds frechet_NAME and kid_NAME (see docs/evaluation.md)',
    )
    add(
        '--save-inception',
        type=local_name,
        metavar='FILE.safetensors',
        help='only convert them, to need no torch',
    )
    add('--legacy', action='store_true', help="label scores by the paper's formula")
    add('--batch-size', type=int, default=16, help='images in a call of a network (default 16)')
    add(
        '--output',
        type=local_name,
        metavar='FILE.json',
        help='where to write all numbers and their protocol',
    )
    if not {'-h', '--help'}.isdisjoint(sys.argv if argv is None else argv):
        # The one thing in it that is not known at once.
        from cyclegan_jax.evaluation import scores

        parser.epilog = 'metrics, and the scores of each:\n' + scores.overview()
    return parse_args(parser, argv, 'see --help; scores are chosen by --metrics=NAME,NAME')


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    # Imported here, so that --help and a mistyped flag are answered at once.
    from cyclegan_jax import process

    return process.run_command(
        lambda: _evaluate(args),
        interrupted='Interrupted: what is written is whole; the rest is not there.',
        out_of_memory='give a smaller --batch-size.',
    )


def _evaluate(args: argparse.Namespace) -> int:
    """Returns the exit status: 0, or 2 if all was done but what needs the Inception weights."""
    from cyclegan_jax import storage
    from cyclegan_jax.evaluation import inception_weights, scores

    check_at_least('--batch-size', args.batch_size, 1)
    for flag, path in {'--output': args.output, '--save-real': args.save_real}.items():
        if path and (path.endswith('/') or Path(path).is_dir()):
            raise UserError(f'{flag}={path} is a folder; name a file')
    if args.save_inception:
        path = args.inception or os.environ.get(inception_weights.VARIABLE)
        if not path:
            raise UserError('--save-inception wants --inception=FILE, the file to be converted')
        inception_weights.convert(path, args.save_inception)
        print(f'Written: {printable(args.save_inception)}')
        return 0
    if sum(map(bool, (args.workdir, args.fake, args.predictions))) != 1:
        raise UserError(
            'give one of --workdir=DIR, --fake=DIR with --real=DIR, --predictions=DIR with '
            '--labels=DIR'
        )
    missing, written = {}, []
    for found, tables, path in _results(args):
        print(*tables, sep='\n')
        missing |= found.get('not_computed', {})
        if path:
            if not storage.in_bucket(path):  # there are no folders in a bucket
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            storage.write_json(path, found)
            written.append(path)
    if missing:
        print(f'  not computed: {printable(scores.listed(missing))}')
    for path in written:
        print(f'Written: {printable(str(path))}')
    weighted = [m.name for m in scores.METRICS.values() if scores.WEIGHTS in m.needs]
    lost = [name for name in weighted if name in missing]
    if args.metrics and lost:  # else nobody asked for them by name
        tell(f'All else is done. Not computed: {", ".join(lost)}.')
        return 2
    return 0


def _results(args: argparse.Namespace) -> Iterator[tuple[dict, list[str], str | Path | None]]:
    """What the flags ask for: (result, tables, where it is to be written)."""
    from cyclegan_jax import evaluation
    from cyclegan_jax.evaluation import report
    from cyclegan_jax.storage import as_path

    def chosen(*names: str) -> dict:
        return {name: getattr(args, name) for name in names}

    if args.predictions:
        if not args.labels:
            raise UserError('--predictions=DIR wants --labels=DIR, the true label maps')
        found = evaluation.evaluate_label_maps(
            args.predictions,
            args.labels,
            **chosen('untranslated', 'oracle', 'palette', 'label_ids', 'legacy'),
        )
        yield found, [report.label_table(found)], args.output
    elif args.fake:
        if not args.real and not args.metrics:
            raise UserError(
                '--fake=DIR wants --real=DIR, the real pictures to compare with; or --metrics=NAME '
                'that need none: flicker (--input=DIR), paired (--truth=DIR)'
            )
        found = evaluation.evaluate_folders(
            args.fake,
            args.real,
            **chosen('other_real', 'input', 'truth', 'save_real'),
            **chosen('metrics', 'inception', 'features', 'batch_size'),
        )
        title = printable(f'{args.fake} against {args.real}' if args.real else args.fake)
        yield found, [report.table(title, found)], args.output
    else:
        if args.all_steps and args.step != 'latest':
            raise UserError(f'--all-steps and --step={args.step} exclude each other; leave one out')
        if args.output and args.all_steps:
            raise UserError('--output is one file but --all-steps writes several; leave one out')
        suffix = f'_{args.weights}' if args.weights else ''  # both may be asked for
        for found in evaluation.evaluate_run(
            args.workdir,
            step='all' if args.all_steps else args.step,
            paired=args.paired or None,
            **chosen('weights', 'save_images', 'overwrite'),
            **chosen('legacy', 'metrics', 'inception', 'features', 'batch_size'),
        ):
            title = printable(args.workdir) + f', step {found["step"]}'
            tables = [report.table(f'{title}, {d}', found[d]) for d in ('a2b', 'b2a')]
            name = f'step_{found["step"]}{suffix}.json'
            file = as_path(args.workdir) / 'evaluation' / name
            yield found, tables, args.output or file


if __name__ == '__main__':
    sys.exit(main())
