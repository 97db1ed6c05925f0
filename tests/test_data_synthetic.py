import hashlib

import numpy as np
import pytest

from cyclegan_jax.data import synthetic

TEST = synthetic.FIRST_SCENE['a', 'test']
# sha256 of the first 8 training images of each domain at 64 x 64. If you changed the rendering on
# purpose, put the new values here, and measure the learning gate and the figures of
# docs/evaluation.md again: they hold for these pictures only. If you did not, numpy drew something
# else: find out what.
GOLDEN = {
    ('stripes', 'a'): '220426a5000b4449',
    ('stripes', 'b'): 'cc94df7b96b3b8d7',
    ('labels', 'a'): 'ac358635cf25796a',
    ('labels', 'b'): '8a8476261e35f813',
}


def scenes(name, first=TEST, count=16, size=(64, 64)):
    return [synthetic.render(name, first + i, size) for i in range(count)]


def psnr(image, truth):
    return 10 * np.log10(255**2 / np.mean((image.astype(float) - truth) ** 2))


@pytest.mark.parametrize('name, domain', GOLDEN)
def test_golden_images(name, domain):
    first = synthetic.FIRST_SCENE[domain, 'train']
    pictures = [scene['ab'.index(domain)] for scene in scenes(name, first, 8)]
    digest = hashlib.sha256(np.stack(pictures).tobytes()).hexdigest()[:16]
    assert digest == GOLDEN[name, domain], 'see the comment above GOLDEN'


def test_only_the_animals_differ():
    for a, b, labels in scenes('stripes'):
        differs = (a != b).any(axis=-1)
        animal = labels == synthetic.CLASSES['stripes'].index('animal')
        assert differs[animal].all()
        # Beyond the class map only the antialiased rim differs, and what is thinner than a pixel.
        rim = animal | np.roll(animal, 1, 0) | np.roll(animal, -1, 0)
        rim = rim | np.roll(rim, 1, 1) | np.roll(rim, -1, 1)
        assert differs[~rim].mean() < 0.01


def test_stripes_lie_on_the_pixel_grid_and_survive_a_flip():
    for _, b, labels in scenes('stripes'):
        inside = labels == 2
        inside[:, 1:-1] &= (labels[:, :-2] == 2) & (labels[:, 2:] == 2)
        inside[1:-1] &= (labels[:-2] == 2) & (labels[2:] == 2)
        inside[:, [0, -1]] = inside[[0, -1]] = False
        white = np.broadcast_to(np.isin(np.arange(64) % 4, (0, 3)), (64, 64))
        assert b[inside & white].min() > 140
        assert b[inside & ~white].max() < 80
        np.testing.assert_array_equal(white, white[:, ::-1])


def test_untranslated_images_are_far_from_the_truth():
    """What the learning gate assumes: see the trivial baselines in docs/evaluation.md."""
    pairs = scenes('stripes', count=64)
    assert np.mean([psnr(a, b) for a, b, _ in pairs]) == pytest.approx(14.0, abs=0.1)
    assert np.mean([psnr(a[c == 2], b[c == 2]) for a, b, c in pairs]) == pytest.approx(
        6.75, abs=0.1
    )
    assert np.mean([np.mean(c == 2) for _, _, c in pairs]) == pytest.approx(0.185, abs=0.01)


def test_the_photo_is_a_function_of_the_labels():
    seen = {}
    for a, b, labels in scenes('labels', count=64, size=(32, 32)):
        np.testing.assert_array_equal(a, synthetic.PALETTES['labels'][labels])
        for y in range(2, 30):
            for x in range(2, 30):
                around = labels[y - 2 : y + 3, x - 2 : x + 3].tobytes(), y % 4, x % 4
                assert seen.setdefault(around, tuple(b[y, x])) == tuple(b[y, x])


@pytest.mark.parametrize('name', synthetic.NAMES)
def test_the_palette_tells_the_class(name):
    palette = synthetic.PALETTES[name].astype(int)
    agree = []
    for a, _, labels in scenes(name):
        nearest = ((a[:, :, None] - palette) ** 2).sum(-1).argmin(-1)
        agree.append(np.mean(nearest == labels))
    assert np.mean(agree) > 0.97
    assert {k for *_, labels in scenes(name) for k in np.unique(labels)} == set(range(len(palette)))


@pytest.mark.parametrize('name', synthetic.NAMES)
def test_any_size_has_headroom(name):
    for size in ((64, 64), (48, 96), (33, 20), (256, 128)):
        for a, b, labels in scenes(name, count=4, size=size):
            assert a.shape == b.shape == (*size, 3) and labels.shape == size
            assert min(a.min(), b.min()) >= 12 and max(a.max(), b.max()) <= 243


def test_shadow_on_a_black_coat_has_headroom():
    _, b, _ = synthetic.render('stripes', TEST + 9, (256, 256))
    assert b.min() == 12


def test_scenes_differ_and_repeat():
    (first, *_), (second, *_) = scenes('stripes', count=2)
    assert psnr(first, second) < 25
    np.testing.assert_array_equal(first, scenes('stripes', count=1)[0][0])
