"""A run that goes wrong in a known way says so, and one that goes well says nothing."""

import types

import numpy as np
import pytest
from inception_state import blocks

from cyclegan_jax import alarms
from cyclegan_jax.observer import Observer, Stopwatch
from cyclegan_jax.pixels import Pixels

INPUTS, REAL = blocks(6, 24, 24), blocks(12, 24, 24)[6:]
GOOD = INPUTS * np.float32(0.75) + 20


@pytest.mark.parametrize(
    ('outputs', 'expected'),
    [
        (GOOD, None),
        (255 - GOOD, 'a2b: outputs correlate negatively'),
        (np.repeat(GOOD[:1], 6, axis=0), 'a2b: outputs differ among themselves only 0.00'),
        (INPUTS + (INPUTS < 255), 'a2b: outputs differ from their inputs by 0.0'),
    ],
    ids=['good', 'inverted', 'collapsed', 'untranslated'],
)
def test_translations_that_are_wrong_are_told(outputs, expected):
    found = alarms.of_translations('a2b', INPUTS, outputs.astype(np.uint8), REAL)
    assert bool(found) == bool(expected)
    assert not expected or any(text.startswith(expected) for text in found.values())


def test_one_image_cannot_collapse_and_grey_ones_have_no_change_to_measure():
    assert not alarms.of_translations('a2b', INPUTS[:1], GOOD[:1], REAL[:1])
    assert not alarms.of_translations('a2b', INPUTS[..., :1], INPUTS, REAL)


def test_the_change_of_others_is_measured_in_their_range():
    wide = Pixels(dtype='uint16', high=(65535.0,))
    inputs, real = (images.astype(np.uint16) * 257 for images in (INPUTS, REAL))
    found = alarms.of_translations('a2b', inputs, 65535 - inputs, real, wide, wide)
    assert 'correlation a2b' in found and 'change a2b' not in found
    found = alarms.of_translations('a2b', inputs, inputs + np.uint16(1), real, wide, wide)
    assert 'change a2b' in found
    other = Pixels(dtype='uint16', high=(4095.0,))
    found = alarms.of_translations('a2b', inputs, inputs, real, wide, other)
    assert 'change a2b' not in found, 'equal values mean something else'


@pytest.mark.parametrize(('gan', 'wide'), [('lsgan', 0.7), ('vanilla', 3), ('hinge', 1.4)])
def test_a_gap_is_too_wide_for_its_loss(gan, wide):
    def found(real):
        return alarms.of_gaps(alarms.gaps({'score/real_a': real, 'score/fake_a': 0.1}), gan)

    assert not found(0.5)
    assert 'gap/a is ' in found(0.1 + wide)['gap/a']


def test_what_lasts_is_told_once_and_again_after_a_break():
    lasting = alarms.Lasting(2)
    told = [lasting.of(found) for found in ({'x': 'X'}, {'x': 'X'}, {'x': 'X'}, {}, {'x': 'X'})]
    assert told == [[], ['X'], [], [], []]
    assert lasting.of({'x': 'X', 'y': 'Y'}) == ['X']


@pytest.mark.parametrize(('real', 'told'), [(0.9, 1), (0.5, 0)])
def test_a_run_logs_its_gaps_and_warns_of_those_that_stay(real, told):
    records, lines = [], []
    observer = Observer.__new__(Observer)
    observer._gan, observer._wide_gaps = 'lsgan', alarms.Lasting(10)
    observer._writer = types.SimpleNamespace(scalars=lambda step, s: records.append(s))
    observer._progress = types.SimpleNamespace(log=lines.append)
    scores = {'score/real_a': 0.5, 'score/fake_a': 0.4, 'score/real_b': real, 'score/fake_b': 0.1}
    for step in range(100, 1300, 100):
        stopwatch = Stopwatch()
        stopwatch.steps = 1
        fields = {'learning_rate': 1e-4, 'batch_size': 1, 'steps_per_epoch': 10}
        observer.log(step, scores, stopwatch, **fields, num_epochs=200, total_steps=2000)
    assert records[0]['gap/a'] == pytest.approx(0.1)
    assert records[0]['gap/b'] == pytest.approx(real - 0.1)
    warnings = [line for line in lines if 'warning' in line]
    assert len(warnings) == told
    assert all(line.startswith('step 1000  warning: discriminator b tells') for line in warnings)
