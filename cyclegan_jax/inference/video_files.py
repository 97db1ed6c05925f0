"""Files of videos, written in parts that are joined by copying packets, with the sound copied too.

Parts lie in containers of the kind nut, which keeps times in any unit.
"""

import contextlib
import heapq
import io
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from absl import logging

from cyclegan_jax import storage
from cyclegan_jax.data import clips
from cyclegan_jax.data.clips import Clip, told
from cyclegan_jax.data.images import ImageError
from cyclegan_jax.errors import UserError
from cyclegan_jax.inference import pictures


class _Encoder(NamedTuple):
    """How frames are encoded; `odd`: sides may be odd with colours of half the resolution."""

    codec: str
    options: Mapping[str, str]
    odd: bool = False

    def halves(self, *sides: int) -> bool:
        """Whether colours have half the resolution, as all players expect, for these sides."""
        return self.odd or all(side % 2 == 0 for side in sides)


class _Format(NamedTuple):
    """What a suffix stands for."""

    container: str
    encoder: _Encoder
    options: Mapping[str, str] = MappingProxyType({})


# A crf of 18 is commonly taken for no loss that the eye sees. Without B-frames, and without the
# hidden frames of VP9, packets are in the order in which they are shown.
_H264 = _Encoder('libx264', {'crf': '18', 'bf': '0', 'x264-params': 'force-cfr=1'})
_VP9 = _Encoder(
    'libvpx-vp9',
    {'crf': '24', 'b': '0', 'auto-alt-ref': '0', 'cpu-used': '4', 'row-mt': '1'},
    odd=True,
)
_AT_ONCE = MappingProxyType({'movflags': '+faststart'})  # browsers play it while it is loading
_FORMATS = {
    '.mp4': _Format('mp4', _H264, _AT_ONCE),
    '.m4v': _Format('mp4', _H264, _AT_ONCE),
    '.mov': _Format('mov', _H264, _AT_ONCE),
    '.mkv': _Format('matroska', _H264),
    '.webm': _Format('webm', _VP9),
}


def format_of(path: Path) -> _Format:
    """Raises UserError if the path's suffix names no format of videos that is written."""
    if path.suffix.lower() not in _FORMATS:
        kinds = ', '.join(suffix[1:] for suffix in _FORMATS)
        raise UserError(f'{path} is no kind of video that is written: choose --format, of {kinds}.')
    return _FORMATS[path.suffix.lower()]


def is_ours(path: Path) -> bool:
    """Whether `join` made a file: its comment says so."""
    try:
        with clips.open_clip(path) as clip:
            comments = {key.lower(): value for key, value in clip.container.metadata.items()}
            return comments.get('comment') == pictures.MARK
    except (ImageError, OSError):
        return False


def check_fits(clip: Clip, kind: _Format, source: Path, target: Path) -> None:
    """Raises ImageError where the output cannot hold the sound; warns of what becomes different."""
    with told(str(target)) as av, av.open(io.BytesIO(), 'w', format=kind.container) as empty:
        held = empty.supported_codecs
    for sound in clip.container.streams.audio:
        codec = sound.codec_context.name if sound.codec_context else 'of an unknown kind'
        if codec not in held:
            raise ImageError(
                str(source),
                f'its sound is {codec}, which {target.suffix} cannot hold; choose --format=mkv',
            )
    if clip.container.streams.subtitles:
        logging.warning('%s: subtitles are left out', source)
    context = clip.stream.codec_context
    if not kind.encoder.halves(context.height, context.width):
        logging.warning(
            '%s: %d x %d has an odd side, so colours are written as yuv444p, which some players do '
            'not show; --format=webm has no such limit',
            source,
            context.width,
            context.height,
        )


@contextlib.contextmanager
def open_part(path: Path, clip: Clip, kind: _Format, target: Path) -> Iterator[Callable]:
    """Yields a function that encodes a frame: (time in ticks of the clip, uint8 (h, w, 3))."""
    with (
        told(str(target), 'cannot be written') as av,
        av.open(str(path), 'w', format='nut') as container,
    ):
        stream = None

        def add(moment: int, image: np.ndarray) -> None:
            nonlocal stream
            if stream is None:
                stream = _add_video(container, clip, kind, image.shape)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format='rgb24')
            frame = frame.reformat(
                format=stream.codec_context.pix_fmt,
                src_color_range=clips.FULL_RANGE,
                dst_colorspace=clip.matrix,
                dst_color_range=clips.TELEVISION,
            )
            frame.pts, frame.time_base = moment, clip.time_base
            container.mux(stream.encode(frame))

        yield add
        container.mux(stream.encode())


def _add_video(container, clip: Clip, kind: _Format, shape: tuple[int, ...]):
    """The stream of the translation; its encoder begins with the same header in each container."""
    source, encoder = clip.stream.codec_context, kind.encoder
    stream = container.add_stream(encoder.codec, rate=clip.rate, options=dict(encoder.options))
    stream.height, stream.width = shape[:2]
    stream.pix_fmt = 'yuv420p' if encoder.halves(*shape[:2]) else 'yuv444p'
    context = stream.codec_context
    context.time_base = stream.time_base = clip.time_base
    context.color_range = clips.TELEVISION
    for name in ('colorspace', 'color_primaries', 'color_trc'):
        setattr(context, name, getattr(source, name))
    aspect = source.sample_aspect_ratio
    if aspect:
        context.sample_aspect_ratio = 1 / aspect if clip.rotation % 180 else aspect
    return stream


def join(parts: list[Path], kind: _Format, source: Path, target: Path) -> None:
    """Writes the parts, and the sound of the source, as one file."""
    with (
        clips.open_clip(source) as clip,
        clips.open_clip(source) as sounding,
        storage.whole(target) as temporary,
        told(str(target), 'cannot be written') as av,
        av.open(str(temporary), 'w', format=kind.container, options=dict(kind.options)) as out,
    ):
        out.metadata.update(_carried(clip.container.metadata))
        _, frame = next(clip.frames())  # which also finds `clip.rotation`
        video = _add_video(out, clip, kind, frame.shape)
        sounds = {}
        for sound in sounding.container.streams.audio:
            sounds[sound] = out.add_stream_from_template(sound)
            sounds[sound].metadata.update(sound.metadata)
        streams = [_pictures(parts, video)]
        if sounds:
            streams.append(_sounds(sounding, sounds, source))
        # In the order of time: what comes too early would be held in memory.
        for packet in heapq.merge(*streams, key=lambda packet: packet.dts * packet.time_base):
            out.mux(packet)


def _pictures(parts: list[Path], stream) -> Iterator:
    """The packets of all parts, for the stream of the output; each lasts until the next."""
    before = None
    for packet in itertools.chain.from_iterable(map(_packets, parts)):
        packet.stream = stream
        if before is not None:
            before.duration = packet.pts - before.pts
            yield before
        before = packet
    before.duration = round(1 / stream.average_rate / before.time_base)
    yield before


def _packets(part: Path) -> Iterator:
    with told(str(part)) as av, av.open(str(part)) as container:
        for packet in container.demux():
            if packet.size:
                packet.dts = packet.pts
                yield packet


def _sounds(clip: Clip, streams: Mapping, source: Path) -> Iterator:
    """The packets of the sound as they are, for the streams of the output."""
    with told(str(source)):
        for packet in clip.container.demux(list(streams)):
            if packet.size and packet.pts is not None:
                if packet.dts is None:
                    packet.dts = packet.pts
                packet.stream = streams[packet.stream]
                yield packet


def _carried(metadata: Mapping[str, str]) -> dict[str, str]:
    """What is said of the source and holds of its translation too; and our mark."""
    of_file = ('major_brand', 'minor_version', 'compatible_brands', 'encoder', 'software')
    kept = {k: v for k, v in metadata.items() if k.lower() not in (*of_file, 'comment')}
    return kept | {'comment': pictures.MARK}
