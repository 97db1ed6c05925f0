"""How much frames flicker, by hand; from folders and from videos."""

import json

import numpy as np
import pytest
from PIL import Image

from cyclegan_jax import evaluate
from cyclegan_jax.evaluation import evaluate_folders
from cyclegan_jax.evaluation.measures import Flicker, result_of
from cyclegan_jax.pixels import PHOTOGRAPHS, Pixels


def grey(level, size=(12, 12)):
    return np.full((*size, 3), level, np.uint8)


def write_frames(folder, levels, names=None, size=(12, 12)):
    folder.mkdir()
    for number, level in enumerate(levels):
        name = names[number] if names else f'{number:03d}.png'
        Image.fromarray(grey(level, size)).save(folder / name)
    return folder


def flicker(outputs, inputs):
    return result_of(Flicker(inputs, PHOTOGRAPHS, PHOTOGRAPHS), outputs)


def test_it_is_the_mean_change_between_neighbours_beside_that_of_the_inputs():
    outputs, inputs = [grey(x) for x in (0, 10, 4)], [grey(x) for x in (100, 104, 100)]
    assert flicker(outputs, inputs) == pytest.approx({'flicker': 8, 'flicker_ratio': 2})
    half = grey(100)
    half[:6] += 30  # in half of the pixels
    assert flicker([grey(100), half], inputs[:2]) == pytest.approx(
        {'flicker': 15, 'flicker_ratio': 3.75}
    )


def test_inputs_that_stand_still_have_no_ratio_and_one_frame_no_score():
    assert flicker([grey(1), grey(2)], [grey(5), grey(5)]) == {'flicker': 1}
    assert flicker([grey(1)], [grey(5)]) == {}


def test_other_than_photographs_are_measured_in_their_units():
    pixels = Pixels(channels=1, dtype='float32', low=(-1000.0,), high=(1000.0,))
    outputs = [np.full((4, 4, 1), x, np.float32) for x in (-500, 500)]
    inputs = [grey(0), grey(51)]  # 0.4 of the range [-1, 1], where the outputs change by 1
    found = result_of(Flicker(inputs, pixels, PHOTOGRAPHS), outputs)
    assert found == pytest.approx({'flicker': 1000, 'flicker_ratio': 2.5})


def test_folders_are_paired_by_name_and_go_by_their_numbers(tmp_path, capsys):
    names = [f'frame_{number}.png' for number in range(12)]  # by letters, 10 would follow 1
    fake = write_frames(tmp_path / 'fake', [2 * n for n in range(12)], names)
    given = write_frames(tmp_path / 'input', range(12), [name[:-3] + 'bmp' for name in names])
    output = tmp_path / 'scores.json'
    flags = [f'--fake={fake}', f'--input={given}', '--metrics=flicker', f'--output={output}']
    assert evaluate.main(flags) == 0
    told = capsys.readouterr().out
    assert f'{fake}: 12 images\n' in told
    found = json.loads(output.read_text())
    assert found['scores'] == pytest.approx({'flicker': 2, 'flicker_ratio': 2})
    assert found['baselines']['untranslated']['flicker'] == pytest.approx(1)
    assert 'to the next' in found['protocol']['definitions']['flicker']
    assert [name.rpartition('/')[2] for name in found['protocol']['scored_files']] == names


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ('no inputs', 'flicker (needs --input'),
        ('sizes', 'flicker (needs frames of one size)'),
        ('one', 'flicker (needs two frames at least)'),
        ('names', 'do not hold the same names'),
        ('distance', 'swd (needs --real)'),
    ],
)
def test_what_is_lacking_is_told(tmp_path, capsys, change, words):
    count = 1 if change == 'one' else 3
    fake = write_frames(tmp_path / 'fake', range(count))
    given = write_frames(tmp_path / 'input', range(count + (change == 'names')))
    if change == 'sizes':
        Image.fromarray(grey(0, (8, 8))).save(fake / '001.png')
    flags = [] if change == 'no inputs' else [f'--input={given}']
    name = 'swd' if change == 'distance' else 'flicker'
    assert evaluate.main([f'--fake={fake}', f'--metrics={name}', *flags]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert words in line


def test_a_video_is_a_folder_of_its_frames(tmp_path):
    av = pytest.importorskip('av')
    for name, factor in (('fake', 20), ('input', 10)):
        with av.open(str(tmp_path / f'{name}.mp4'), 'w') as container:
            stream = container.add_stream('libx264', rate=25, options={'crf': '1'})
            stream.height, stream.width, stream.pix_fmt = 16, 16, 'yuv420p'
            for number in range(8):
                image = grey(40 + factor * number, (16, 16))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='rgb24')))
            container.mux(stream.encode())
    found = evaluate_folders(tmp_path / 'fake.mp4', input=tmp_path / 'input.mp4', metrics='flicker')
    assert found['images'] == 8
    assert found['scores']['flicker'] == pytest.approx(20, abs=0.5)
    assert found['scores']['flicker_ratio'] == pytest.approx(2, abs=0.1)
    assert found['baselines']['untranslated']['flicker'] == pytest.approx(10, abs=0.5)
    assert found['warnings'] == ['--fake is a video, whose compression is scored too']
