"""Label scores against hand-made cases and a restatement that counts pixel by pixel."""

import numpy as np
import pytest
from PIL import Image

from cyclegan_jax.data.images import ImageError
from cyclegan_jax.data.sources import Folder
from cyclegan_jax.evaluation import labels

PALETTE = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0)], np.uint8)


def restated(truth, predicted, classes, legacy):
    """The reference's definitions, one class at a time."""
    pairs = [(t, p) for t, p in zip(truth.ravel(), predicted.ravel(), strict=True) if t != 255]
    accuracies, ious = [], []
    for c in range(classes):
        hits = sum(t == c == p for t, p in pairs)
        row, column = sum(t == c for t, _ in pairs), sum(p == c for _, p in pairs)
        if row or legacy:
            accuracies.append(hits / (row + 1e-12))
            ious.append(hits / (row + column - hits + 1e-12))
    return {
        'pixel_accuracy': np.mean([t == p for t, p in pairs]),
        'class_accuracy': np.mean(accuracies),
        'class_iou': np.mean(ious),
    }


@pytest.mark.parametrize('legacy', [False, True])
def test_scores_agree_with_a_restatement(legacy):
    """Void pixels, a class that is absent (4), one that is only predicted (3)."""
    random = np.random.RandomState(0)
    truth = random.choice([0, 1, 2, 255], (2, 9, 11), p=[0.5, 0.3, 0.1, 0.1]).astype(np.uint8)
    predicted = np.where(
        random.rand(2, 9, 11) < 0.6, truth % 255, random.randint(4, size=(2, 9, 11))
    )
    predicted = predicted.astype(np.uint8)
    found = labels.scores(labels.confusion(truth, predicted, 5), legacy)
    for name, expected in restated(truth, predicted, 5, legacy).items():
        assert found[name] == pytest.approx(expected), name
    assert found['classes_present'] == 3


def test_a_case_by_hand():
    truth = np.array([0, 0, 0, 1, 255], np.uint8)
    predicted = np.array([0, 0, 1, 1, 1], np.uint8)
    counts = labels.confusion(truth, predicted, 3)
    np.testing.assert_array_equal(counts, [[2, 1, 0], [0, 1, 0], [0, 0, 0]])
    found = labels.scores(counts)
    assert found['pixel_accuracy'] == 3 / 4
    assert found['class_accuracy'] == pytest.approx((2 / 3 + 1) / 2)
    assert found['class_iou'] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found['weighted_iou'] == pytest.approx(3 / 4 * 2 / 3 + 1 / 4 * 1 / 2)
    assert labels.scores(counts, legacy=True)['class_iou'] == pytest.approx((2 / 3 + 1 / 2) / 3)


def test_accuracy_is_over_the_truth_not_over_the_predictions():
    """With the axes exchanged it would be precision, a usual mistake."""
    truth, predicted = np.array([0, 0, 0, 1], np.uint8), np.zeros(4, np.uint8)
    assert labels.scores(labels.confusion(truth, predicted, 2))['class_accuracy'] == 0.5


def test_the_nearest_colour_tells_the_class():
    image = np.array([[(10, 5, 0), (200, 90, 90), (100, 140, 0)]], np.uint8)
    np.testing.assert_array_equal(labels.decode(image, PALETTE), [[0, 1, 2]])


def test_label_ids_of_cityscapes():
    """Road is 7, car 26, bicycle 33; a number plate (34) and what is unlabelled are void."""
    ids = np.array([7, 26, 33, 34, 0], np.uint8)
    np.testing.assert_array_equal(labels.to_train_ids(ids), [0, 13, 18, 255, 255])


def test_classes_that_do_not_exist_are_refused():
    good, bad = np.zeros(3, np.uint8), np.array([0, 26, 0], np.uint8)
    with pytest.raises(ValueError, match='labels contain class 26; there are classes 0 to 18'):
        labels.confusion(bad, good, 19)
    with pytest.raises(ValueError, match='predictions contain class 26'):
        labels.confusion(good, bad, 19)


def test_nothing_but_void_has_no_score():
    void = np.full(4, 255, np.uint8)
    with pytest.raises(ValueError, match='no pixel has a label'):
        labels.scores(labels.confusion(void, np.zeros(4, np.uint8), 3))


def test_gap_closed():
    assert labels.gap_closed(0.348, 0.179, 0.603) == pytest.approx(0.3986, abs=1e-4)
    assert np.isnan(labels.gap_closed(0.5, 0.5, 0.5))


def maps(folder, **options) -> labels.LabelMaps:
    return labels.LabelMaps(Folder(str(folder), '', 3), PALETTE, **options)


def save(array, path, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if mode == 'P':
        image.putpalette([9, 9, 9] * 256)
    image.save(path)


NUMBERS = np.array([[0, 1], [2, 255]], np.uint8)


@pytest.mark.parametrize('mode', ['L', 'P'])
def test_files_of_class_numbers_are_read_as_they_are(mode, tmp_path):
    """Not through the colours of their table."""
    save(NUMBERS, tmp_path / 'x.png', mode)
    np.testing.assert_array_equal(maps(tmp_path)[0], NUMBERS)


def test_files_in_colour_are_decoded_and_void_colours_dropped(tmp_path):
    colours = np.array([[(1, 2, 3), (250, 0, 9), (90, 90, 90)]], np.uint8)
    save(colours, tmp_path / 'x.png')
    void = np.array([(99, 99, 99)], np.uint8)
    np.testing.assert_array_equal(maps(tmp_path, void=void)[0], [[0, 1, 255]])


def test_class_numbers_in_a_jpeg_are_refused(tmp_path):
    save(NUMBERS, tmp_path / 'x.jpg')
    with pytest.raises(ImageError, match='JPEG changes class numbers'):
        maps(tmp_path)[0]


def test_folders_are_paired_by_name_not_by_order(tmp_path):
    """Cityscapes' own names belong together in spite of their endings and folders."""
    for i, (city, place) in enumerate((('aachen', 'z'), ('bonn', 'a'))):
        number = np.full((2, 2), i, np.uint8)
        save(number, tmp_path / 'truth' / f'{city}_gtFine_labelIds.png')
        save(number, tmp_path / 'predicted' / place / f'{city}_leftImg8bit.png')
    counts = labels.confusion_of_files(maps(tmp_path / 'truth'), maps(tmp_path / 'predicted'), 3)
    np.testing.assert_array_equal(counts, np.diag([4, 4, 0]))


def test_names_that_do_not_match_are_refused(tmp_path):
    save(NUMBERS, tmp_path / 'truth' / 'a.png')
    save(NUMBERS, tmp_path / 'predicted' / 'b.png')
    with pytest.raises(ValueError, match=r'do not hold the same names: .* only a, b'):
        labels.confusion_of_files(maps(tmp_path / 'truth'), maps(tmp_path / 'predicted'), 3)


def test_sizes_that_do_not_match_name_the_file(tmp_path):
    save(NUMBERS, tmp_path / 'truth' / 'a.png')
    save(np.zeros((4, 4), np.uint8), tmp_path / 'predicted' / 'a.png')
    with pytest.raises(ValueError, match=r'predicted/a.png: labels are \(2, 2\) but .* \(4, 4\)'):
        labels.confusion_of_files(maps(tmp_path / 'truth'), maps(tmp_path / 'predicted'), 3)
