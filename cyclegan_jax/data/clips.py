"""Videos, read frame by frame; nothing but the frame at hand is held."""

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from cyclegan_jax.data.images import ImageError

SUFFIXES = ('.mp4', '.m4v', '.mov', '.mkv', '.webm', '.avi')

# From the matrix that a video is tagged with (AVCOL_SPC of FFmpeg) to its name in swscale.
_MATRICES = {1: 'ITU709', 4: 'FCC', 5: 'ITU601', 6: 'ITU601', 7: 'SMPTE240M', 9: 'BT2020'}
_HIGH_DEFINITION = 720  # lines; from there on players take what is not tagged for ITU 709
TELEVISION, FULL_RANGE = 1, 2  # levels from 16 to 235, or all: AVCOL_RANGE_MPEG and _JPEG


def is_clip(path: str | os.PathLike) -> bool:
    return Path(path).suffix.lower() in SUFFIXES


def library(name: str):
    """PyAV; raises ImageError, of the video `name`, where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise ImageError(
            name, "is a video, which needs PyAV: pip install 'cyclegan_jax[video]'"
        ) from error
    av.logging.set_level(None)  # it prints what is told here in one line
    return av


@contextlib.contextmanager
def told(name: str, what: str = 'cannot be read as a video') -> Iterator:
    """Yields PyAV; what it raises becomes an ImageError of the video `name`, that says `what`."""
    av = library(name)
    try:
        yield av
    except av.error.FFmpegError as error:
        raise ImageError(name, f'{what} ({error.strerror})') from error


@contextlib.contextmanager
def open_clip(path: str | os.PathLike) -> Iterator['Clip']:
    """Opens a video for reading.

    Raises:
      ImageError: it cannot be read, has no moving picture, or PyAV is not installed.
    """
    with told(str(path)) as av, av.open(str(path)) as container:
        yield Clip(str(path), container)


class Clip:
    """An open video.

    container: of PyAV. stream: the moving picture in it.
    time_base, rate: of a tick of pts in seconds, and frames in a second on the average.
    count: of frames, as far as the header tells; 0 where it does not.
    matrix: the colour matrix, by its name in swscale.
    rotation: in degrees, counterclockwise, by which the last frame was turned.
    """

    def __init__(self, name: str, container):
        self._name, self.container = name, container
        self.stream = stream = container.streams.best('video')
        cover = library(name).stream.Disposition.attached_pic  # of a song
        if stream is None or not stream.codec_context or stream.disposition & cover:
            raise ImageError(name, 'has no moving picture')
        stream.thread_type = 'AUTO'
        self.rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
        self.time_base = Fraction(stream.time_base or 1 / self.rate)
        seconds = container.duration / 1e6 if container.duration else 0
        self.count = stream.frames or round(seconds * self.rate)
        untagged = 'ITU709' if stream.codec_context.height >= _HIGH_DEFINITION else 'ITU601'
        self.matrix = _MATRICES.get(stream.codec_context.colorspace, untagged)
        self.rotation = 0

    def frames(self, skip: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """Each frame after the first `skip`: its time in ticks, and uint8 (h, w, 3), upright.

        Times grow strictly. A frame that changes in size is resized to that of the first.

        Raises:
          ImageError: one cannot be decoded, or there is none.
        """
        av, number, last = library(self._name), -1, 0
        size = self.stream.codec_context.width, self.stream.codec_context.height
        step = max(1, round(1 / self.rate / self.time_base))
        try:
            for number, frame in enumerate(self.container.decode(self.stream)):
                if not number:
                    last = frame.pts or 0
                else:
                    last = last + step if frame.pts is None else max(frame.pts, last + 1)
                if number >= skip:
                    self.rotation = frame.rotation
                    yield last, self._upright(frame, size)
        except av.error.FFmpegError as error:
            reason = f'frame {number + 2} cannot be decoded ({error.strerror})'
            raise ImageError(self._name, reason) from error
        if number < 0:
            raise ImageError(self._name, 'has no frame that can be decoded')

    def _upright(self, frame, size: tuple[int, int]) -> np.ndarray:
        full = frame.color_range == FULL_RANGE or frame.format.name.startswith('yuvj')
        rgb = frame.reformat(
            *size,
            format='rgb24',
            src_colorspace=self.matrix,
            src_color_range=FULL_RANGE if full else TELEVISION,
            dst_color_range=FULL_RANGE,
        )
        return np.rot90(rgb.to_ndarray(), round(frame.rotation / 90))


class Frames:
    """The frames of a video as pictures of a folder are: `[i]`, `name` and `size`.

    They are quick to read in their order only.

    Raises:
      ImageError: it cannot be read, now or when a frame is.
    """

    def __init__(self, path: str | os.PathLike):
        self._path, self._number, self._reading = Path(path), -1, iter(())
        with open_clip(path) as clip:
            _, first = next(clip.frames())
            self._size = first.shape[:2]
        with open_clip(path) as clip, told(str(path)):
            self._count = sum(1 for _ in clip.container.decode(clip.stream))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> np.ndarray:
        if number != self._number:
            if number != self._number + 1 or not number:
                self._reading = _read(self._path, number)
            self._number, (_, self._frame) = number, next(self._reading)
        return self._frame

    def name(self, number: int) -> str:
        return str(self._path / f'{number:06d}{self._path.suffix.lower()}')

    def size(self, number: int) -> tuple[int, int]:
        return self._size


def _read(path: Path, skip: int) -> Iterator[tuple[int, np.ndarray]]:
    with open_clip(path) as clip:
        yield from clip.frames(skip)
