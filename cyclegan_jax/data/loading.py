"""From arguments to a checked `Dataset`: all that can be wrong with the data is found here."""

import contextlib
import dataclasses
import difflib
from collections.abc import Callable
from functools import partial

from absl import logging

from cyclegan_jax.data import images
from cyclegan_jax.data.pipeline import DOMAINS, Dataset, Images, Size
from cyclegan_jax.data.records import HuggingFace, Tfds
from cyclegan_jax.data.sources import Folder, MissingSplit, Source, Synthetic, find_duplicates

SOURCES = ('synthetic', 'folder', 'tfds', 'huggingface')
GIB = 2**30


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
    max_images: int | None = None,
    cache: float = 4.0,
    num_threads: int = 4,
    skip_corrupt: bool = False,
    seed: int,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Dataset:
    """Opens both domains, checks all that can be checked, and decodes what fits into memory.

    Args:
      source: 'synthetic', 'folder', 'tfds' or 'huggingface'.
      path: the folder that holds the splits; for tfds its data_dir.
      name: which synthetic set, TFDS builder, or Hugging Face data set (id or folder).
      name_b: that of domain b, where it is another one.
      split_a, split_b, test_split_a, test_split_b: folders or splits. Without test images (''
        or absent) training images stand in for them.
      column_a, column_b: image columns of Hugging Face data sets.
      load_size, crop_size: pixels, int or (height, width).
      resize: one of `images.RESIZE_MODES`.
      flip: mirror every other training image, at random.
      channels_a, channels_b: 1 (grey), 3 (RGB) or 4 (RGBA).
      max_images: use only the first so many of each split.
      cache: GiB of memory for decoded and resized images. Where they need more, they are decoded
        anew each time, and only their headers are checked here.
      num_threads: for decoding and prefetching; 0 prefetches nothing.
      skip_corrupt: leave unusable images out, in place of refusing to start.
      seed: of shuffling and augmentation.
      batch_size: images of each domain in a global batch.
      process_index, process_count: which slice of it this process gets.

    Raises:
      ValueError: an argument or the data can't be used; it names the argument or the files.
    """
    load_size = images.as_size('data.load_size', load_size)
    crop_size = images.as_size('data.crop_size', crop_size)
    channels = {'a': channels_a, 'b': channels_b}
    _check_choice('data.source', source, SOURCES)
    _check_choice('data.resize', resize, images.RESIZE_MODES)
    for domain in DOMAINS:
        images.check_channels(channels[domain], f'data.channels_{domain}')
    for argument, value, minimum in (
        ('seed', seed, 0),
        ('batch_size', batch_size, 1),
        ('data.cache', cache, 0),
        ('data.num_threads', num_threads, 0),
        ('data.max_images', 1 if max_images is None else max_images, 1),
    ):
        if value < minimum:
            raise ValueError(f'{argument} is {value}, must be at least {minimum}')
    if batch_size % process_count:
        raise ValueError(
            f'batch_size is {batch_size}, must be a multiple of the {process_count} processes'
        )
    crops = images.crops(resize)
    # 'resize_and_crop' gives this size exactly, 'scale_width_and_crop' at least.
    fits = images.resized_size(resize, crop_size, load_size, crop_size)
    if fits[0] < crop_size[0] or fits[1] < crop_size[1]:
        raise ValueError(
            f'data.load_size is {load_size}, smaller than data.crop_size {crop_size}: raise the '
            'one or lower the other'
        )
    names = {'a': name, 'b': name_b or name}
    columns = {'a': column_a, 'b': column_b}

    def resizer(test: bool) -> Callable[[Size], Size]:
        # Before a crop test images get the crop's size, as in the reference: nothing is cut off.
        size = crop_size if test and crops else load_size
        return partial(images.resized_size, resize, load_size=size, crop_size=crop_size)

    def open_split(domain: str, split: str, test: bool) -> Images:
        match source:
            case 'synthetic':
                kind = 'test' if test else 'train'
                size = resizer(test)(load_size)
                opened = Synthetic(name, domain, kind, size, channels[domain])
            case 'folder':
                opened = Folder(path, split, channels[domain])
            case 'tfds':
                opened = Tfds(names[domain], split, path, channels[domain])
            case 'huggingface':
                opened = HuggingFace(names[domain], split, columns[domain], channels[domain])
        indices = list(range(len(opened)))[:max_images]
        return Images(
            opened, indices, channels[domain], resizer(test), crop_size if crops else (1, 1)
        )

    train = {'a': open_split('a', split_a, test=False), 'b': open_split('b', split_b, test=False)}
    tests = {}
    for domain, split in (('a', test_split_a), ('b', test_split_b)):
        with contextlib.suppress(MissingSplit):
            if split:
                tests[domain] = open_split(domain, split, test=True)
    splits = [*train.values(), *tests.values()]
    _warn_of_duplicates([images_.source for images_ in splits])
    skipped = _read_all(splits, resize, cache, num_threads, skip_corrupt)
    for domain in DOMAINS:
        if len(train[domain]) < batch_size:
            raise ValueError(
                f'batch_size is {batch_size}, but domain {domain} has only {len(train[domain])} '
                'usable training images: lower batch_size or add images'
            )
    missing = [domain for domain in DOMAINS if not tests.get(domain)]
    for domain in missing:
        tests[domain] = dataclasses.replace(
            train[domain], resized_size=resizer(test=True), kept=None
        )
    return Dataset(
        train=train,
        tests=tests,
        image_size=crop_size if crops else train['a'].size(train['a'].indices[0]),
        channels=channels,
        flip=flip,
        seed=seed,
        batch_size=batch_size,
        process_index=process_index,
        process_count=process_count,
        num_threads=num_threads,
        skipped=skipped,
        test_split_missing=bool(missing),
        paired=source == 'synthetic' and not missing,
    )


def _read_all(
    splits: list[Images], resize: str, cache: float, num_threads: int, skip_corrupt: bool
) -> list[str]:
    """Reads all headers, then decodes and keeps all images, if `cache` GiB of memory hold them.

    Returns:
      'name: reason' of the unusable images, which are dropped from `splits`.

    Raises:
      ValueError: there are some and skip_corrupt is off, or the sizes can't make a batch.
    """
    total = sum(map(len, splits))
    errors, num_bytes, first = [], 0, None
    for split in splits:
        sizes, bad = split.sift(split.size, num_threads, 'reading headers')
        errors += bad
        num_bytes += sum(height * width for height, width in sizes) * split.channels
        for index, size in zip(split.indices, sizes, strict=True):
            first = first or (split, index, size)
            if not images.crops(resize) and size != first[2]:
                raise ValueError(
                    f'data.resize={resize!r} needs images of one size, but '
                    f'{first[0].source.name(first[1])} becomes {first[2]} and '
                    f'{split.source.name(index)} becomes {size} (height, width): set '
                    "data.resize='resize_and_crop'"
                )
    keep = num_bytes <= cache * GIB
    if keep or skip_corrupt:
        for split in splits:
            errors += split.decode_all(keep, num_threads)
    if keep:
        logging.info('%d decoded images kept in %.2f GiB of memory', total, num_bytes / GIB)
    else:
        logging.info(
            'images are decoded anew each time: they would take %.2f GiB, data.cache is %s',
            num_bytes / GIB,
            cache,
        )
    lines = [str(error) for error in errors]
    if lines and not skip_corrupt:
        more = f'; and {len(lines) - 5} more' if len(lines) > 5 else ''
        raise ValueError(
            f"{len(lines)} of {total} images can't be used: {'; '.join(lines[:5])}{more} (remove "
            'them, or set data.skip_corrupt=True)'
        )
    return lines


def _warn_of_duplicates(sources: list[Source]) -> None:
    pairs = find_duplicates([source for source in sources if isinstance(source, Folder)])
    if pairs:
        named = '; '.join(f'{first} and {second}' for first, second in pairs[:5])
        logging.warning(
            '%d file(s) of one split are equal to one of another: %s', len(pairs), named
        )


def _check_choice(argument: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        close = difflib.get_close_matches(value, choices, n=1)
        hint = f', did you mean {close[0]!r}?' if close else ''
        raise ValueError(f'{argument} is {value!r}, must be one of {", ".join(choices)}{hint}')
