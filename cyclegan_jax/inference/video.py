"""Videos through a Translator, frame by frame, in parts that are kept until all is done.

Each part is encoded by itself, without frames that wait for later ones, so that parts are joined by
copying packets. What is killed leaves whole parts beside the output, and goes on after them.
"""

import contextlib
import functools
import hashlib
import itertools
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import jax
import numpy as np
from absl import logging
from PIL import Image
from tqdm import tqdm

from cyclegan_jax import storage
from cyclegan_jax.data import clips, images
from cyclegan_jax.data.clips import told
from cyclegan_jax.errors import UserError
from cyclegan_jax.inference import video_files
from cyclegan_jax.inference.translator import Translator

_PART_SECONDS, _PART_FRAMES = 30, 250  # what a kill costs at most; a part begins with a whole frame
_SHORT = 0.9  # of the frames that the header speaks of, which may be but an estimate


def translate_clip(
    translator: Translator,
    source: Path,
    target: Path,
    *,
    batch_size: int = 1,
    size: int | tuple[int, int] | None = None,
    tile: int | None = None,
    label: str = '',
    how: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[int]:
    """Translates a video; goes on after what an earlier call kept of the same translation.

    Size, times of frames and sound stay; frames are turned upright. The file appears whole, or not
    at all. Memory is taken for `batch_size` frames, however long the video is.

    Args:
      how: what else the result depends on, such as the runtime.

    Yields:
      At the start and after each part, how many frames are kept.

    Raises:
      ImageError: the video cannot be read, or the format cannot hold its sound.
      OSError: it cannot be written.
      UserError, JaxRuntimeError, MemoryError: see the Translator.
    """
    kind = video_files.format_of(target)
    options = {'batch_size': batch_size, 'size': size, 'tile': tile}
    with clips.open_clip(source) as clip:
        video_files.check_fits(clip, kind, source, target)
        plan = _plan(translator, source, size=size, tile=tile, **how)
        folder, done = _begin(target, plan)
        with tqdm(
            total=clip.count or None, initial=done, desc=label, unit='frame', disable=None
        ) as bar:
            yield done
            frames = clip.frames(skip=done)
            batches = iter(lambda: list(itertools.islice(frames, batch_size)), [])
            for batch in batches:
                first, ends = done, time.monotonic() + _PART_SECONDS
                with (
                    storage.whole(folder / f'{first:09d}.nut') as temporary,
                    video_files.open_part(temporary, clip, kind, target) as add,
                ):
                    while batch:
                        for moment, image in _translated(translator, batch, options, source):
                            add(moment, image)
                        done += len(batch)
                        bar.update(len(batch))
                        if time.monotonic() > ends or done - first >= _PART_FRAMES:
                            break
                        batch = next(batches, [])
                yield done
        if done < clip.count * _SHORT:
            logging.warning(
                '%s: has %d frames, though it says %d; is it cut off?', source, done, clip.count
            )
    video_files.join(sorted(folder.glob('*.nut')), kind, source, target)
    shutil.rmtree(folder)


def _translated(
    translator: Translator, batch: list, options: Mapping, source: Path
) -> Iterator[tuple[int, np.ndarray]]:
    to_array = functools.partial(images.to_array, channels=translator.channels[0], name=str(source))
    given = [to_array(Image.fromarray(frame)) for _, frame in batch]
    for (moment, _), image in zip(batch, translator(given, **options), strict=True):
        if image.shape[2] == 4:
            image = images.on_white(image)
        yield moment, np.broadcast_to(image, (*image.shape[:2], 3))


def _plan(translator: Translator, source: Path, **how: object) -> dict:
    """What a translation depends on: parts of another are of no use."""
    status = source.stat()
    weights = hashlib.sha256()
    for leaf in jax.tree.leaves(translator.network.params):
        weights.update(np.asarray(leaf).tobytes())
    return {
        'source': str(source.absolute()),
        'bytes': status.st_size,
        'modified': status.st_mtime_ns,
        'weights': weights.hexdigest(),
        'how': {name: str(value) for name, value in how.items()},
        'av': clips.library(str(source)).__version__,
    }


def _begin(target: Path, plan: dict) -> tuple[Path, int]:
    """The folder of parts of an output, and how many frames are in it."""
    folder = target.with_name(f'.{target.name}.parts')
    file = folder / 'plan.json'
    with contextlib.suppress(UserError):
        if file.exists() and storage.read_json(file) == plan:
            return folder, _kept(folder)
    if folder.exists():
        logging.warning(
            '%s: what was kept is of another model, source or flags; begun anew', target
        )
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    storage.write_json(file, plan)
    return folder, 0


def _kept(folder: Path) -> int:
    """How many frames the parts hold. A part is called by the number of its first frame."""
    done = 0
    for part in sorted(folder.glob('*.nut')):
        with told(str(part)) as av, av.open(str(part)) as container:
            done += sum(packet.size > 0 for packet in container.demux())
    return done
