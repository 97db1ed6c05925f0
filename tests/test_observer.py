"""What a run shows of itself is what its generators give anyone."""

import time
import types

import jax
import numpy as np

from cyclegan_jax import sharding
from cyclegan_jax.networks import make_networks
from cyclegan_jax.observer import Observer, Watchdog
from cyclegan_jax.pixels import PHOTOGRAPHS
from cyclegan_jax.train_step import make_translate

FIELDS = {'a': 3, 'b': 3}, {'width': 4, 'num_blocks': 0}, {'width': 4, 'num_layers': 1}


def test_samples_and_scores_of_a_bfloat16_run_are_computed_in_float32(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)
    low, full = make_networks(*FIELDS, 'bfloat16'), make_networks(*FIELDS, 'float32')
    params = full.generators['a2b'].init(jax.random.key(0), images.astype(np.float32))['params']
    generators = {'a2b': params, 'b2a': params}
    expected = make_translate(full.generators['a2b'])(params, images)
    assert (expected != make_translate(low.generators['a2b'])(params, images)).any()

    shown, scored = {}, []
    observer = Observer(
        tmp_path,
        sharding.make_mesh(8),
        types.SimpleNamespace(
            test=lambda number: {'a': images, 'b': images},
            pixels={'a': PHOTOGRAPHS, 'b': PHOTOGRAPHS},
        ),
        low,
        {'a': 'a', 'b': 'b'},
        types.SimpleNamespace(score=lambda f: (scored.append(f('a2b', images)), [], None)),
        types.SimpleNamespace(
            scalars=lambda *_: None, images=lambda step, grids: shown.update(grids)
        ),
        None,
        'lsgan',
    )
    observer.evaluate(1, generators)
    np.testing.assert_array_equal(scored[0], expected)
    observer.sample(1, generators)
    for image in np.asarray(expected):
        windows = np.lib.stride_tricks.sliding_window_view(shown['samples'], image.shape)
        assert (windows[:, :, 0] == image).all(axis=(2, 3, 4)).any()


def test_a_step_that_takes_far_longer_is_told_once(caplog):
    with Watchdog(least=0.3, times=2) as watchdog:
        time.sleep(0.4)  # the first one may take any time
        for _ in range(20):
            watchdog.step()
        with watchdog.paused():
            time.sleep(0.5)
        assert not caplog.records
        time.sleep(0.6)
        assert 'this step (21 since the start) takes 0 s so far, usually' in caplog.text
        watchdog.step()
        watchdog.step()
    assert len(caplog.records) == 2 and 'step 21 is done, after' in caplog.records[1].message
