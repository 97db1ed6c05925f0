"""From arguments to a checked `Dataset`: all that can be wrong with the data is found here."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from absl import logging

from cyclegan_jax.data import images
from cyclegan_jax.data.pipeline import DOMAINS, Dataset
from cyclegan_jax.data.sources import SOURCES, MissingSplit, Source, open_source
from cyclegan_jax.data.sources.folder import find_duplicates
from cyclegan_jax.data.split import Gather, Size, Split, alone
from cyclegan_jax.errors import UserError, check_at_least, check_choice, describe, shortlist
from cyclegan_jax.pixels import Pixels, make_pixels

GIB = 2**30
# What makes a picture useless as a rule: it is pulled out of shape, or all blur.
MAX_STRETCH, MAX_ENLARGEMENT = 4, 10


def load(
    *,
    source: str = 'folder',
    path: str = '',
    name: str = '',
    name_b: str = '',
    split_a: str = 'trainA',
    split_b: str = 'trainB',
    test_split_a: str = 'testA',
    test_split_b: str = 'testB',
    column_a: str = 'imageA',
    column_b: str = 'imageB',
    load_size: int | Size = 286,
    crop_size: int | Size = 256,
    resize: str = 'resize_and_crop',
    flip: bool = True,
    channels_a: int = 3,
    channels_b: int = 3,
    dtype_a: str = 'uint8',
    dtype_b: str = 'uint8',
    range: str = 'type',
    range_a: Sequence | None = None,
    range_b: Sequence | None = None,
    outside: str = 'clip',
    not_finite: str = 'refuse',
    pages: str = 'channels',
    bands_a: str = '',
    bands_b: str = '',
    show_a: str = '',
    show_b: str = '',
    window_a: Sequence[float] | None = None,
    window_b: Sequence[float] | None = None,
    max_images: int | None = None,
    cache: float = 4.0,
    num_threads: int = 4,
    skip_corrupt: bool = False,
    seed: int,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    gather: Gather = alone,
    left_out: Mapping[str, Sequence[int]] | None = None,
    measured: Mapping[str, Pixels] | None = None,
) -> Dataset:
    """Opens both domains, checks all that can be checked, and decodes what fits into memory.

    Args:
      source: one of `sources.SOURCES`; which of the next arguments it reads, its class says.
      path: the folder that holds the splits; for tfds its data_dir.
      name: which synthetic set, TFDS builder, or Hugging Face data set (id or folder).
      name_b: that of domain b, where it is another one.
      split_a, split_b, test_split_a, test_split_b: folders or splits. Without test images (''
        or absent) training images stand in for them.
      column_a, column_b: image columns of Hugging Face data sets.
      load_size, crop_size: pixels, int or (height, width).
      resize: one of `images.RESIZE_MODES`.
      flip: mirror every other training image, at random.
      channels_a, channels_b: 1 (grey), 3 (RGB) or 4 (RGBA) of photographs; any number of others.
      dtype_a, ...: see `pixels.make_pixels`, of each domain.
      max_images: use only the first so many of each split.
      cache: GiB of memory for decoded and resized images. Where they need more, they are decoded
        anew each time, and only their headers are checked here.
      num_threads: for decoding and prefetching; 0 prefetches nothing.
      skip_corrupt: leave unusable images out, in place of refusing to start. One that can't be
        read later, or when the run goes on, is replaced by the next one.
      seed: of shuffling and augmentation.
      batch_size: images of each domain in a global batch.
      process_index, process_count: which slice of it this process gets. Each decodes as many of
        the images to check them, and any other when it shows it first.
      gather: how they tell each other which images are unusable.
      left_out: of a run that goes on, `Dataset.left_out` of its start: the same images are used
        again, in the same order, whatever can be read by now.
      measured: of a run that goes on or is scored, `Dataset.pixels` of its start: with the ranges
        of the set as it was then.

    Raises:
      UserError: an argument or the data can't be used; it names the argument or the files.
    """
    load_size = images.as_size('data.load_size', load_size)
    crop_size = images.as_size('data.crop_size', crop_size)
    make = partial(make_pixels, measured=range, outside=outside, not_finite=not_finite, pages=pages)
    of_a = {'channels': channels_a, 'dtype': dtype_a, 'bands': bands_a, 'show': show_a}
    of_b = {'channels': channels_b, 'dtype': dtype_b, 'bands': bands_b, 'show': show_b}
    pixels = {
        'a': make('a', **of_a, ends=range_a, window=window_a),
        'b': make('b', **of_b, ends=range_b, window=window_b),
    }
    check_choice('data.source', source, tuple(SOURCES))
    _check_sizes(resize, load_size, crop_size)
    _check_numbers(
        {'seed': (seed, 0), 'batch_size': (batch_size, 1), 'data.cache': (cache, 0)}
        | {'data.num_threads': (num_threads, 0), 'data.max_images': (max_images, 1)}
    )
    if batch_size % process_count:
        raise UserError(
            f'batch_size is {batch_size}; it must be a multiple of the {process_count} processes.'
        )

    own = {
        'a': {'name': name, 'column': column_a},
        'b': {'name': name_b or name, 'column': column_b},
    }
    resized_size = {test: _resizer(resize, load_size, crop_size, test) for test in (False, True)}

    def open_split(domain: str, split: str, test: bool) -> Split:
        kind = pixels[domain]
        fields = own[domain] | {'path': path, 'split': split, 'channels': kind.channels}
        size = resized_size[test](load_size)
        opened = open_source(source, **fields, domain=domain, test=test, size=size, pixels=kind)
        return Split(
            source=opened,
            indices=_numbers(opened)[:max_images],
            resized_size=resized_size[test],
            min_size=crop_size if images.crops(resize) else (1, 1),
            replace=skip_corrupt,
        )

    train = {'a': open_split('a', split_a, test=False), 'b': open_split('b', split_b, test=False)}
    tests = {}
    for domain, split in (('a', test_split_a), ('b', test_split_b)):
        with contextlib.suppress(MissingSplit):
            if split:
                tests[domain] = open_split(domain, split, test=True)
    splits = [*train.values(), *tests.values()]
    _warn_of_duplicates(splits)
    if left_out is not None:
        for domain in DOMAINS:
            train[domain].fix(left_out[domain])
    for domain in DOMAINS:
        if not pixels[domain].known:
            known = measured[domain] if measured else train[domain].measure_range(num_threads)
            for split in filter(None, (train[domain], tests.get(domain))):
                split.source.pixels = pixels[domain].with_range(known.low, known.high)
    asked = {domain: train[domain].indices for domain in DOMAINS}
    share = slice(process_index, None, process_count), gather
    size = _read_all(splits, resize, cache, num_threads, skip_corrupt, share)
    _check_lengths(train, batch_size)
    missing = [domain for domain in DOMAINS if not tests.get(domain)]
    for domain in missing:
        tests[domain] = dataclasses.replace(
            train[domain], resized_size=resized_size[True], kept=None
        )
    return Dataset(
        train=train,
        tests=tests,
        image_size=crop_size if images.crops(resize) else size,
        flip=flip,
        seed=seed,
        batch_size=batch_size,
        process_index=process_index,
        process_count=process_count,
        num_threads=num_threads,
        skipped=[describe(error) for split in splits for error in split.unusable.values()],
        left_out=left_out or {d: sorted({*asked[d]} - {*train[d].indices}) for d in DOMAINS},
        test_split_missing=bool(missing),
    )


def _numbers(source: Source) -> list[int]:
    return list(range(len(source)))  # within `load`, range is a field of the config


def _check_numbers(numbers: Mapping[str, tuple[float | None, float]]) -> None:
    """Checks values against the least of each; None is no limit."""
    for argument, (value, least) in numbers.items():
        if value is not None:
            check_at_least(argument, value, least)


def _check_sizes(resize: str, load_size: Size, crop_size: Size) -> None:
    check_choice('data.resize', resize, images.RESIZE_MODES)
    # 'resize_and_crop' gives this size exactly, 'scale_width_and_crop' at least.
    fits = images.resized_size(resize, crop_size, load_size, crop_size)
    if fits[0] < crop_size[0] or fits[1] < crop_size[1]:
        raise UserError(
            f'data.load_size is {load_size}, smaller than data.crop_size {crop_size}; raise the '
            'one or lower the other.'
        )


def _check_lengths(train: Mapping[str, Split], batch_size: int) -> None:
    for domain, split in train.items():
        if len(split) < batch_size:
            raise UserError(
                f'batch_size is {batch_size}, but domain {domain} has only {len(split)} usable '
                'training images; lower batch_size or add images.'
            )


def _resizer(resize: str, load_size: Size, crop_size: Size, test: bool) -> Callable[[Size], Size]:
    # Before a crop test images get the crop's size, as in the reference: nothing is cut off.
    size = crop_size if test and images.crops(resize) else load_size
    return partial(images.resized_size, resize, load_size=size, crop_size=crop_size)


def _warn_of_duplicates(splits: Sequence[Split]) -> None:
    pairs = find_duplicates([split.source for split in splits])
    if pairs:
        named = shortlist((f'{first} and {second}' for first, second in pairs), 5, '; ')
        logging.warning(
            '%d file(s) of one split are equal to one of another: %s', len(pairs), named
        )


def _read_all(
    splits: Sequence[Split],
    resize: str,
    cache: float,
    num_threads: int,
    skip_corrupt: bool,
    share: tuple[slice, Gather],
) -> Size | None:
    """Reads all headers, then decodes and keeps the images, if `cache` GiB of memory hold all.

    Returns:
      The size of one image; without a crop it is that of all. None if none is usable.

    Raises:
      UserError: there are unusable images and skip_corrupt is off, or their sizes can't make a
        batch.
    """
    total = sum(map(len, splits))
    num_bytes, size = _read_headers(splits, resize, num_threads)
    for split in splits:
        split.only_size = None if images.crops(resize) else size
    keep = num_bytes <= cache * GIB
    if keep or skip_corrupt:
        for split in splits:
            split.decode_all(keep, num_threads, *share)
    if keep:
        logging.info('%d decoded images kept in %.2f GiB of memory', total, num_bytes / GIB)
    else:
        logging.info(
            'images are decoded anew each time: they would take %.2f GiB, data.cache is %s',
            num_bytes / GIB,
            cache,
        )
    errors = [error for split in splits for error in split.unusable.values()]
    if errors and not (skip_corrupt and size):
        raise UserError(
            f"{len(errors)} of {total} images can't be used: {shortlist(errors, 5, '; ')} (mend or "
            'remove them, or set --config.data.skip_corrupt=True)'
        )
    return size


def _read_headers(
    splits: Sequence[Split], resize: str, num_threads: int
) -> tuple[int, Size | None]:
    """The bytes that all images take once decoded, and the size of one of them."""
    num_bytes, first, distorted = 0, None, []
    for split in splits:
        measured = split.sift(split.measure, num_threads, 'reading headers')
        for index, sizes in zip(split.indices, measured, strict=True):
            if sizes is None:
                continue
            stored, (height, width) = sizes
            itemsize = np.dtype(split.pixels.dtype).itemsize
            num_bytes += height * width * split.pixels.channels * itemsize
            first = first or (split.source.name(index), (height, width))
            if not images.crops(resize) and (height, width) != first[1]:
                raise UserError(
                    f'data.resize={resize!r} needs images of one size, but {first[0]} becomes '
                    f'{first[1]} and {split.source.name(index)} becomes {(height, width)} (height, '
                    "width); set data.resize='resize_and_crop'."
                )
            growth = height / stored[0], width / stored[1]
            if max(growth) > min(MAX_STRETCH * min(growth), MAX_ENLARGEMENT):
                distorted.append(f'{split.source.name(index)} ({stored[0]} x {stored[1]})')
    if distorted:
        logging.warning(
            '%d image(s) are pulled out of shape or enlarged more than %d times; are they meant to '
            'be here? %s',
            len(distorted),
            MAX_ENLARGEMENT,
            shortlist(distorted, 5),
        )
    return num_bytes, first and first[1]
