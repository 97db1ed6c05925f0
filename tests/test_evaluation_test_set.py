"""Scores of translators whose quality is known: the truth, nothing at all, a constant."""

import numpy as np
import pytest
from evaluation_run import tiny_config
from PIL import Image

from cyclegan_jax import data
from cyclegan_jax.data import synthetic
from cyclegan_jax.errors import UserError
from cyclegan_jax.evaluation import measures
from cyclegan_jax.evaluation import scores as table
from cyclegan_jax.evaluation.direction import Direction, Extractor
from cyclegan_jax.evaluation.in_training import Scorer
from cyclegan_jax.evaluation.measures import as_they_are
from cyclegan_jax.evaluation.test_set import TestSet

METRICS = 'randconv_kid_v1', 'swd', 'paired', 'cycle', 'labels', 'monitors'


@pytest.fixture(scope='module')
def dataset():
    return data.load(**tiny_config().data, seed=0, batch_size=1)


@pytest.fixture(scope='module')
def tests(dataset):
    return TestSet(
        dataset, table.parse(METRICS), palette=synthetic.PALETTES['labels'], batch_size=5
    )


class Truth:
    """Knows the right translation of every test image, and finds it by the image."""

    def __init__(self, dataset):
        images = dataset.test()
        self._known = {
            f'{x}2{y}': {a.tobytes(): b for a, b in zip(images[x], images[y], strict=True)}
            for x, y in ('ab', 'ba')
        }

    def __call__(self, direction, images):
        return np.stack([self._known[direction][image.tobytes()] for image in images])


def test_the_right_translations_score_the_best_there_is(tests, dataset):
    for scores in tests.score(Truth(dataset)).values():
        assert scores['psnr'] == scores['cycle_psnr'] == 100
        assert scores['ssim'] == scores['cycle_ssim'] == 1
        assert scores['l1'] == scores['cycle_l1'] == 0
        assert scores['psnr_capped'] == 1
        assert scores['psnr_shuffled'] < 20
        assert scores['randconv_kid_v1'] < 1e-4
        assert scores['swd'] == 0
        assert scores['diversity'] == pytest.approx(1)


def test_labels_are_scored_where_domain_a_is_the_target(tests, dataset):
    scores = tests.score(Truth(dataset))
    assert scores['b2a']['class_iou'] == 1
    assert 'class_iou' not in scores['a2b']
    assert tests.directions['b2a'].baselines['label_ceiling']['pixel_accuracy'] == 1


def test_no_translation_scores_as_the_untranslated_baselines(tests):
    for name, scores in tests.score(lambda _, images: images).items():
        baselines = tests.directions[name].baselines
        for score, expected in (baselines['ceiling'] | baselines['untranslated']).items():
            assert scores[score] == pytest.approx(expected), score
        assert scores['correlation'] == pytest.approx(1)
        assert scores['cycle_psnr'] == 100


def test_floor_is_below_ceiling(tests):
    for direction in tests.directions.values():
        floor, ceiling = direction.baselines['floor'], direction.baselines['ceiling']
        assert floor['images'] == direction.count == 12
        assert floor['swd'] < ceiling['swd']
        assert floor['randconv_kid_v1'] < ceiling['randconv_kid_v1']


def test_a_constant_translator_is_warned_of(tests):
    scores = tests.score(lambda _, images: np.full_like(images, 90))['a2b']
    assert scores['diversity'] == 0
    [warning] = tests.directions['a2b'].warnings(scores)
    assert 'differ among themselves only 0.00 times' in warning


def test_inverted_colours_are_warned_of(tests):
    scores = tests.score(lambda _, images: 255 - images)['a2b']
    assert scores['correlation'] == pytest.approx(-1, abs=1e-3)
    assert 'colours may be inverted' in tests.directions['a2b'].warnings(scores)[0]


def test_the_real_side_is_seen_once(dataset, monkeypatch):
    """What does not depend on the translator is not computed again at the next step."""
    tests = TestSet(dataset, table.parse('swd,monitors'), batch_size=6)
    tests.score(lambda _, images: images)
    _ = [direction.baselines for direction in tests.directions.values()]
    monkeypatch.setattr(measures.View, '__getitem__', lambda *_: pytest.fail('read again'))
    inputs = np.zeros((12, 32, 32, 3), np.uint8)
    for direction in tests.directions.values():
        direction.inputs = inputs
        _ = direction.baselines
        direction.score(as_they_are(inputs))


def test_all_translations_are_shown_in_order(tests):
    seen = {'a2b': [], 'b2a': []}
    tests.score(lambda _, images: images, lambda name, first, x: seen[name].append((first, len(x))))
    assert seen['a2b'] == seen['b2a'] == [(0, 5), (5, 5), (10, 2)]


def folder_set(root, names_a, names_b):
    random = np.random.RandomState(0)
    for split in ('trainA', 'trainB', 'testA', 'testB'):
        (root / split).mkdir()
        for name in names_a if split.endswith('A') else names_b:
            picture = Image.fromarray(random.randint(0, 256, (16, 16, 3)).astype(np.uint8))
            picture.save(root / split / name)
    return data.load(path=str(root), load_size=16, crop_size=16, seed=0, batch_size=1)


def test_facades_and_maps_are_known_to_be_pairs_by_their_names(tmp_path):
    dataset = folder_set(tmp_path, ['1_A.png', '10_A.png'], ['1_B.png', '10_B.png'])
    scores = TestSet(dataset, table.parse('paired'), batch_size=2).score(Truth(dataset))
    assert scores['a2b']['psnr'] == scores['b2a']['psnr'] == 100


def test_equal_names_alone_do_not_make_pairs(tmp_path):
    """Unpaired sets are numbered alike too; only --paired says that they are pairs."""
    dataset = folder_set(tmp_path, ['1.png', '2.png'], ['1.png', '2.png'])
    tests = TestSet(dataset, table.parse('paired,labels,fid_clean'), batch_size=2)
    assert list(tests.unavailable) == ['fid_clean', 'paired', 'labels']
    assert 'psnr' not in tests.score(lambda _, x: x)['a2b']
    assert (
        'psnr' in TestSet(dataset, table.parse('paired'), paired=True).score(lambda _, x: x)['a2b']
    )


def test_pairs_that_are_not_are_refused(tmp_path):
    dataset = folder_set(tmp_path, ['1.png', '2.png'], ['1.png', '3.png'])
    with pytest.raises(ValueError, match='on one side only 2, 3'):
        TestSet(dataset, table.parse('paired'), paired=True)


def test_a_translation_is_never_shuffled_to_its_own_truth():
    """Of seven, the seventh further on is itself; of one, there is no other."""
    for count in (2, 7, 14):
        images = np.random.RandomState(count).randint(0, 256, (count, 16, 16, 3)).astype(np.uint8)
        shuffled = measures.result_of(measures.shuffled_likeness(images), images)
        assert shuffled['psnr_shuffled'] < 20, count
    assert measures.shuffled_likeness(images[:1]) is None


def test_equal_real_images_have_no_diversity_to_compare_with():
    real = np.full((4, 16, 16, 3), 90, np.uint8)
    wanted = table.parse('monitors')
    direction = Direction(Extractor(None, 4), wanted, count=4, real=real, inputs=real)
    assert direction.score(as_they_are(real)).keys() == {'correlation'}


def scorer(dataset, metrics='paired,labels', keep_best='', best=None):
    return Scorer(dataset, metrics, keep_best, best, 'labels')


def test_scores_in_training_stand_beside_all_that_is_known(dataset):
    """Above all the mean picture's: what does not even beat that has learnt nothing."""
    scalars, [line, _], best = scorer(dataset).score(lambda _, images: images)
    assert best is None
    for baseline in ('untranslated', 'mean_image'):
        value = scalars[f'evaluation/psnr/a2b_{baseline}']
        assert f'{baseline} {value:.3g}' in line
    assert scalars['evaluation/psnr/a2b_mean_image'] > scalars['evaluation/psnr/a2b'] + 2
    assert 'evaluation/class_iou/b2a_label_ceiling' in scalars


@pytest.mark.parametrize(
    ('keep_best', 'message'),
    [
        ('class_iou_a2b', 'class_iou is computed of b2a only'),
        ('cycle_psnr_a2b', 'must be a score and a direction'),
        ('psnr_capped_a2b', 'must be a score and a direction'),
        ('psnr_b', 'must be a score and a direction'),
        ('swd_a2b', 'swd is not computed, only labels, paired'),
        ('fid_clean_a2b', 'fid_clean is not computed'),
    ],
)
def test_what_evaluations_will_not_have_cannot_be_kept(keep_best, message, dataset):
    """Told when the run is prepared, not at its first evaluation."""
    with pytest.raises(UserError, match=message):
        scorer(dataset, keep_best=keep_best)


@pytest.mark.parametrize(('score', 'better'), [('l1_a2b', 0), ('psnr_a2b', 100)])
def test_the_best_is_what_the_table_calls_better(score, better, dataset):
    known = {'score': score, 'value': 25.0 if better else 0.1}
    found = scorer(dataset, keep_best=score, best=known)
    assert found.score(lambda _, images: images)[2] is None
    assert found.score(Truth(dataset))[2] == {'score': score, 'value': better}


def test_the_finest_level_of_swd_can_be_kept(dataset):
    keep = 'swd_level_0_a2b'
    scalars, _, record = scorer(dataset, metrics='swd', keep_best=keep).score(Truth(dataset))
    assert record == {'score': keep, 'value': scalars['evaluation/swd_level_0/a2b']}


def test_a_new_distribution_score_is_an_entry_of_the_table(dataset, monkeypatch):
    """It is computed as it says, with floor and ceiling, and can be kept."""
    entry = table.Metric(
        name='brightness',
        scores=(table.Score('brightness', 'lower'),),
        features=table.Features('mean', prepare=lambda image, *_: image.mean()),
        distance=lambda x, y: {'': abs(x.mean() - y.mean()), '_detail': 7},
    )
    monkeypatch.setitem(table.METRICS, 'brightness', entry)
    monkeypatch.setitem(table.SCORES, 'brightness', entry.scores[0])
    found = scorer(dataset, 'brightness', 'brightness_a2b')
    scalars, _, best = found.score(lambda _, images: images // 2)
    assert best['value'] == scalars['evaluation/brightness/a2b']
    assert scalars['evaluation/brightness/a2b_ceiling'] < best['value']
    assert 'evaluation/brightness/a2b_floor' in scalars
    assert not any('detail' in name for name in scalars)


def test_each_score_is_declared_once():
    declared = [score.name for metric in table.METRICS.values() for score in metric.scores]
    assert len(declared) == len(set(declared))
    for metric in table.METRICS.values():
        assert bool(metric.features) == bool(metric.distance) != bool(metric.measures)
        assert metric.baselines.keys() <= set(table.BASELINES)
    kinds = {metric.features for metric in table.METRICS.values() if metric.features}
    assert len({kind.name for kind in kinds}) == len(kinds), 'they would stand for each other'
