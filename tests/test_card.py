"""The model card of an export tells what the run kept, and replaces nothing of the user's."""

import json

import numpy as np
import pytest
from evaluation_run import write_run
from PIL import Image
from translate_fixtures import random_network

from cyclegan_jax import card, export, interop, provenance
from cyclegan_jax.inference.exporting import FORMATS
from cyclegan_jax.provenance import About

RECORD = {
    'scores': {'swd': 20.5, 'psnr': 23.25},
    'baselines': {'floor': {'swd': 11.5, 'images': 16}, 'ceiling': {'swd': 99.5}},
    'images': 16,
    'real_images': 15,
    'warnings': ['the floor is of few images'],
}
PROTOCOL = {'dtype': 'float32', 'scored_files': {'a': ['/home/me/secret.png']}, 'config': {}}


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    """Of a run with scores and samples."""
    folder = tmp_path_factory.mktemp('of') / 'run'
    write_run(folder, (4, 8))
    scored = {'step': 8, 'a2b': RECORD, 'b2a': RECORD, 'protocol': PROTOCOL}
    (folder / 'evaluation').mkdir()
    (folder / 'evaluation' / 'step_8.json').write_text(json.dumps(scored))
    (folder / 'samples').mkdir()
    for step in (4, 6):
        Image.fromarray(np.full((5, 5, 3), step, np.uint8)).save(
            folder / 'samples' / f'step_{step}.png'
        )
    return folder


def run(model, output, *flags):
    return export.main([f'--model={model}', f'--output={output}', *flags])


def sample(folder):
    return np.asarray(Image.open(folder / 'samples.png'))[0, 0, 0]


def test_the_card_of_a_run_tells_data_training_and_scores_by_protocol(workdir, tmp_path):
    assert run(workdir, tmp_path / 'out') == 0
    text = (tmp_path / 'out' / 'README.md').read_text()
    for words in (
        'pipeline_tag: image-to-image',
        'brown to striped: 16 images against 15 real ones',
        '`a`, brown: 12 training images',
        '8 updates of 1 image(s)',
        'synthetic `labels`, at 32 pixels',
        'the floor is of few images',
        '"dtype": "float32"',
        '"cycle_weight": 10.0',
        '![Rows: brown; ',
        '--format=pytorch',
        '--format=web',
        '--direction=a2b',
    ):
        assert words in text
    row = next(line for line in text.splitlines() if line.split()[:1] == ['swd'])
    assert row.split() == ['swd', '20.5', 'lower', '11.5', '99.5']
    assert 'secret' not in text
    assert sample(tmp_path / 'out') == 6  # the newest of those that are no later


def test_an_earlier_step_has_its_own_samples_and_no_scores_of_another(workdir, tmp_path):
    assert run(workdir, tmp_path / 'out', '--step=4') == 0
    text = (tmp_path / 'out' / 'README.md').read_text()
    assert 'None. `python -m cyclegan_jax.evaluate' in text and '20.5' not in text
    assert sample(tmp_path / 'out') == 4


def test_scores_of_other_weights_are_not_told(workdir):
    config = json.loads((workdir / 'config.json').read_text())
    scored = workdir / 'evaluation' / 'step_8.json'
    before = scored.read_text()
    scored.write_text(json.dumps(json.loads(before) | {'protocol': {'weights': 'trained'}}))
    told = {w: provenance._of_run(workdir, config, 8, w).run for w in ('trained', 'average')}
    scored.write_text(before)
    assert 'evaluation' in told['trained'] and 'evaluation' not in told['average']
    text = card._card('onnx', {'a2b': random_network()}, About(run=told['average']), None)
    assert 'the generators are averages' in text


def test_what_is_known_goes_on_from_export_to_export(workdir, tmp_path):
    assert run(workdir, tmp_path / 'one') == 0
    assert run(tmp_path / 'one', tmp_path / 'two') == 0
    first, second = ((tmp_path / n / 'README.md').read_text() for n in ('one', 'two'))
    assert first == second
    assert sample(tmp_path / 'two') == 6
    assert run(tmp_path / 'two', tmp_path / 'two') == 0  # into itself
    assert (tmp_path / 'two' / 'README.md').read_text() == first


def test_no_place_on_a_disk_is_told(workdir):
    config = json.loads((workdir / 'config.json').read_text())
    config['data'] |= {'source': 'folder', 'name': '', 'path': '/home/me/zoo/horses'}
    config['data'] |= {'split_a': '/home/me/a', 'test_split_b': '/home/me/b'}
    config['init_from'] = '/home/me/runs/earlier'
    about = provenance._of_run(workdir, config, 8)
    text = card._card('safetensors', {'a2b': random_network()}, about, None)
    assert '`horses`' in text and '/home/me' not in text + json.dumps(about.run)


@pytest.mark.parametrize(
    ('field', 'value', 'told'),
    [
        ('licence', 'CC BY 4.0 by the zoo', 'Licence of the data: CC BY 4.0 by the zoo'),
        ('init_from', 'me/horses', 'begun with the networks of `me/horses`'),
    ],
)
def test_what_the_config_says_of_data_and_beginning_is_told(workdir, field, value, told):
    config = json.loads((workdir / 'config.json').read_text())
    for given in ('', value):
        config[field] = given
        about = provenance._of_run(workdir, config, 8)
        text = card._card('safetensors', {'a2b': random_network()}, about, None)
        assert (told in text) == bool(given)


@pytest.mark.parametrize('format_', FORMATS)
def test_every_format_says_how_it_is_used_and_of_unknown_weights_that_they_are(format_):
    text = card._card(format_, {'b2a': random_network()}, About(), 'loads them by --netG')
    assert 'Nothing is known of the training' in text
    assert 'Translator.from_pretrained' in text and "direction='b2a'" in text
    known = {
        'pytorch': '--netG',
        'huggan': 'GeneratorResNet.from_pretrained',
        'stablehlo': "deserialize(bytearray(Path('b2a.stablehlo')",
        'onnx': "InferenceSession('b2a.onnx')",
        'web': 'python -m http.server',
    }
    assert known.get(format_, '--format=pytorch') in text


def test_a_readme_of_the_users_is_not_replaced(workdir, tmp_path, capsys):
    (tmp_path / 'README.md').write_text('# My notes')
    assert run(workdir, tmp_path) == 2
    error = capsys.readouterr().err
    assert 'README.md is not of an export' in error and error.count('\n') == 1
    assert [path.name for path in tmp_path.iterdir()] == ['README.md']
    # Cards of earlier versions are.
    (tmp_path / 'README.md').write_text('# CycleGAN\n\n... 2017), written\nby cyclegan_jax. Holds')
    assert run(workdir, tmp_path) == 0
    # And one's own words are, as long as the last line says so.
    text = (tmp_path / 'README.md').read_text()
    (tmp_path / 'README.md').write_text(text.rpartition('<!--')[0])
    assert run(workdir, tmp_path) == 2


@pytest.mark.parametrize(
    'run_',
    [3, {}, {'domains': {}, 'step': 1, 'config': {}}, {'domains': {'a': 'x', 'b': 3}, 'step': 1}],
)
def test_an_export_whose_config_was_damaged(tmp_path, capsys, run_):
    interop.save_pretrained(tmp_path / 'model', {'a2b': random_network()})
    config = tmp_path / 'model' / 'config.json'
    config.write_text(json.dumps({'run': run_}))
    assert run(tmp_path / 'model', tmp_path / 'out') == 2
    error = capsys.readouterr().err
    assert 'config.json' in error and error.count('\n') == 1
