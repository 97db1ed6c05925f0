"""What compares recipes resumes exactly and draws what it measured."""

import importlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import default

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
    torch = pytest.importorskip('torch')
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine several wait for each other
    training = recipes('torch_training')
    for name, value in {'LOAD': 18, 'CROP': 16, 'WIDTH': 4, 'BLOCKS': 1}.items():
        monkeypatch.setattr(training, name, value)
    yield training
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_the_pytorch_side_resumes_exactly(small, recipes, pictures, tmp_path, monkeypatch):
    test = recipes('outcome').shrink(pictures, tmp_path / 'real', 16)

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


def a_table():
    """Two ends, and two recipes, of which one has a second seed already."""
    ends = [
        {'recipe': name, 'a2b': {'kid': value}, 'b2a': {'kid': 2 * value}}
        for name, value in (('untranslated', 40.0), ('training pictures', 4.0))
    ]
    return ends + [
        {
            'recipe': recipe,
            'seed': seed,
            'weights': weights,
            'a2b': {'kid': 20.0 + 2 * seed},
            'b2a': {'kid': 30.0},
        }
        for recipe, seed in (('plain', 0), ('skip', 0), ('plain', 1))
        for weights in ('trained', 'average')
    ]


def test_the_table_has_means_and_spreads(recipes):
    lines = recipes('ablation').table(a_table()).splitlines()
    assert lines[0] == '| recipe | weights | seeds | kid a2b | kid b2a |'
    assert lines[2] == '| untranslated |  |  | 40.0 | 80.0 |'
    assert lines[4] == '| plain | trained | 2 | 21.0 (20.0 to 22.0) | 30.0 (30.0 to 30.0) |'
    assert '| skip | average | 1 | 20.0 | 30.0 |' in lines


def test_the_figure_of_the_table_is_drawn(recipes, tmp_path):
    pytest.importorskip('matplotlib')
    recipes('ablation').draw(a_table(), tmp_path / 'figure.png')
    with Image.open(tmp_path / 'figure.png') as figure:
        assert min(figure.size) > 200


def test_translations_are_shown_below_their_inputs(recipes, tmp_path):
    def picture(path, value):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(path)

    ablation, value = recipes('ablation'), iter(range(1, 100))
    for folder in 'real/a', 'plain_0/average/a2b', 'real/b', 'plain_0/average/b2a':
        for name in 'x.png', 'y.png':
            picture(tmp_path / folder / name, next(value))
    ablation.show(['plain'], tmp_path / 'real', tmp_path, tmp_path / 'shown.png', count=2)
    with Image.open(tmp_path / 'shown.png') as shown:
        np.testing.assert_array_equal(np.asarray(shown)[::8, ::8, 0], np.arange(1, 9).reshape(4, 2))


def test_every_recipe_is_of_fields_that_exist(recipes):
    ablation = recipes('ablation')
    assert ablation.RECIPES['plain'] == ()
    for parts in ablation.RECIPES.values():
        config = default.get_config()
        for part in parts:
            config.update_from_flattened_dict(ablation.PARTS[part])


def test_runs_are_trained_and_scored_once(recipes, pictures, tmp_path, monkeypatch, capsys):
    """The second call finds what the first has kept, which was killed between two runs."""
    ablation, outcome = recipes('ablation'), recipes('outcome')
    trained = []

    def train(workdir, fields):
        trained.append((workdir.name, fields['seed'], fields['schedule.num_epochs']))
        if len(trained) == 2:
            raise KeyboardInterrupt
        workdir.mkdir(exist_ok=True)

    score = tmp_path / 'score.py'
    score.write_text('print(\'{"kid": 1.5, "images": 3}\')')
    flags = {
        'data': pictures,
        'workdir': tmp_path / 'runs',
        'score': f'{sys.executable} {score}',
        'recipes': 'plain,skip and slow',
        'seeds': 1,
        'updates': 20,
        'size': 16,
        'json': tmp_path / 'out.json',
    }
    monkeypatch.setattr(sys, 'argv', ['x.py', *(f'--{name}={x}' for name, x in flags.items())])
    monkeypatch.setattr(ablation.measure, 'command', lambda: ['x'])
    monkeypatch.setattr(outcome, 'train', train)
    monkeypatch.setattr(outcome, 'translate', lambda *_: outcome.directions_in(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        ablation.main()
    read = lambda: json.loads((tmp_path / 'out.json').read_text())['results']
    assert [r.get('weights') for r in read()] == [None, None, 'trained', 'average']
    assert ablation.main() == 0
    expected = [('plain_0', 0, 10), *2 * [('skip_and_slow_0', 0, 10)]]
    assert trained == expected
    assert len(read()) == 6 and read()[-1]['b2a'] == {'kid': 1.5}
    # On another machine there is only the file.
    shutil.rmtree(tmp_path / 'runs')
    assert ablation.main() == 0
    assert trained == expected and len(read()) == 6
    sys.argv.append('--updates=40')
    with pytest.raises(SystemExit):
        ablation.main()
    assert 'has results of another setting' in capsys.readouterr().err
