"""Videos through the translate command: what is kept, what is gone on with, what is told."""

from fractions import Fraction

import numpy as np
import pytest
from translate_fixtures import random_network

from cyclegan_jax import interop, translate
from cyclegan_jax.data import clips
from cyclegan_jax.inference import Translator

av = pytest.importorskip('av')

TICK = Fraction(1, 12800)  # 512 of them are a frame at 25 a second
EVEN = tuple(range(0, 6 * 512, 512))
UNEVEN = (0, 512, 1024, 2000, 2600, 9000)


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp('model')
    interop.save_pretrained(folder, {'a2b': random_network(seed=1)})
    return str(folder)


@pytest.fixture
def unchanged(monkeypatch):
    """A generator that changes nothing."""
    as_it_is = lambda self, images, *_: (images, np.ones(len(images), bool))
    monkeypatch.setattr(Translator, '_translate', as_it_is)


def frame_of(number, size=(16, 16)):
    """A colour that says which frame it is, with a corner that says where up is."""
    image = np.full((*size, 3), (40 * number, 80, 200 - 30 * number), np.uint8)
    image[: size[0] // 2, : size[1] // 2] = 230
    return image


def make_clip(path, times=EVEN, size=(16, 16), *, sound='aac', degrees=0, matrix='ITU601', tag=2):
    codec = 'libvpx-vp9' if path.suffix == '.webm' else 'libx264'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=25, options={'crf': '4'})
        stream.height, stream.width = size
        odd = size[0] % 2 or size[1] % 2
        stream.pix_fmt = 'yuv444p' if odd else 'yuv420p'
        stream.codec_context.colorspace = tag
        stream.codec_context.time_base = stream.time_base = TICK
        if degrees:
            stream.set_display_rotation(degrees)
        audio = container.add_stream(sound, rate=48000, layout='mono') if sound else None
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(frame_of(number, size), format='rgb24')
            frame = frame.reformat(
                format=stream.pix_fmt, src_color_range=2, dst_colorspace=matrix, dst_color_range=1
            )
            frame.pts, frame.time_base = time, TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio:
            wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(48000 * len(times) // 25) / 48000)
            kind = audio.codec_context.format.name
            wave = wave.astype(np.float32) if 'flt' in kind else (wave * 2**15).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(wave[None], format=kind, layout='mono')
            frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
            container.mux(audio.encode(frame))
            container.mux(audio.encode())
    return path


def seconds(path):
    with clips.open_clip(path) as clip:
        return [float(time * clip.time_base) for time, _ in clip.frames()]


def pixels(path):
    with clips.open_clip(path) as clip:
        return [image.astype(int) for _, image in clip.frames()]


def sound(path):
    with av.open(str(path)) as container:
        [stream] = container.streams.audio
        packets = [packet for packet in container.demux(stream) if packet.size]
        return [(float(p.pts * p.time_base), bytes(p)) for p in packets]


def run(model, source, output, *flags):
    return translate.main([f'--model={model}', f'--input={source}', f'--output={output}', *flags])


@pytest.mark.parametrize('suffix', ['.mp4', '.m4v', '.mov', '.mkv', '.webm'])
def test_times_sound_and_size_are_kept(model, tmp_path, unchanged, suffix):
    codec = 'libopus' if suffix == '.webm' else 'aac'
    clip = make_clip(tmp_path / f'clip{suffix}', sound=codec)
    assert run(model, clip, tmp_path / 'out') == 0
    result = tmp_path / 'out' / clip.name
    assert [path.name for path in result.parent.iterdir()] == [clip.name]
    assert seconds(result) == seconds(clip)
    times, packets = zip(*sound(clip), strict=True)
    own_times, own_packets = zip(*sound(result), strict=True)
    assert own_packets == packets
    np.testing.assert_allclose(own_times, times, atol=0.002)
    for number, image in enumerate(pixels(result)):
        assert np.abs(image - frame_of(number)).mean() < 8
    with av.open(str(result)) as container:
        assert container.streams.video[0].average_rate == 25


@pytest.mark.parametrize('suffix', ['.mp4', '.mkv'])
def test_frames_that_come_unevenly_keep_their_times(model, tmp_path, suffix):
    clip = make_clip(tmp_path / f'clip{suffix}', UNEVEN, sound=None)
    result = tmp_path / f'out{suffix}'
    assert run(model, clip, result) == 0
    assert seconds(result) == seconds(clip)
    np.testing.assert_allclose(seconds(result), [float(t * TICK) for t in UNEVEN], atol=0.001)


def test_the_generator_is_that_of_pictures(model, tmp_path):
    clip = make_clip(tmp_path / 'clip.mp4')
    assert run(model, clip, tmp_path / 'out.mp4', '--batch=4') == 0
    translator = Translator.from_pretrained(model)
    results = pixels(tmp_path / 'out.mp4')
    for result, image in zip(results, pixels(clip), strict=True):
        expected = translator(image.astype(np.uint8)).astype(int)
        assert np.abs(result - expected).mean() < 12  # half the resolution of colours
