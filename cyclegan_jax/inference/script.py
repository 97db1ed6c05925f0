"""The translate script: from files to files."""

import glob
import itertools
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from tqdm import tqdm

from cyclegan_jax.data.images import ImageError, read_size
from cyclegan_jax.inference import pictures
from cyclegan_jax.inference.translator import Translator
from cyclegan_jax.interop import load_pretrained

_THREADS = 4  # that decode and encode while the device computes


class Job(NamedTuple):
    source: Path
    target: Path


def load_translators(
    model: str, directions: list[str], step: int | str | None
) -> dict[str, Translator]:
    """A translator for each direction; a file with one generator serves one direction only.

    Raises:
      ValueError: there is no such model, or not in all these directions.
    """
    if len(directions) == 1:
        return {directions[0]: Translator.from_pretrained(model, directions[0], step)}
    networks = load_pretrained(model, step=step)
    if missing := set(directions) - set(networks):
        raise ValueError(
            f'{model} has no generator {missing.pop()}; give --direction={",".join(networks)}.'
        )
    return {direction: Translator(networks[direction]) for direction in directions}


def translate(
    translator: Translator,
    jobs: list[Job],
    *,
    batch_size: int = 1,
    size: int | tuple[int, int] | None = None,
    tile: int | None = None,
    label: str = '',
) -> int:
    """Translates files; names each that cannot be done on stderr, and goes on.

    Returns:
      How many could not be done.
    """
    failed = 0
    with (
        ThreadPoolExecutor(_THREADS) as pool,
        tqdm(total=len(jobs), desc=label, unit='image', disable=None) as bar,
    ):

        def collect(pending: Iterable[tuple[Job, Future]]) -> list[tuple[Job, Image.Image | None]]:
            nonlocal failed
            done = []
            for job, future in pending:
                try:
                    done.append((job, future.result()))
                except (ImageError, OSError) as error:
                    failed += 1
                    bar.write(f'error: {_one_line(error, job)}', file=sys.stderr)
            return done

        writing = []
        for reading in _submit_ahead(pool, _batches(jobs, batch_size)):
            batch = collect(reading)
            images = [image for _, image in batch]
            results = translator(images, batch_size=batch_size, size=size, tile=tile)
            collect(writing)  # of the batch before, so that few pictures are held at once
            writing = [
                (job, pool.submit(pictures.write, result, job.target))
                for (job, _), result in zip(batch, results, strict=True)
            ]
            bar.update(len(reading))
        collect(writing)
    return failed


def find_images(source: str, exclude: Path) -> list[tuple[Path, Path]]:
    """Image files, each with its path relative to what of `source` is fixed.

    Args:
      source: a file, a folder (all images below it), or a glob pattern.
      exclude: a folder to pass over, should it lie below `source`; hidden files are, too.

    Raises:
      ValueError: there are none.
    """
    path = Path(source)
    if path.is_file():
        return [(path, Path(path.name))]
    fixed = list(itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
    pattern = path.parts[len(fixed) :]
    if path.is_dir():
        root, found = path, path.rglob('*')
    elif pattern:
        root = Path(*fixed)
        found = root.glob(str(Path(*pattern)))
    else:
        raise ValueError(f'{source} does not exist: no file, no folder, and no pattern.')
    inner, outer = exclude.resolve(), root.resolve()
    below = inner.relative_to(outer) if outer in inner.parents else None
    images = []
    for file in sorted(found):
        relative = file.relative_to(root)
        hidden = any(part.startswith('.') for part in relative.parts)
        wanted = file.suffix.lower() in pictures.SUFFIXES and not file.is_dir()
        if wanted and not hidden and not (below and relative.is_relative_to(below)):
            images.append((file, relative))
    if not images:
        raise ValueError(f'{source} has no images ({" ".join(pictures.SUFFIXES)}).')
    return images


def make_jobs(
    images: list[tuple[Path, Path]],
    output: Path,
    *,
    suffix: str | None = None,
    skip_existing: bool = False,
) -> list[Job]:
    """Where each of `find_images` goes, below `output`.

    Args:
      suffix: of the results, such as '.png'; by default each keeps its own.
      skip_existing: leave out what is there already.

    Raises:
      ValueError: two pictures would become one file, or one would replace its own source, or a
        suffix names no format.
    """
    jobs = {}
    for source, relative in images:
        target = output / (relative.with_suffix(suffix) if suffix else relative)
        pictures.format_of(target)
        if target in jobs:
            raise ValueError(
                f'{jobs[target].source} and {source} would both become {target}; rename one, or '
                'leave out --format.'
            )
        if target.exists() and target.samefile(source):
            raise ValueError(f'{source} would be replaced; choose another --output.')
        jobs[target] = Job(source, target)
    return [job for job in jobs.values() if not (skip_existing and job.target.exists())]


def _batches(jobs: list[Job], batch_size: int) -> Iterator[list[Job]]:
    """Jobs in batches of one picture size; the sizes are read from the files' headers."""
    if batch_size == 1:
        yield from ([job] for job in jobs)
        return

    def size(job):
        try:
            return read_size(job.source)
        except ImageError:
            return 0, 0  # reported when it is decoded

    for _, alike in itertools.groupby(sorted(jobs, key=size), key=size):
        alike = list(alike)
        yield from (alike[i : i + batch_size] for i in range(0, len(alike), batch_size))


def _submit_ahead(
    pool: ThreadPoolExecutor, batches: Iterable[list[Job]]
) -> Iterator[list[tuple[Job, Future]]]:
    """Starts to read each batch while the one before it is in use."""
    pending = deque()
    for batch in batches:
        pending.append([(job, pool.submit(pictures.read, job.source)) for job in batch])
        if len(pending) > 1:
            yield pending.popleft()
    yield from pending


def _one_line(error: Exception, job: Job) -> str:
    message = str(error).partition('\n')[0]
    return message if str(job.source) in message else f'{job.source}: {message}'
