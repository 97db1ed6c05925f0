"""Grids read as rows of labelled images; the gallery tells a run's story from its folder alone."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from cyclegan_jax import visuals
from cyclegan_jax.log import MetricWriter


def colored(*colors, h=64, w=64):
    """(n, h, w, c): image i is all of colors[i]."""
    return np.stack([np.broadcast_to(np.uint8(color), (h, w, len(color))) for color in colors])


def box(picture, color):
    """(top, bottom, left, right) of the pixels of that color, which must fill the box."""
    mask = (picture == np.array(color)).all(-1)
    y, x = np.nonzero(mask)
    top, bottom, left, right = y.min(), y.max() + 1, x.min(), x.max() + 1
    assert mask[top:bottom, left:right].all()
    return top, bottom, left, right


# Grids


@pytest.mark.parametrize(('h', 'w'), [(64, 64), (48, 96)])
def test_grid_places_images_in_rows_and_columns(h, w):
    rows = [
        ('real', colored((200, 0, 0), (0, 200, 0), (0, 0, 200), h=h, w=w)),
        ('fake', colored((200, 200, 0), (0, 200, 200), (200, 0, 200), h=h, w=w)),
    ]
    picture = visuals.grid(rows)
    assert picture.dtype == np.uint8
    boxes = [[box(picture, image[0, 0]) for image in images] for _, images in rows]
    for row in boxes:
        for top, bottom, left, right in row:
            assert (bottom - top, right - left) == (h, w)
        assert len({top for top, *_ in row}) == 1
        lefts = [left for _, _, left, _ in row]
        assert lefts == sorted(lefts)
    assert boxes[0][0][0] < boxes[1][0][0]  # the first row on top
    assert [b[2] for b in boxes[0]] == [b[2] for b in boxes[1]]  # columns line up


@pytest.mark.parametrize('size', [16, 64, 512])
def test_grid_writes_each_label_left_of_its_row(size):
    red, green = (200, 0, 0), (0, 200, 0)
    images = [colored(color, h=size, w=size) for color in (red, green)]
    unlabelled = visuals.grid([('label', images[0]), ('', images[1])])
    labelled = visuals.grid([('label', images[0]), ('longer label', images[1])])
    for picture, words in ((unlabelled, (True, False)), (labelled, (True, True))):
        for color, has_words in zip((red, green), words, strict=True):
            top, bottom, left, _ = box(picture, color)
            ink = (picture[top:bottom, :left] < 100).all(-1)
            assert ink.any() == has_words
            assert not ink[:, -1].any()  # clear of the image
    # Made wider for the longer label, and a tenth of an image high, but never unreadable.
    assert labelled.shape[1] > unlabelled.shape[1]
    top, bottom, left, _ = box(labelled, red)
    height = np.ptp(np.nonzero((labelled[top:bottom, :left] < 100).all(-1))[0])
    assert height >= max(7, size / 20)


def test_grid_shows_any_number_of_channels():
    shown = {
        (90,): (90, 90, 90),
        (90, 7): (90, 90, 90),
        (1, 2, 3): (1, 2, 3),
        (100, 50, 0, 255): (100, 50, 0),
        (100, 50, 0, 51): (224, 214, 204),  # a fifth of the color on four fifths of white
        (10, 20, 30, 40, 50): (10, 20, 30),
    }
    for pixel, expected in shown.items():
        box(visuals.grid([('', colored(pixel))]), expected)


def test_grid_refuses_floats_and_unlike_sizes():
    good = colored((1, 2, 3))
    with pytest.raises(ValueError, match="row 'fake' is float32"):
        visuals.grid([('real', good), ('fake', good.astype(np.float32))])
    with pytest.raises(ValueError, match=r"row 'fake' is uint8 \(1, 64, 32, 3\).*\(1, 64, 64, "):
        visuals.grid([('real', good), ('fake', good[:, :, :32])])
    with pytest.raises(ValueError, match='no rows'):
        visuals.grid([])


def test_save_png_is_lossless_and_leaves_nothing_else(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    path = tmp_path / 'new' / 'image.png'
    visuals.save_png(path, image)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), image)
    assert list(path.parent.iterdir()) == [path]


def test_save_png_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'image.png'
    visuals.save_png(path, np.zeros((2, 2, 3), np.uint8))
    before = path.read_bytes()

    def full_disk(self, target, format):
        target.write_bytes(b'half')
        raise OSError('No space left on device')

    monkeypatch.setattr(Image.Image, 'save', full_disk)
    with pytest.raises(OSError, match='No space'):
        visuals.save_png(path, np.ones((2, 2, 3), np.uint8))
    assert path.read_bytes() == before


# Gallery


def add_sample(workdir, step):
    visuals.save_png(workdir / f'samples/step_{step}.png', np.zeros((2, 2, 3), np.uint8))


def log(workdir, records):
    writer = MetricWriter(workdir)
    for step, scalars in records:
        writer.scalars(step, scalars)
    writer.close()


def page(workdir, title='a run'):
    visuals.write_gallery(workdir, title)
    return (workdir / 'samples' / 'index.html').read_text()


def curves(text):
    """{chart: {curve: [(x, y), ...]}} in the coordinates of the SVG, whose y points down."""
    charts = {}
    for figure in re.findall(r'<figure><h3>.*?</figure>', text, re.DOTALL):
        root = ElementTree.fromstring(figure)
        names = [span[0].tail.rpartition(' ')[0] for span in root.iter('span')]
        lines = [line.get('points').split() for line in root.iter('polyline')]
        points = [[tuple(map(float, p.split(','))) for p in line] for line in lines]
        charts[root.find('h3').text] = dict(zip(names, points, strict=True))
    return charts


def test_gallery_lists_the_samples_that_exist_newest_first(tmp_path):
    for step in (900, 1000, 10000, 50):
        add_sample(tmp_path, step)
    (tmp_path / 'samples' / 'step_7.tmp').touch()
    (tmp_path / 'samples' / 'notes.png').touch()
    expected = ['step_10000.png', 'step_1000.png', 'step_900.png', 'step_50.png']
    text = page(tmp_path)
    assert re.findall(r'href="([^"]*)"', text) == expected
    assert re.findall(r'src="([^"]*)"', text) == expected
    assert [text.count(f'>step {step}<') for step in ('10,000', '1,000', '900', '50')] == [1] * 4

    add_sample(tmp_path, 20000)
    assert re.findall(r'href="([^"]*)"', page(tmp_path)) == ['step_20000.png', *expected]


def test_gallery_asks_for_nothing_from_outside(tmp_path):
    add_sample(tmp_path, 1)
    log(tmp_path, [(1, {'generator/total': 1.0})])
    text = page(tmp_path)
    for outside in ('://', 'src="/', 'href="/', '@import', 'url(', '<link', 'fetch('):
        assert outside not in text


def test_gallery_of_a_new_run(tmp_path):
    assert 'a run' in page(tmp_path)
    assert curves(page(tmp_path)) == {}


def test_gallery_escapes_the_title_and_names(tmp_path):
    log(tmp_path, [(1, {'<b>/<i>': 1.0})])
    text = page(tmp_path, 'cats & <dogs>')
    assert '<title>cats &amp; &lt;dogs&gt;</title>' in text
    assert list(curves(text)) == ['<b>']


def test_curves_are_grouped_with_scores_and_losses_first(tmp_path):
    names = ['learning_rate', 'generator/total', 'generator/cycle_a', 'discriminator/a']
    names += ['evaluation/psnr/a2b', 'evaluation/psnr/b2a', 'score/real_a']
    log(tmp_path, [(step, dict.fromkeys(names, 1.0)) for step in (10, 20)])
    groups = [(group, sorted(lines)) for group, lines in curves(page(tmp_path)).items()]
    assert groups == [
        ('evaluation/psnr', ['A to B', 'B to A']),
        ('generator: cycle', ['A']),
        ('generator: total', ['total']),
        ('discriminator', ['A']),
        ('score', ['real a']),
        ('learning rate', ['learning rate']),
    ]


def test_curves_are_drawn_to_scale(tmp_path):
    log(
        tmp_path, [(0, {'g/x': 0.0, 'g/y': 4.0}), (5, {'g/x': 1.0}), (10, {'g/x': 4.0, 'g/y': 0.0})]
    )
    text = page(tmp_path)
    chart = curves(text)['g']
    (left, bottom), (middle, quarter), (right, top) = chart['x'][1:]
    assert middle == (left + right) / 2
    assert quarter == pytest.approx(bottom - (bottom - top) / 4, abs=0.1)
    assert 0 < left < right < 360
    assert 0 < top < bottom < 192
    assert chart['y'][1:] == [(left, top), (right, bottom)]
    ticks = re.findall(r'<text class="(\w)" x="([\d.]+)" y="[\d.]+">([^<]*)<', text)
    assert ('x', str(left), '0') in ticks
    assert ('x', str(right), '10') in ticks
    assert [label for axis, _, label in ticks if axis == 'y'] == ['0', '1', '2', '3', '4']
    assert '>step</text>' in text
    assert '</i>x 4<' in text  # the legend has the newest value


def test_long_curves_are_thinned_and_keep_their_shape(tmp_path):
    log_file = tmp_path / 'metrics.jsonl'
    log_file.write_text(''.join(f'{{"step": {s}, "g/x": {s % 2 + s}}}\n' for s in range(5000)))
    points = curves(page(tmp_path))['g']['x']
    assert 200 < len(points) <= 301
    slopes = np.diff([y for _, y in points[1:]]) / np.diff([x for x, _ in points[1:]])
    assert (slopes < 0).all()  # it rises all along; the alternating steps average out


def test_non_finite_values_leave_the_rest_of_the_curve(tmp_path):
    log(tmp_path, [(1, {'g/x': 1.0}), (2, {'g/x': float('nan')}), (3, {'g/x': 2.0})])
    assert len(curves(page(tmp_path))['g']['x']) == 3  # the first point is there twice
    assert 'nan' not in page(tmp_path)


def test_damaged_lines_leave_the_rest_of_the_curve(tmp_path):
    lines = ['{"step": 1, "g/x": 1.0}', '{"step": 2, "g/x": "high"}', '[1]', '{"g/x": 2}', '{"st']
    (tmp_path / 'metrics.jsonl').write_text('\n'.join(lines))
    assert len(curves(page(tmp_path))['g']['x']) == 2  # the first point is there twice


def test_a_single_point_is_a_dot(tmp_path):
    log(tmp_path, [(100, {'evaluation/fid': 60.0})])
    first, second = curves(page(tmp_path))['evaluation']['fid']
    assert first == second


@pytest.mark.parametrize(
    ('low', 'high'), [(0, 1), (0.13, 0.17), (-3, 12000), (5, 5), (0, 0), (-2, -2), (1e-7, 2e-4)]
)
def test_ticks_are_few_and_hold_the_range(low, high):
    ticks = visuals._ticks(low, high)
    assert 2 <= len(ticks) <= 9
    assert ticks[0] <= low + 1e-12
    assert ticks[-1] >= high - 1e-12
    np.testing.assert_allclose(np.diff(ticks), ticks[1] - ticks[0])
