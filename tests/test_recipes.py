"""What compares recipes resumes exactly and draws what it measured."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


@pytest.fixture
def recipes(monkeypatch):
    """Imports a script of benchmarks/recipes."""
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    monkeypatch.syspath_prepend(ROOT / 'benchmarks' / 'recipes')
    return importlib.import_module


@pytest.fixture
def pictures(tmp_path):
    """Two training and two test pictures of each domain; the latter alone, too, in a and b."""
    rng = np.random.default_rng(0)
    for domain in 'AB':
        for split in f'train{domain}', f'test{domain}':
            folder = tmp_path / 'data' / split
            folder.mkdir(parents=True)
            for i in range(2):
                pixels = rng.integers(256, size=(32, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f'{i}.png')
    return tmp_path / 'data'


@pytest.fixture
def small(recipes, monkeypatch):
    """The PyTorch side, of tiny networks."""
    pytest.importorskip('torch')
    training = recipes('torch_training')
    for name, value in {'LOAD': 18, 'CROP': 16, 'WIDTH': 4, 'BLOCKS': 1}.items():
        monkeypatch.setattr(training, name, value)
    return training


def test_the_pytorch_side_resumes_exactly(small, recipes, pictures, tmp_path, monkeypatch):
    equivalence = recipes('equivalence')
    monkeypatch.setattr(equivalence, 'CROP', 16)
    test = equivalence._shrink(pictures, tmp_path / 'real')

    def train(workdir, updates):
        flags = {'data': pictures, 'test': test, 'workdir': tmp_path / workdir, 'updates': updates}
        arguments = [f'--{name}={value}' for name, value in flags.items()]
        monkeypatch.setattr(sys, 'argv', ['torch_training.py', *arguments])
        assert small.main() == 0
        outputs = sorted((tmp_path / workdir / f'step_{updates}').rglob('*.png'))
        return [np.asarray(Image.open(path)) for path in outputs]

    unbroken = train('unbroken', 60)  # past 50, where the pools begin to choose
    train('broken', 57)
    broken = train('broken', 60)
    assert len(unbroken) == 4
    np.testing.assert_array_equal(broken, unbroken)
    assert np.ptp(unbroken) > 0


def test_the_figure_is_drawn(recipes, tmp_path):
    pytest.importorskip('matplotlib')
    equivalence = recipes('equivalence')
    results = [
        {'side': side, 'seed': seed, 'updates': updates, 'a2b': scores, 'b2a': scores}
        for side in equivalence.SIDES
        for seed in range(2)
        for updates in (2000, 4000)
        if (seed, updates) != (1, 4000)  # the table is drawn before it is full
        for scores in [{'frechet': 30.0 + seed, 'kid': 80.0}]
    ]
    equivalence.draw(results, tmp_path / 'figure.png')
    with Image.open(tmp_path / 'figure.png') as figure:
        assert min(figure.size) > 500


def test_a_point_is_scored_once(recipes, tmp_path, monkeypatch):
    """A score that stands is read, not trained for again."""
    equivalence = recipes('equivalence')
    kept = {'a2b': {'kid': 1.0}, 'b2a': {'kid': 2.0}}
    (tmp_path / 'PyTorch_0').mkdir()
    (tmp_path / 'PyTorch_0' / 'step_10.json').write_text(json.dumps(kept))
    args = type('Arguments', (), {'workdir': tmp_path})
    assert equivalence._point('PyTorch', 0, 10, tmp_path, args) == kept
