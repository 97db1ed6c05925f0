"""What the demo offers and does with what is sent to it; in a browser: test_demo_browser.py."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from evaluation_run import write_run
from PIL import Image
from translate_fixtures import picture, random_network

from cyclegan_jax import demo, export, interop, translate
from cyclegan_jax.data.images import decode
from cyclegan_jax.errors import UserError
from cyclegan_jax.inference import Translator, space
from cyclegan_jax.inference.uploads import MAX_FILES, Offer, Work

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp('model')
    interop.save_pretrained(folder, {'a2b': random_network()})
    return folder


@pytest.fixture(scope='module')
def translator(model):
    return Translator.from_pretrained(model)


@pytest.fixture
def work(translator, tmp_path):
    (tmp_path / 'cache').mkdir()
    offers = {'horse to zebra': Offer('a2b', translator)}
    return Work(offers, tmp_path / 'cache', tile=64, max_pixels=5000)


@pytest.fixture
def photo(tmp_path):
    picture(size=(30, 21)).save(tmp_path / 'mare.png')
    return tmp_path / 'mare.png'


def test_pixels_are_those_of_translate(work, model, photo, tmp_path):
    before, after = work.translate(photo, 'horse to zebra')
    flags = [f'--model={model}', f'--input={photo}', f'--output={tmp_path / "out"}', '--tile=64']
    assert translate.main(flags) == 0
    np.testing.assert_array_equal(decode(after), decode(tmp_path / 'out' / 'mare.png'))
    np.testing.assert_array_equal(decode(before), decode(photo))
    assert after.name == 'mare_a2b.png'


def test_a_size_is_that_of_translate(work, translator, photo):
    for given, size in {' 16 ': 16, '12x20': (12, 20)}.items():
        after = work.translate(photo, 'horse to zebra', given).after
        expected = translator(Image.open(photo), size=size)
        np.testing.assert_array_equal(decode(after), np.asarray(expected))


def test_formats_that_no_browser_shows_come_back_as_png(work, tmp_path):
    picture(mode='CMYK', size=(12, 9)).save(tmp_path / 'print.tif')
    for path in work.translate(tmp_path / 'print.tif', 'horse to zebra'):
        with Image.open(path) as shown:
            assert (shown.format, shown.mode, shown.size) == ('PNG', 'RGB', (12, 9))


def test_a_picture_that_cannot_be_is_named_and_the_others_are_done(work, photo, tmp_path):
    broken, wide = tmp_path / 'broken.jpg', tmp_path / 'wide.png'
    broken.write_text('no picture')
    Image.new('RGB', (100, 51)).save(wide)
    other = tmp_path / 'more' / 'mare.png'  # of the same name
    other.parent.mkdir()
    picture(size=(8, 8), seed=1).save(other)
    *_, (done, refused, archive) = work.translate_all(
        [photo, broken, wide, other], 'horse to zebra'
    )
    assert [after.name for _, after in done] == ['mare_a2b.png', 'mare_2_a2b.png']
    assert [line.split(':')[0] for line in refused] == ['broken.jpg', 'wide.png']
    assert 'over the limit of 5000' in refused[1]
    assert zipfile.ZipFile(archive).namelist() == ['mare_a2b.png', 'mare_2_a2b.png']
    assert zipfile.ZipFile(archive).read('mare_a2b.png') == done[0].after.read_bytes()


def test_results_come_one_by_one(work, photo):
    steps = list(work.translate_all([photo, photo], 'horse to zebra'))
    assert [archive is None for _, _, archive in steps] == [True, True, False]


def test_where_none_can_be_there_is_no_archive(work, tmp_path):
    (tmp_path / 'x.png').write_bytes(b'')
    *_, (done, refused, archive) = work.translate_all([tmp_path / 'x.png'], 'horse to zebra')
    assert (done, len(refused), archive) == ([], 1, None)


@pytest.mark.parametrize(
    ('title', 'size', 'said'),
    [
        ('zebra to horse', '', 'choose one of the translations'),
        ('horse to zebra', 'large', "the size 'large' is neither a number nor HEIGHTxWIDTH"),
        ('horse to zebra', '9000', 'mare.png'),
    ],
)
def test_what_a_visitor_gets_wrong_is_one_line(work, photo, title, size, said):
    with pytest.raises(UserError, match=re.escape(said)) as raised:
        work.translate(photo, title, size)
    assert '\n' not in str(raised.value)


def test_nothing_that_was_written_stays(work, photo):
    work.translate(photo, 'horse to zebra')
    next(work.translate_all([photo, photo], 'horse to zebra'))  # and then somebody stops it
    work.sweep(3600)
    assert len(list(work.cache.rglob('*.png'))) == 4
    work.sweep(0)
    assert not list(work.cache.iterdir())


def test_more_pictures_than_one_go_takes_are_refused(work, photo):
    with pytest.raises(UserError, match=f'{MAX_FILES + 1} pictures are more than'):
        next(work.translate_all([photo] * (MAX_FILES + 1), 'horse to zebra'))


def test_a_picture_that_does_not_fit_into_memory_is_told(work, photo, monkeypatch):
    def too_large(*_, **__):
        raise MemoryError

    monkeypatch.setattr(Translator, '__call__', too_large)
    with pytest.raises(UserError, match=r'mare\.png: too large for the memory'):
        work.translate(photo, 'horse to zebra')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp('of') / 'run'
    write_run(folder, (4,))
    return folder


def offers(tmp_path, *flags):
    return demo.offers(demo.parse(list(flags)), tmp_path)


def test_all_directions_of_all_models_are_offered_with_test_pictures_to_try(run, model, tmp_path):
    found = offers(tmp_path, f'--model={run}')
    assert list(found) == ['brown to striped', 'striped to brown']
    assert [len(offer.examples) for offer in found.values()] == [4, 4]
    assert decode(found['striped to brown'].examples[0]).shape == (32, 32, 3)
    two = offers(tmp_path, f'--model={run}', f'--model={model}', '--direction=a2b')
    assert list(two) == [f'brown to striped, by {run}', f'A to B, by {model}']
    assert two[f'A to B, by {model}'].examples == []


def test_a_direction_that_a_model_lacks_is_an_error(model, tmp_path):
    with pytest.raises(UserError, match='has no generator b2a; give --direction=a2b'):
        offers(tmp_path, f'--model={model}', '--direction=b2a')


def test_data_that_is_gone_costs_the_examples_alone(run, tmp_path, caplog, monkeypatch):
    def gone(*_, **__):
        raise UserError('no folder')

    monkeypatch.setattr('cyclegan_jax.provenance.open_source', gone)
    found = offers(tmp_path, f'--model={run}')
    assert found['brown to striped'].examples == []
    assert 'no example pictures (no folder)' in caplog.text


WITHOUT = """
import sys
sys.modules['gradio'] = None
from cyclegan_jax import demo
sys.exit(demo.main(sys.argv[1:]))
"""


def test_without_gradio_it_says_how_to_get_it(model):
    command = [sys.executable, '-c', WITHOUT, f'--model={model}']
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'cyclegan_jax[demo]'" in done.stderr and done.stderr.count('\n') == 1


@pytest.fixture(scope='module')
def folder(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp('space')
    flags = [f'--model={run}', f'--output={folder}', '--format=space']
    assert export.main(flags) == 0
    return folder


def test_a_space_has_all_that_the_page_needs(folder, tmp_path):
    found = offers(tmp_path, f'--model={folder / space.MODEL}')
    assert list(found) == ['brown to striped', 'striped to brown']
    assert [len(offer.examples) for offer in found.values()] == [4, 4]
    compile((folder / 'app.py').read_text(), 'app.py', 'exec')
    modules = {path.relative_to(ROOT) for path in (ROOT / 'cyclegan_jax').rglob('*.py')}
    assert modules == {path.relative_to(folder) for path in (folder / 'cyclegan_jax').rglob('*.py')}


def test_the_hub_is_told_what_the_project_asks_for(folder):
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    [gradio] = project['optional-dependencies']['demo']
    assert gradio.startswith(f'gradio>={space.GRADIO.removesuffix(".0")},')
    card = (folder / 'README.md').read_text()
    assert f'sdk: gradio\nsdk_version: {space.GRADIO}\n' in card and 'app_file: app.py' in card
    needed = (folder / 'requirements.txt').read_text().splitlines()[1:]
    assert any(line.startswith('jax') for line in needed)
    assert not any('extra' in line or 'torch' in line for line in needed)


def test_a_space_may_be_written_again_but_over_no_other_app(folder, run, tmp_path, capsys):
    flags = [f'--model={run}', '--format=space']
    assert export.main([*flags, f'--output={folder}']) == 0
    (tmp_path / 'app.py').write_text('mine')
    assert export.main([*flags, f'--output={tmp_path}']) == 2
    assert 'app.py is not of an export' in capsys.readouterr().err
    assert (tmp_path / 'app.py').read_text() == 'mine'
