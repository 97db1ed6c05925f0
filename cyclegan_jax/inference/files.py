"""From files to files: which pictures, where each goes, and the way through a Translator."""

import glob
import itertools
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging
from PIL import Image
from tqdm import tqdm

from cyclegan_jax.data import clips
from cyclegan_jax.data.images import ImageError, read_size
from cyclegan_jax.errors import UserError, describe, printable, shortlist
from cyclegan_jax.inference import pictures, value_files, video_files
from cyclegan_jax.inference.translator import Translator
from cyclegan_jax.interop import load_pretrained
from cyclegan_jax.pixels import Pixels

SUFFIXES = (*pictures.SUFFIXES, *clips.SUFFIXES)  # of photographs
_THREADS = 4  # that decode and encode while the device computes
_NO_PILLOW = ('.heic', '.heif')  # pictures of which Pillow knows nothing


class Job(NamedTuple):
    source: Path
    target: Path


def load_translators(
    model: str,
    directions: list[str],
    step: int | str | None,
    weights: str | None = None,
    **how: str,
) -> dict[str, Translator]:
    """A translator for each direction; a file with one generator serves one direction only.

    Args:
      how: `runtime` and `dtype` of the translators.

    Raises:
      UserError: there is no such model, or not in all these directions; or of the Translator.
    """
    if len(directions) == 1:
        only = directions[0]
        return {only: Translator.from_pretrained(model, only, step, weights, **how)}
    networks = load_pretrained(model, step=step, weights=weights)
    if missing := set(directions) - set(networks):
        raise UserError(
            f'{model} has no generator {missing.pop()}; give --direction={",".join(networks)}.'
        )
    return {
        name: Translator(networks[name], name=f'{name} of {model}', **how) for name in directions
    }


def translate_files(
    translator: Translator,
    jobs: list[Job],
    *,
    batch_size: int = 1,
    size: int | tuple[int, int] | None = None,
    tile: int | None = None,
    colour: str = 'keep',
    label: str = '',
) -> int:
    """Translates files; names each that cannot be done on stderr, and goes on.

    Returns:
      How many could not be done.

    Raises:
      UserError: the generator is of no use.
      JaxRuntimeError (RESOURCE_EXHAUSTED), MemoryError: a picture is too large for the memory.
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
                    bar.write(printable(f'error: {_one_line(error, job)}'), file=sys.stderr)
            return done

        writing = []
        for reading in _submit_ahead(pool, _batches(jobs, batch_size), translator):
            batch = collect(reading)
            images = [image for _, image in batch]
            try:
                results = _translated(
                    translator, images, batch_size=batch_size, size=size, tile=tile, colour=colour
                )
            except MemoryError as error:
                raise MemoryError(f'{batch[0][0].source}: {error}') from error
            collect(writing)  # of the batch before, so that few pictures are held at once
            writing = [
                (job, pool.submit(_write, result, source, job.target))
                for (job, source), result in zip(batch, results, strict=True)
            ]
            bar.update(len(reading))
        collect(writing)
    return failed


def find_images(
    source: str, exclude: Path, suffixes: tuple[str, ...] = pictures.SUFFIXES
) -> list[tuple[Path, Path]]:
    """Image files, each with its path relative to what of `source` is fixed.

    Args:
      source: a file, a folder (all images below it), or a glob pattern.
      exclude: a folder to pass over, should it lie below `source`; hidden files are, too.

    Raises:
      UserError: there are none.
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
        raise UserError(f'{source} does not exist: no file, no folder, and no pattern.')
    inner, outer = exclude.resolve(), root.resolve()
    below = inner.relative_to(outer) if outer in inner.parents else None
    images, passed_over = [], Counter()
    Image.init()
    others = {*Image.registered_extensions(), *_NO_PILLOW}
    for file in sorted(found):
        relative, suffix = file.relative_to(root), file.suffix.lower()
        hidden = any(part.startswith('.') for part in relative.parts)
        if hidden or (below and relative.is_relative_to(below)) or file.is_dir():
            continue
        if value_files.suffix_of(file) in suffixes:
            images.append((file, relative))
        elif suffix in others:
            passed_over[suffix] += 1
    if passed_over:
        kinds = shortlist(f'{number} {suffix}' for suffix, number in passed_over.items())
        logging.warning('%s: passed over %s, which are not read here', source, kinds)
    if not images:
        raise UserError(f'{source} has no images ({" ".join(suffixes)}).')
    return images


def make_jobs(
    images: list[tuple[Path, Path]],
    output: Path,
    *,
    suffix: str | None = None,
    skip_existing: bool = False,
    overwrite: bool = False,
    pixels: Pixels | None = None,
) -> list[Job]:
    """Where each of `find_images` goes, below `output`.

    Args:
      suffix: of the results, such as '.png'; by default each keeps its own. One of pictures is for
        pictures only, one of videos for videos.
      skip_existing: leave out what is there already.
      pixels: of the results, where they are not photographs.
      overwrite: replace it, whoever made it; otherwise only what an earlier translation made.

    Raises:
      UserError: two pictures would become one file, one would replace its own source or a file that
        is not a translation, or a suffix names no format.
    """
    jobs = {}
    if suffix and all(clips.is_clip(source) != clips.is_clip(f'x{suffix}') for source, _ in images):
        what = 'pictures' if clips.is_clip(images[0][0]) else 'videos'
        raise UserError(f'--format={suffix[1:]} is for {what}; {images[0][0]} is none.')
    for source, relative in images:
        if suffix and clips.is_clip(source) == clips.is_clip(f'x{suffix}'):
            stem = relative.name[: -len(value_files.suffix_of(relative)) or None]
            relative = relative.with_name(stem + suffix)
        target = output / relative
        if pixels is None:
            (video_files if clips.is_clip(source) else pictures).format_of(target)
        else:
            value_files.check_target(target, pixels)
        if target in jobs:
            raise UserError(
                f'{jobs[target].source} and {source} would both become {target}; rename one, or '
                'leave out --format.'
            )
        if _exists(target) and target.samefile(source):
            raise UserError(f'{source} would be replaced; choose another --output.')
        jobs[target] = Job(source, target)
    existing = {target for target in jobs if _exists(target)}
    if skip_existing:
        return [job for job in jobs.values() if job.target not in existing]
    foreign = [target for target in sorted(existing) if not _is_ours(target, pixels)]
    if foreign and not overwrite:
        raise UserError(
            f'{shortlist(foreign)} would be replaced, and may be no translation; choose another '
            '--output, or give --overwrite or --skip-existing.'
        )
    return list(jobs.values())


def _is_ours(path: Path, pixels: Pixels | None) -> bool:
    if pixels is not None:
        return value_files.is_ours(path)
    return (video_files if clips.is_clip(path) else pictures).is_ours(path)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a name that is too long: told when it is written
        return False


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
    pool: ThreadPoolExecutor, batches: Iterable[list[Job]], translator: Translator
) -> Iterator[list[tuple[Job, Future]]]:
    """Starts to read each batch while the one before it is in use."""
    pending = deque()
    for batch in batches:
        pending.append([(job, pool.submit(_read, job, translator)) for job in batch])
        if len(pending) > 1:
            yield pending.popleft()
    yield from pending


def _translated(translator: Translator, sources: list, **how) -> list:
    if translator.photographs:
        return translator(sources, **how)
    return [np.stack(translator(list(source.images), **how)) for source in sources]


def _write(result, source, path: Path) -> None:
    if isinstance(source, value_files.Values):
        value_files.write(result, source, path)
    else:
        pictures.write(result, path)


def _read(job: Job, translator: Translator) -> Image.Image | value_files.Values:
    if not translator.photographs:
        return value_files.read(job.source, translator.pixels[0])
    image = pictures.read(job.source)
    pictures.check_size(image.size, job.target)  # before the work is done
    return image


def _one_line(error: ImageError | OSError, job: Job) -> str:
    message = printable(str(error)) if isinstance(error, ImageError) else describe(error)
    return message if printable(str(job.source)) in message else f'{job.source}: {message}'
