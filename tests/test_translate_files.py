"""The translate command, as a user calls it."""

import collections
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import jax
import numpy as np
import psutil
import pytest
from PIL import Image, ImageCms
from translate_fixtures import picture, random_network

from cyclegan_jax import interop, translate
from cyclegan_jax.data.sources.folder import EXTENSIONS
from cyclegan_jax.inference import Translator, pictures


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp('model')
    networks = {'a2b': random_network(seed=1), 'b2a': random_network(seed=2)}
    interop.save_pretrained(folder, networks)
    return str(folder)


@pytest.fixture
def photos(tmp_path):
    """Pictures of several kinds in a tree."""
    root = tmp_path / 'photos'
    for name, mode, size in [
        ('wide.png', 'RGB', (30, 21)),
        ('summer/tall.PNG', 'RGBA', (21, 30)),
        ('summer/deep.png', 'I;16', (30, 21)),
        ('summer/noon/photo.jpg', 'RGB', (32, 16)),
        ('grey.tif', 'L', (17, 17)),
    ]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(mode, size).save(root / name)
    (root / 'notes.txt').write_text('not a picture')
    (root / '._wide.png').write_text('left by a Mac')
    return root


def run(model, source, output, *flags):
    return translate.main([f'--model={model}', f'--input={source}', f'--output={output}', *flags])


def tree(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file()}


NAMES = {'wide.png', 'summer/tall.PNG', 'summer/deep.png', 'summer/noon/photo.jpg', 'grey.tif'}


def test_a_folder_keeps_tree_names_formats_sizes_and_kinds(model, photos, tmp_path):
    output = tmp_path / 'out'
    assert run(model, photos, output) == 0
    assert tree(output) == NAMES
    for name in NAMES:
        with Image.open(photos / name) as given, Image.open(output / name) as result:
            assert (result.format, result.size) == (given.format, given.size)
            assert result.mode == given.mode
    with Image.open(photos / 'wide.png') as given:
        expected = Translator.from_pretrained(model)(given)
    with Image.open(output / 'wide.png') as result:
        np.testing.assert_array_equal(result, expected)


def test_one_file_and_a_pattern(model, photos, tmp_path):
    assert run(model, photos / 'summer/tall.PNG', tmp_path / 'one') == 0
    assert tree(tmp_path / 'one') == {'tall.PNG'}
    assert run(model, photos / '**/*.png', tmp_path / 'some') == 0
    assert tree(tmp_path / 'some') == {'wide.png', 'summer/deep.png'}


def test_both_directions(model, photos, tmp_path):
    assert run(model, photos / 'wide.png', tmp_path, '--direction=a2b,b2a') == 0
    for direction in ('a2b', 'b2a'):
        with Image.open(photos / 'wide.png') as given:
            expected = Translator.from_pretrained(model, direction)(given)
        with Image.open(tmp_path / direction / 'wide.png') as result:
            np.testing.assert_array_equal(result, expected)


def test_a_bad_picture_is_named_and_the_rest_is_done(model, photos, tmp_path, capsys):
    whole = (photos / 'summer/noon/photo.jpg').read_bytes()
    (photos / 'cut.jpg').write_bytes(whole[: len(whole) // 2])
    (photos / 'empty.png').touch()
    Image.new('F', (16, 16)).save(photos / 'float.tif')
    assert run(model, photos, tmp_path / 'out', '--batch=4') == 1
    assert tree(tmp_path / 'out') == NAMES
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error')]
    assert len(errors) == 3
    assert any('cut.jpg' in line for line in errors)
    assert any('empty.png: empty file' in line for line in errors)
    assert any('float.tif: floating point' in line for line in errors)


def test_skip_existing_makes_only_what_is_missing(model, photos, tmp_path):
    output = tmp_path / 'out'
    run(model, photos, output)
    (output / 'grey.tif').unlink()
    (output / 'wide.png').write_bytes(b'kept')
    assert run(model, photos, output, '--skip-existing') == 0
    assert tree(output) == NAMES
    assert (output / 'wide.png').read_bytes() == b'kept'


def test_format_and_what_it_cannot_hold(model, photos, tmp_path):
    output = tmp_path / 'out'
    assert run(model, photos, output, '--format=jpg') == 0
    assert tree(output) == {
        'wide.jpg',
        'summer/tall.jpg',
        'summer/deep.jpg',
        'summer/noon/photo.jpg',
        'grey.jpg',
    }
    with Image.open(output / 'summer/deep.jpg') as deep:
        assert deep.mode == 'L' and np.asarray(deep).std() > 5
    with Image.open(photos / 'summer/tall.PNG') as given:
        hidden = np.asarray(given.getchannel('A')) == 0
    with Image.open(output / 'summer/tall.jpg') as opaque:
        assert np.median(np.asarray(opaque)[hidden]) > 245  # white, not what lay below


@pytest.mark.parametrize('batch', [1, 3, 8])
def test_batches_of_mixed_sizes(model, tmp_path, batch):
    sizes = [(20, 20), (24, 20), (20, 20), (20, 24), (20, 20), (20, 20)]
    for i, size in enumerate(sizes):
        picture(size=size, seed=i).save(tmp_path / f'{i}.png')
    assert run(model, tmp_path, tmp_path / 'out', f'--batch={batch}') == 0
    translator = Translator.from_pretrained(model)
    for i, size in enumerate(sizes):
        with Image.open(tmp_path / 'out' / f'{i}.png') as result:
            expected = np.asarray(translator(picture(size=size, seed=i)), int)
            assert np.abs(np.asarray(result, int) - expected).max() <= 1


def test_size_and_tile(model, photos, tmp_path):
    with Image.open(photos / 'wide.png') as given:
        translator = Translator.from_pretrained(model)
        for flag, options in {
            '--size=16': {'size': 16},
            '--size=16x24': {'size': (16, 24)},
            '--tile=16': {'tile': 16},
        }.items():
            assert run(model, photos / 'wide.png', tmp_path, flag) == 0
            with Image.open(tmp_path / 'wide.png') as result:
                np.testing.assert_array_equal(result, translator(given, **options))


def test_orientation_of_a_camera_is_applied(model, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    picture(size=(30, 20)).save(tmp_path / 'photo.png', exif=exif)
    assert run(model, tmp_path / 'photo.png', tmp_path / 'out') == 0
    with Image.open(tmp_path / 'out' / 'photo.png') as result:
        assert result.size == (20, 30)
        assert not result.getexif().get(0x0112)


def test_output_inside_the_input_is_not_translated_again(model, photos):
    for _ in range(2):
        assert run(model, photos, photos / 'out') == 0
    assert tree(photos / 'out') == NAMES


@pytest.mark.parametrize(
    ('flags', 'words'),
    [
        (['--input=nowhere'], 'nowhere does not exist'),
        (['--input=*.nothing'], 'has no images'),
        (['--model=no/such/model'], 'no/such/model does not exist'),
        (['--format=doc'], 'choose --format, one of png, '),
        (['--output={photos}'], 'would be replaced; choose another --output'),
    ],
)
def test_mistakes_end_in_one_line(model, photos, tmp_path, capsys, flags, words):
    flags = [flag.format(photos=photos) for flag in flags]
    assert run(model, photos, tmp_path / 'out', *flags) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ') and error.count('\n') == 1
    assert words in error


def test_two_pictures_never_become_one(model, photos, tmp_path, capsys):
    picture().save(photos / 'wide.jpg')
    assert run(model, photos, tmp_path / 'out', '--format=png') == 2
    assert 'would both become' in capsys.readouterr().err


def test_one_generator_has_one_direction(photos, tmp_path, capsys):
    interop.save_pretrained(tmp_path, {'b2a': random_network()})
    assert run(tmp_path, photos, tmp_path / 'out', '--direction=a2b,b2a') == 2
    assert 'has no generator a2b; give --direction=b2a' in capsys.readouterr().err


@pytest.mark.parametrize(
    'flag', ['--direction=AtoB', '--size=0', '--size=axb', '--batch=0', '--tile=-3']
)
def test_wrong_values_are_refused_by_name(flag, capsys):
    with pytest.raises(SystemExit) as exit_:
        run('m', 'i', 'o', flag)
    assert exit_.value.code == 2
    assert flag.partition('=')[0] in capsys.readouterr().err


def test_help_needs_no_jax():
    code = (
        'import sys\n'
        'from cyclegan_jax import translate\n'
        'try:\n    translate.main(["--help"])\n'
        'finally:\n    assert "jax" not in sys.modules and "numpy" not in sys.modules'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert '--direction' in done.stdout


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
def test_a_folder_that_cannot_be_written(model, photos, tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert run(model, photos / 'wide.png', tmp_path / 'out') == 1
    assert 'Permission denied' in capsys.readouterr().err


def test_a_picture_that_its_format_cannot_hold_is_named_and_the_rest_is_done(
    model, tmp_path, capsys
):
    Image.new('RGB', (16384, 1)).save(tmp_path / 'a.png')  # one more than WebP has
    picture().save(tmp_path / 'b.png')
    assert run(model, tmp_path, tmp_path / 'out', '--format=webp') == 1
    assert tree(tmp_path / 'out') == {'b.webp'}
    error = capsys.readouterr().err
    assert 'a.webp: 16384 x 1 pixels, but WEBP has at most 16383 a side' in error
    assert 'too few' not in error  # nothing was computed


def test_a_picture_too_small_to_mean_anything_is_named(model, tmp_path, capsys):
    for name, size in {'dot.png': (1, 1), 'line.png': (4000, 1)}.items():
        Image.new('RGB', size).save(tmp_path / name)
    assert run(model, tmp_path, tmp_path / 'out') == 0
    assert tree(tmp_path / 'out') == {'dot.png', 'line.png'}
    error = capsys.readouterr().err
    assert 'dot.png: 1 x 1 pixels are too few' in error
    assert 'line.png: 4000 x 1 pixels are too few' in error


def test_a_name_as_long_as_the_file_system_allows(model, tmp_path):
    name = 'x' * 251 + '.png'
    picture().save(tmp_path / name)
    assert run(model, tmp_path / name, tmp_path / 'out') == 0
    assert tree(tmp_path / 'out') == {name}


def deep_colour(path):
    """A PNG of 16-bit colours, which Pillow cannot write."""

    def chunk(kind, data):
        return (
            struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
        )

    rows = np.random.default_rng(0).integers(0, 2**16, (16, 16 * 3)).astype('>u2')
    pixels = zlib.compress(b''.join(b'\0' + row.tobytes() for row in rows))
    header = chunk(b'IHDR', struct.pack('>IIBBBBB', 16, 16, 16, 2, 0, 0, 0))
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + header + chunk(b'IDAT', pixels) + chunk(b'IEND', b''))


def test_what_is_lost_is_told_by_the_name_of_the_file(model, tmp_path, capsys):
    pages = [picture(seed=seed) for seed in range(2)]
    pages[0].save(tmp_path / 'film.gif', save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / 'pages.tif', save_all=True, append_images=pages[1:])
    deep_colour(tmp_path / 'deep.png')
    picture('I;16').save(tmp_path / 'grey.png')
    picture().save(tmp_path / 'plain.png')
    assert run(model, tmp_path, tmp_path / 'out') == 0
    lines = sorted(capsys.readouterr().err.splitlines())
    assert len(lines) == 3
    assert 'deep.png: 16 bits are kept of grey; colours are translated as 8' in lines[0]
    assert 'film.gif: of several frames or pages the first is translated' in lines[1]
    assert 'pages.tif: of several frames' in lines[2]


@pytest.mark.parametrize('suffix', ['png', 'jpg', 'tif', 'webp'])
def test_colour_profile_and_resolution_are_kept(model, tmp_path, suffix):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    for mode in ('RGB', 'L'):
        picture(mode).save(tmp_path / f'{mode}.{suffix}', icc_profile=profile, dpi=(300, 300))
    assert run(model, tmp_path, tmp_path / 'out') == 0
    with Image.open(tmp_path / 'out' / f'RGB.{suffix}') as result:
        assert result.info['icc_profile'] == profile
        if suffix != 'webp':  # which has no resolution
            assert [round(x) for x in result.info['dpi']] == [300, 300]
    with Image.open(tmp_path / 'out' / f'L.{suffix}') as result:
        assert not result.info.get('icc_profile') or result.mode == 'RGB'  # it is not one of grey


def test_what_training_reads_is_translated():
    assert set(EXTENSIONS) <= set(pictures.SUFFIXES)


def test_a_translation_may_be_made_again(model, tmp_path):
    """In every format it says, or cannot, that it is one."""
    source, output = tmp_path / 'in', tmp_path / 'out'
    source.mkdir()
    for suffix in pictures.SUFFIXES:
        picture().save(source / f'x{suffix}')
    for _ in range(2):
        assert run(model, source, output) == 0
    assert tree(output) == {f'x{suffix}' for suffix in pictures.SUFFIXES}


def test_a_file_that_is_no_translation_is_not_replaced(model, tmp_path, capsys):
    """In every format that can say that it is one."""
    source, output = tmp_path / 'in', tmp_path / 'out'
    source.mkdir()
    output.mkdir()
    before = {}
    for suffix in {*pictures.SUFFIXES} - {'.bmp', '.ppm', '.pgm', '.pbm', '.pnm'}:
        picture().save(source / f'x{suffix}')
        kept = output / f'x{suffix}'
        picture(seed=1).save(kept)
        before[kept] = kept.read_bytes()
        assert run(model, source / kept.name, output) == 2
        error = capsys.readouterr().err
        assert f'{kept} would be replaced, and may be no translation' in error
        assert '--overwrite or --skip-existing' in error
    assert run(model, source, output, '--skip-existing') == 0
    assert {kept: kept.read_bytes() for kept in before} == before
    assert run(model, source, output, '--overwrite') == 0
    for kept, content in before.items():
        assert kept.read_bytes() != content, kept


def test_every_suffix_of_jpeg_and_what_is_passed_over(model, tmp_path, capsys):
    for name in ('a.jfif', 'b.jpe', 'c.JPEG'):
        picture().save(tmp_path / name, 'JPEG')
    for name in ('d.tga', 'e.ico', 'f.tga', 'g.heic'):
        (tmp_path / name).touch()
    assert run(model, tmp_path, tmp_path / 'out') == 0
    assert tree(tmp_path / 'out') == {'a.jfif', 'b.jpe', 'c.JPEG'}
    error = capsys.readouterr().err
    assert f'{tmp_path}: passed over 2 .tga, 1 .ico, 1 .heic' in error


def test_an_output_that_is_a_file_is_one_clear_line(model, photos, tmp_path, capsys):
    (tmp_path / 'file').touch()
    assert run(model, photos, tmp_path / 'file') == 2
    assert capsys.readouterr().err == f'error: --output={tmp_path}/file is a file; name a folder.\n'


def test_names_of_files_do_not_move_the_cursor(model, tmp_path, capsys):
    (tmp_path / 'bad\n\x1b[2J.png').write_text('no picture')
    picture().save(tmp_path / 'good.png')
    assert run(model, tmp_path, tmp_path / 'out') == 1
    error = capsys.readouterr().err
    assert '\x1b' not in error and error.count('\n') == 1
    assert r'bad\n\x1b[2J.png: not an image' in error


def test_a_picture_too_large_for_the_memory_ends_with_advice(
    model, photos, tmp_path, capsys, monkeypatch
):
    memory = collections.namedtuple('memory', 'available')
    own = psutil.Process().memory_info().rss
    monkeypatch.setattr(psutil, 'virtual_memory', lambda: memory(-2 * own))
    assert run(model, photos / 'wide.png', tmp_path / 'out') == 4
    error = capsys.readouterr().err
    assert error.startswith(f'error: out of memory ({photos}/wide.png: it takes ')
    assert 'use --tile=512' in error and error.count('\n') == 1


def test_colour_of_grey_pictures(model, photos, tmp_path):
    assert run(model, photos / 'grey.tif', tmp_path / 'out', '--colour=model') == 0
    with Image.open(tmp_path / 'out' / 'grey.tif') as result:
        assert result.mode == 'RGB'


def test_parameters_that_are_no_numbers_end_with_the_name_of_the_model(photos, tmp_path, capsys):
    network = random_network()
    spoilt = jax.tree.map(lambda leaf: leaf * np.float32(np.nan), network.params)
    interop.save_pretrained(tmp_path / 'model', {'a2b': network._replace(params=spoilt)})
    assert run(tmp_path / 'model', photos, tmp_path / 'out') == 2
    assert 'NaN or infinite' in (error := capsys.readouterr().err) and f'{tmp_path}/model' in error
    assert not (tmp_path / 'out').exists()


def test_stderr_may_be_closed(model, photos, tmp_path):
    command = [
        *(sys.executable, '-m', 'cyclegan_jax.translate', f'--model={model}'),
        *(f'--input={photos}', f'--output={tmp_path / "out"}'),
    ]
    done = subprocess.run(
        ['sh', '-c', 'exec "$@" 2>&-', 'sh', *command],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.partition(' pictures')[0]) == (0, 'Wrote 5 of 5')
