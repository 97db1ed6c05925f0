"""The evaluation command: reads, scores, writes, prints. `cyclegan_jax.evaluate` has its flags."""

import argparse
import difflib
import os
import sys

from cyclegan_jax.evaluation import folders, inception_weights, label_maps, training_run
from cyclegan_jax.evaluation.direction import METRICS, NEED_WEIGHTS

DEFAULT_METRICS = [name for name in METRICS if not name.endswith(('_clean', '_tensorflow'))]


def run(args: argparse.Namespace) -> int:
    """Does what the flags say.

    Returns:
      The exit status: 0, or 2 if all was done but what needs the Inception weights.

    Raises:
      ValueError, OSError, ImportError: a mistake of the user's, told in one line.
    """
    if args.batch_size < 1:
        raise ValueError(f'--batch-size is {args.batch_size}; it must be at least 1')
    path = args.inception or os.environ.get(inception_weights.VARIABLE)
    if args.save_inception:
        if not path:
            raise ValueError('--save-inception wants --inception=FILE, the file to be converted')
        inception_weights.convert(path, args.save_inception)
        print(f'Written: {args.save_inception}')
        return 0
    if sum(map(bool, (args.workdir, args.fake, args.predictions))) != 1:
        raise ValueError(
            'give one of --workdir=DIR, --fake=DIR with --real=DIR, --predictions=DIR with '
            '--labels=DIR'
        )
    if args.predictions:
        label_maps.evaluate(args)
        return 0
    metrics = parse_metrics(args.metrics)
    in_need = [name for name in metrics if name in NEED_WEIGHTS]
    weights, sha256 = inception_weights.load(path) if path and in_need else (None, None)
    evaluate = training_run.evaluate if args.workdir else folders.evaluate
    written = []
    if weights or len(in_need) < len(metrics):
        written = evaluate(args, metrics, weights, sha256)
    for file in written:
        print(f'Written: {file}')
    if in_need and weights is None:
        print(inception_weights.MISSING, file=sys.stderr)
        print(f'All else is done. Not computed: {", ".join(in_need)}.', file=sys.stderr)
        return 2
    return 0


def parse_metrics(text: str | None, flag: str = '--metrics') -> list[str]:
    """The metrics named in a comma-separated list; the default ones for None.

    Args:
      flag: what errors call the list.

    Raises:
      ValueError: one that does not exist.
    """
    names = DEFAULT_METRICS if text is None else [name.strip() for name in text.split(',')]
    for name in names:
        if name not in METRICS:
            close = difflib.get_close_matches(name, METRICS, n=1)
            hint = f', did you mean {close[0]!r}?' if close else ''
            raise ValueError(f'{flag} has {name!r}{hint}; choose from {", ".join(METRICS)}')
    return list(dict.fromkeys(names))
