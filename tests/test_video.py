"""Videos through the translate command: what is kept, what is gone on with, what is told."""

import contextlib
import sys
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image
from translate_fixtures import random_network

from cyclegan_jax import interop, process, translate
from cyclegan_jax.data import clips
from cyclegan_jax.inference import Translator, video, video_files
from cyclegan_jax.inference.runner import Runner

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
    monkeypatch.setattr(Runner, 'run', lambda self, images, *_: images)


def frame_of(number, size=(16, 16)):
    """A colour that says which frame it is, with a corner that says where up is."""
    image = np.full((*size, 3), (40 * (number % 6), 200 - 30 * (number % 6), 60), np.uint8)
    image[: size[0] // 2, : size[1] // 2] = 230
    return image


def make_clip(
    path, times=EVEN, size=(16, 16), *, sound='aac', degrees=0, matrix='ITU601', tag=2, levels=1
):
    codec = {'.webm': 'libvpx-vp9', '.avi': 'mpeg4'}.get(path.suffix, 'libx264')
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=25, options={'crf': '4'})
        stream.height, stream.width = size
        odd = size[0] % 2 or size[1] % 2
        stream.pix_fmt = 'yuv444p' if odd else 'yuv420p'
        stream.codec_context.colorspace, stream.codec_context.color_range = tag, levels
        tick = 1 / Fraction(25) if path.suffix == '.avi' else TICK
        stream.codec_context.time_base = stream.time_base = tick
        if degrees:
            stream.set_display_rotation(degrees)
        audio = container.add_stream(sound, rate=48000, layout='mono') if sound else None
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(frame_of(number, size), format='rgb24')
            frame = frame.reformat(
                format=stream.pix_fmt,
                src_color_range=2,
                dst_colorspace=matrix,
                dst_color_range=levels,
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


def test_avi_is_read_and_becomes_another_format(model, tmp_path, unchanged, capsys):
    clip = make_clip(tmp_path / 'clip.avi', sound='mp2')
    assert run(model, clip, tmp_path / 'out') == 2
    assert 'clip.avi is no kind of video that is written: choose' in capsys.readouterr().err
    assert run(model, clip, tmp_path / 'out', '--format=mp4') == 0
    times = seconds(tmp_path / 'out' / 'clip.mp4')
    np.testing.assert_allclose(times, np.arange(6) / 25, atol=1e-4)
    assert [data for _, data in sound(tmp_path / 'out' / 'clip.mp4')] == [
        data for _, data in sound(clip)
    ]


@pytest.mark.parametrize('suffix', ['.mp4', '.mkv'])
def test_frames_that_come_unevenly_keep_their_times(model, tmp_path, suffix):
    clip = make_clip(tmp_path / f'clip{suffix}', UNEVEN, sound=None)
    result = tmp_path / f'out{suffix}'
    assert run(model, clip, result) == 0
    assert seconds(result) == seconds(clip)
    np.testing.assert_allclose(seconds(result), [float(t * TICK) for t in UNEVEN], atol=0.001)


def test_the_generator_is_that_of_pictures_and_odd_sides_stay(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(
        video_files._H264.options, 'crf', '1'
    )  # what a random generator makes is noise
    clip = make_clip(tmp_path / 'clip.mp4', size=(17, 22), sound=None)
    assert run(model, clip, tmp_path / 'out.mp4', '--batch=4') == 0
    translator = Translator.from_pretrained(model)
    assert 'clip.mp4: 22 x 17 has an odd side' in capsys.readouterr().err
    results = pixels(tmp_path / 'out.mp4')
    assert len(results) == len(EVEN)
    for result, image in zip(results, pixels(clip), strict=True):
        assert result.shape == (17, 22, 3)
        assert np.abs(result - translator(image.astype(np.uint8)).astype(int)).mean() < 3


def test_odd_sides_are_usual_in_webm(model, tmp_path, capsys):
    clip = make_clip(tmp_path / 'clip.mkv', size=(17, 22), sound=None)
    assert run(model, clip, tmp_path / 'out.webm') == 0
    assert 'odd' not in capsys.readouterr().err
    with clips.open_clip(tmp_path / 'out.webm') as result:
        assert result.stream.codec_context.pix_fmt == 'yuv420p'
        assert next(result.frames())[1].shape == (17, 22, 3)


def test_size_and_tile_are_those_of_pictures(model, tmp_path):
    clip = make_clip(tmp_path / 'clip.mp4', size=(33, 48), sound=None)
    assert run(model, clip, tmp_path / 'plain.mp4') == 0
    for flag in ('--size=20', '--tile=32'):
        assert run(model, clip, tmp_path / 'out.mp4', flag) == 0
        first, other = pixels(tmp_path / 'out.mp4')[0], pixels(tmp_path / 'plain.mp4')[0]
        assert first.shape == (33, 48, 3)
        assert np.abs(first - other).mean() > 1


@pytest.mark.parametrize('degrees', [90, 180, -90])
def test_a_turned_video_becomes_upright(model, tmp_path, unchanged, degrees):
    if not hasattr(av.video.stream.VideoStream, 'set_display_rotation'):
        pytest.skip('this PyAV writes no rotation')
    clip = make_clip(tmp_path / 'clip.mp4', size=(16, 32), degrees=degrees, sound=None)
    assert run(model, clip, tmp_path / 'out.mp4') == 0
    with clips.open_clip(tmp_path / 'out.mp4') as result:
        [_, first], *_ = result.frames()
        assert result.rotation == 0
    expected = np.rot90(frame_of(0, (16, 32)), degrees // 90)  # counterclockwise
    assert first.shape == expected.shape
    assert np.abs(first - expected.astype(int)).mean() < 8


@pytest.mark.parametrize(
    ('matrix', 'tag', 'levels'),
    [('ITU709', 1, 1), ('ITU601', 6, 1), ('ITU601', 2, 1), ('ITU709', 1, 2)],
)
def test_colours_are_read_and_written_by_the_matrix_of_the_video(
    model, tmp_path, unchanged, matrix, tag, levels
):
    clip = make_clip(tmp_path / 'clip.mp4', matrix=matrix, tag=tag, levels=levels, sound=None)
    plain = lambda path: pixels(path)[0][-5:, -5:] - frame_of(0)[-5:, -5:]  # away from edges
    assert np.abs(plain(clip)).max() < 5
    assert run(model, clip, tmp_path / 'out.mp4') == 0
    assert np.abs(plain(tmp_path / 'out.mp4')).max() < 8
    with av.open(str(tmp_path / 'out.mp4')) as container:
        assert container.streams.video[0].codec_context.colorspace == tag


class Killed(Exception):
    pass


@pytest.fixture
def frames_translated(monkeypatch):
    """The number of frames that went through a generator; raises Killed at 0 in `countdown`."""
    seen, call = {'frames': 0, 'countdown': -1}, Translator.__call__

    def counting(self, images, **how):
        if seen['countdown'] == 0:
            raise Killed
        seen['countdown'] -= 1
        seen['frames'] += len(images)
        return call(self, images, **how)

    monkeypatch.setattr(Translator, '__call__', counting)
    monkeypatch.setattr(video, '_PART_FRAMES', 2)
    return seen


def test_a_killed_translation_goes_on_after_its_parts(model, tmp_path, frames_translated):
    clip, result = make_clip(tmp_path / 'clip.mp4', UNEVEN), tmp_path / 'out.mp4'
    frames_translated['countdown'] = 5
    with pytest.raises(Killed):
        run(model, clip, result)
    assert not result.exists()
    frames_translated.update(frames=0, countdown=-1)
    assert run(model, clip, result, '--skip-existing') == 0
    assert frames_translated['frames'] == 2  # of six, two parts of two were kept
    assert {path.name for path in tmp_path.iterdir()} == {'clip.mp4', 'out.mp4'}
    assert seconds(result) == seconds(clip)
    assert sound(result) == sound(clip)
    assert run(model, clip, tmp_path / 'at_once.mp4') == 0
    for image, other in zip(pixels(result), pixels(tmp_path / 'at_once.mp4'), strict=True):
        np.testing.assert_array_equal(image, other)


def test_parts_are_closed_by_the_clock_too(model, tmp_path, frames_translated, monkeypatch):
    monkeypatch.setattr(video, '_PART_SECONDS', -1)
    clip, result = make_clip(tmp_path / 'clip.mp4'), tmp_path / 'out.mp4'
    frames_translated['countdown'] = 5
    with pytest.raises(Killed):
        run(model, clip, result)
    frames_translated.update(frames=0, countdown=-1)
    assert run(model, clip, result) == 0
    assert frames_translated['frames'] == 1
    assert seconds(result) == seconds(clip)


def test_ctrl_c_would_tell_what_is_kept(model, tmp_path, frames_translated, monkeypatch):
    messages = []
    monkeypatch.setattr(
        process, 'ends_at_once', lambda text: messages.append(text) or contextlib.nullcontext()
    )
    clip = make_clip(tmp_path / 'clip.mp4')
    assert run(model, clip, tmp_path / 'out.mp4') == 0
    kept = [text.split(';')[1] for text in messages if f'frames of {clip} are kept' in text]
    assert [int(text.split()[0]) for text in kept] == [0, 0, 2, 4, 6]
    assert messages[-1].endswith('the same command with --skip-existing goes on from there.')


@pytest.mark.parametrize('change', ['source', 'weights', 'flag'])
def test_parts_of_another_translation_are_not_used(
    model, tmp_path, frames_translated, change, capsys
):
    clip, result = make_clip(tmp_path / 'clip.mp4'), tmp_path / 'out.mp4'
    frames_translated['countdown'] = 5
    with pytest.raises(Killed):
        run(model, clip, result)
    frames_translated.update(frames=0, countdown=-1)
    if change == 'source':
        make_clip(clip, UNEVEN)
    if change == 'weights':
        model = tmp_path / 'other'
        interop.save_pretrained(model, {'a2b': random_network(seed=2)})
    assert run(model, clip, result, *(['--size=12'] if change == 'flag' else [])) == 0
    assert frames_translated['frames'] == 6
    assert 'out.mp4: what was kept is of another model' in capsys.readouterr().err


def test_what_is_there_is_skipped_made_anew_or_another_s(
    model, tmp_path, capsys, frames_translated
):
    clip, result = make_clip(tmp_path / 'clip.mp4'), tmp_path / 'out.mp4'
    assert run(model, clip, result) == run(model, clip, result) == 0
    assert frames_translated['frames'] == 12
    assert run(model, clip, result, '--skip-existing') == 0
    assert '1 were there already' in capsys.readouterr().out
    make_clip(result)
    assert run(model, clip, result) == 2
    assert 'may be no translation' in capsys.readouterr().err
    assert run(model, clip, result, '--overwrite') == 0
    assert frames_translated['frames'] == 18


def test_a_folder_may_hold_pictures_and_videos(model, tmp_path, capsys):
    (tmp_path / 'in').mkdir()
    make_clip(tmp_path / 'in' / 'clip.mp4')
    Image.fromarray(frame_of(0)).save(tmp_path / 'in' / 'photo.png')
    (tmp_path / 'in' / 'broken.mkv').write_bytes(b'no video')
    assert run(model, tmp_path / 'in', tmp_path / 'out', '--format=jpg') == 1
    assert {path.name for path in (tmp_path / 'out').iterdir()} == {'clip.mp4', 'photo.jpg'}
    told = capsys.readouterr()
    assert 'Wrote 2 of 3 pictures' in told.out
    assert told.err.count('error:') == 1
    assert f'{tmp_path}/in/broken.mkv: cannot be read as a video' in told.err


def test_what_is_cut_off_is_named_and_nothing_is_written(model, tmp_path, capsys):
    whole = make_clip(tmp_path / 'whole.mp4').read_bytes()
    (tmp_path / 'cut.mp4').write_bytes(whole[: len(whole) // 2])
    assert run(model, tmp_path / 'cut.mp4', tmp_path / 'out') == 1
    assert 'cut.mp4: cannot be read as a video (Invalid data' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_what_ends_before_its_time_is_told(model, tmp_path, capsys):
    whole = make_clip(tmp_path / 'whole.mkv', range(0, 60 * 512, 512), sound=None).read_bytes()
    (tmp_path / 'cut.mkv').write_bytes(whole[: len(whole) // 2])
    assert run(model, tmp_path / 'cut.mkv', tmp_path / 'out') == 0
    assert 'frames, though it says 60; is it cut off?' in capsys.readouterr().err
    assert 5 < len(seconds(tmp_path / 'out' / 'cut.mkv')) < 55


@pytest.mark.parametrize('channels', [(1, 3), (3, 1), (4, 4)])
def test_generators_of_other_channels_give_videos_too(tmp_path, channels):
    interop.save_pretrained(tmp_path / 'model', {'a2b': random_network(channels)})
    clip = make_clip(tmp_path / 'clip.mp4', size=(17, 16), sound=None)
    assert run(tmp_path / 'model', clip, tmp_path / 'out.mp4') == 0
    image = pixels(tmp_path / 'out.mp4')[0]
    assert image.shape == (17, 16, 3)
    assert (np.ptp(image, axis=2).max() < 6) == (channels[1] == 1)  # grey where it has one


def test_sound_alone_is_no_video(model, tmp_path, capsys):
    with av.open(str(tmp_path / 'song.mp4'), 'w') as container:
        stream = container.add_stream('aac', rate=48000, layout='mono')
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 4800), np.float32), format='fltp', layout='mono'
        )
        frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert run(model, tmp_path / 'song.mp4', tmp_path / 'out') == 1
    assert 'song.mp4: has no moving picture' in capsys.readouterr().err


def test_sound_that_the_output_cannot_hold_is_told_at_once(
    model, tmp_path, capsys, frames_translated
):
    clip = make_clip(tmp_path / 'clip.mp4')
    assert run(model, clip, tmp_path / 'out.webm') == 1
    assert 'clip.mp4: its sound is aac, which .webm cannot hold; choose' in capsys.readouterr().err
    assert frames_translated['frames'] == 0


@pytest.mark.parametrize(
    ('output', 'flags', 'words'),
    [
        ('out.mp4', ['--format=mkv'], 'without --format'),
        ('out', ['--format=png'], '--format=png is for pictures; {}/clip.mp4 is none'),
        ('out.avi', [], 'out.avi is no kind of video that is written'),
    ],
)
def test_mistakes_end_in_one_line(model, tmp_path, capsys, output, flags, words):
    clip = make_clip(tmp_path / 'clip.mp4')
    assert run(model, clip, tmp_path / output, *flags) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert words.format(tmp_path) in line


def test_without_pyav_the_way_to_it_is_told(model, tmp_path, capsys, monkeypatch):
    clip = make_clip(tmp_path / 'clip.mp4')
    monkeypatch.setitem(sys.modules, 'av', None)
    assert run(model, clip, tmp_path / 'out') == 1
    assert "pip install 'cyclegan_jax[video]'" in capsys.readouterr().err
