import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclegan_jax.data import synthetic
from cyclegan_jax.data.images import ImageError
from cyclegan_jax.data.sources import Folder, MissingSplit, open_source
from cyclegan_jax.data.sources.folder import find_duplicates
from cyclegan_jax.data.sources.huggingface import HuggingFace
from cyclegan_jax.data.sources.synthetic import Synthetic
from cyclegan_jax.data.sources.tfds import Tfds
from cyclegan_jax.errors import UserError
from cyclegan_jax.pixels import Pixels

BANDS = Pixels(channels=5, dtype='uint16', high=(65535.0,))
DEEP = Pixels(channels=1, dtype='uint16', high=(65535.0,))
FLOATS = Pixels(channels=1, dtype='float32', low=(-1000.0,), high=(2000.0,))


def write_image(path, value=0, size=(6, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


def png(value, size=(6, 8)):
    buffer = io.BytesIO()
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(buffer, 'PNG')
    return buffer.getvalue()


def values(source):
    """The grey value of every image of a source."""
    return [source[i].mean() for i in range(len(source))]


def test_synthetic_test_images_are_pairs_and_training_images_are_not():
    def source(domain, split):
        return Synthetic('stripes', domain, split == 'test', (32, 48), 3)

    _, b, labels = synthetic.render('stripes', 2 * 10**6 + 5, (32, 48))
    np.testing.assert_array_equal(source('b', 'test')[5], b)
    np.testing.assert_array_equal(source('a', 'test').labels(5), labels)
    sky = np.s_[0, :, :]  # where a and b of one scene are equal
    a, b = source('a', 'train'), source('b', 'train')
    assert not any((a[i][sky] == b[i][sky]).all() for i in range(8))
    assert (len(a), len(source('a', 'test'))) == (512, 64)
    assert a.size(0) == a[0].shape[:2] == (32, 48)
    assert a.fingerprint() != b.fingerprint()
    assert Synthetic('labels', 'a', False, (8, 8), 1)[0].shape == (8, 8, 1)
    with pytest.raises(ValueError, match=r"data\.name is 'zebra'; choose one of .*stripes"):
        Synthetic('zebra', 'a', False, (8, 8), 3)


def test_folder_lists_images_sorted_and_recursively(tmp_path):
    names = ['b.png', 'a.PNG', 'sub/c.jpeg', 'sub/deep/d.TIF', 'ünï "q".webp', 'new\nline.bmp']
    for name in names:
        write_image(tmp_path / 'trainA' / name)
    for name in ('notes.txt', '.hidden.png', '._a.png', 'Thumbs.db', '.git/e.png'):
        path = tmp_path / 'trainA' / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b'x')
    os.mkfifo(tmp_path / 'trainA' / 'pipe.png')
    folder = Folder(str(tmp_path), 'trainA', 3)
    found = [os.path.relpath(folder.name(i), tmp_path / 'trainA') for i in range(len(folder))]
    assert found == sorted(names)
    assert folder[0].shape == (6, 8, 3)
    assert folder.size(0) == (6, 8)


def test_folder_tells_what_it_does_not_read(tmp_path, caplog):
    read = ('a.gif', 'b.JFIF', 'c.jpe', 'd.pgm')
    for name in (*read, 'e.heic', 'f.HEIC', 'g.txt', '.hidden', 'noname'):
        (tmp_path / name).write_bytes(b'x')
    with caplog.at_level('WARNING'):
        folder = Folder(str(tmp_path), '', 3)
    assert [Path(folder.name(i)).name for i in range(len(folder))] == sorted(read)
    assert len(caplog.records) == 1
    assert '4 files are not read' in caplog.text
    assert '2 .heic, ' in caplog.text and '1 .txt' in caplog.text
    assert '1 without a suffix' in caplog.text


def test_folder_follows_links_but_never_in_circles(tmp_path):
    write_image(tmp_path / 'elsewhere' / 'far.png')
    write_image(tmp_path / 'trainA' / 'near.png')
    (tmp_path / 'trainA' / 'link').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'trainA' / 'circle').symlink_to(tmp_path / 'trainA')
    (tmp_path / 'elsewhere' / 'back').symlink_to(tmp_path / 'trainA')
    (tmp_path / 'trainA' / 'z_broken.png').symlink_to(tmp_path / 'nowhere')
    folder = Folder(str(tmp_path), 'trainA', 3)
    assert [Path(folder.name(i)).name for i in range(len(folder))] == [
        'far.png',
        'near.png',
        'z_broken.png',
    ]
    with pytest.raises(ImageError, match=r'z_broken\.png: No such file'):
        folder.size(2)


def test_two_arbitrary_folders(tmp_path):
    write_image(tmp_path / 'horses' / '1.png', 10)
    write_image(tmp_path / 'other' / 'zebras' / '1.png', 20)
    assert values(Folder(str(tmp_path / 'horses'), '.', 3)) == [10]
    assert values(Folder(str(tmp_path / 'horses'), '../other/zebras', 3)) == [20]
    assert values(Folder('', str(tmp_path / 'horses'), 3)) == [10]


def test_a_folder_that_is_missing_or_empty_says_what_is_there(tmp_path):
    write_image(tmp_path / 'A_train' / '1.png')
    (tmp_path / 'testA').mkdir()
    (tmp_path / 'testA' / 'list.txt').write_text('1.png')
    with pytest.raises(MissingSplit, match=r'no folder .*trainA .*trainB.*found: A_train, testA'):
        Folder(str(tmp_path), 'trainA', 3)
    with pytest.raises(MissingSplit, match=r'nowhere.* is not a folder'):
        Folder(str(tmp_path / 'nowhere'), 'trainA', 3)
    with pytest.raises(ValueError, match=r'no images in .*testA \(found: list\.txt.*\.jpg'):
        Folder(str(tmp_path), 'testA', 3)


def test_folder_fingerprint_depends_on_names_and_sizes_only(tmp_path):
    def fingerprint(path):
        return Folder(str(path), 'trainA', 3).fingerprint()

    for name in ('here', 'there'):
        write_image(tmp_path / name / 'trainA' / '1.png')
    first = fingerprint(tmp_path / 'here')
    assert first == fingerprint(tmp_path / 'there')
    write_image(tmp_path / 'here' / 'trainA' / '2.png')
    added = fingerprint(tmp_path / 'here')
    (tmp_path / 'there' / 'trainA' / '1.png').write_bytes(b'shorter')
    resized = fingerprint(tmp_path / 'there')
    (tmp_path / 'here' / 'trainA' / '2.png').unlink()
    assert fingerprint(tmp_path / 'here') == first
    assert len({first, added, resized}) == 3


def test_equal_files_of_different_folders_are_found(tmp_path):
    write_image(tmp_path / 'trainA' / 'x.bmp', 1)  # uncompressed: all are equally long
    write_image(tmp_path / 'trainA' / 'copy.bmp', 1)  # within one folder: the user's business
    write_image(tmp_path / 'trainB' / 'y.bmp', 2)
    write_image(tmp_path / 'testB' / 'z.bmp', 2)
    (tmp_path / 'testB' / 'empty.png').touch()
    (tmp_path / 'trainB' / 'empty.png').touch()
    folders = [Folder(str(tmp_path), split, 3) for split in ('trainA', 'trainB', 'testB')]
    pairs = [tuple(Path(path).name for path in pair) for pair in find_duplicates(folders)]
    assert pairs == [('y.bmp', 'z.bmp')]


def test_where_photographs_alone_are_read_arrays_are_not_asked_for(tmp_path):
    """As of folders that are scored by themselves: what the values mean is not known."""
    np.save(tmp_path / 'x.npy', np.zeros((4, 4, 5)))
    with pytest.raises(UserError, match=r'found: x\.npy; wanted: .*\.png') as raised:
        Folder(str(tmp_path), '.', 3)
    assert '.npy' not in str(raised.value).partition('wanted')[2]


@pytest.fixture(scope='module')
def tfds_dir(tmp_path_factory):
    """A small builder with the features and splits of cycle_gan."""
    import tensorflow_datasets as tfds

    root = tmp_path_factory.mktemp('tfds')
    photos = {'trainA': range(5), 'trainB': range(100, 103)}
    write_tfds(
        root,
        tfds.features.Image(),
        **{
            split: [io.BytesIO(png(i, (6, 8 + i % 3))) for i in numbers]
            for split, numbers in photos.items()
        },
        testA=[],
        testB=[io.BytesIO(b'<html>')],
    )
    return str(root)


def write_tfds(root, feature, **splits):
    """Prepares cycle_gan/tiny without TensorFlow."""
    import tensorflow_datasets as tfds

    label = tfds.features.ClassLabel(names=['A', 'B'])
    features = tfds.features.FeaturesDict({'image': feature, 'label': label})
    folder = root / 'cycle_gan' / 'tiny' / '3.0.0'
    folder.mkdir(parents=True)
    identity = tfds.core.DatasetIdentity(
        name='cycle_gan',
        config_name='tiny',
        version=tfds.core.Version('3.0.0'),
        data_dir=str(folder),
        module_name='',
    )
    writer = tfds.core.SequentialWriter(
        tfds.core.DatasetInfo(builder=identity, features=features),
        max_examples_per_shard=3,
        file_format='array_record',
    )
    writer.initialize_splits(list(splits))
    for split, images in splits.items():
        if images:
            writer.add_examples({split: [{'image': image, 'label': 0} for image in images]})
    writer.close_all()


def test_tfds_reads_a_prepared_builder(tfds_dir):
    source = Tfds('cycle_gan/tiny', 'trainA', tfds_dir, 3)
    assert values(source) == [0, 1, 2, 3, 4]
    assert source.size(2) == source[2].shape[:2] == (6, 10)
    assert source.name(2) == 'cycle_gan/tiny/3.0.0[trainA][2]'
    assert values(Tfds('cycle_gan/tiny', 'trainB[1:]', tfds_dir, 1)) == [101, 102]
    both = Tfds('cycle_gan/tiny', 'trainA[:2]+trainB[:1]', tfds_dir, 1)
    assert values(both) == [0, 1, 100]
    assert len(Tfds('cycle_gan/tiny', 'trainA+trainB', tfds_dir, 1)) == 8
    assert both.fingerprint() != Tfds('cycle_gan/tiny', 'trainA[:3]', tfds_dir, 1).fingerprint()
    other = Tfds('cycle_gan/tiny', 'trainB', tfds_dir, 3)
    assert source.fingerprint() == Tfds('cycle_gan/tiny', 'trainA', tfds_dir, 3).fingerprint()
    assert source.fingerprint() != other.fingerprint()
    with pytest.raises(ImageError, match=r'\[testB\]\[0\]: not an image'):
        Tfds('cycle_gan/tiny', 'testB', tfds_dir, 3)[0]


@pytest.mark.parametrize('kind', ['tensor', 'float image'])
def test_tfds_features_of_other_types_keep_their_values(kind, tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    if kind == 'tensor':
        feature = tfds.features.Tensor(shape=(6, 8, 5), dtype=np.uint16)
        stored = given = bands(3)
        pixels = BANDS
    else:  # kept as a PNG of its bytes
        feature = tfds.features.Image(shape=(6, 8, 1), dtype=np.float32)
        given = np.linspace(-1000, 2000, 48, dtype=np.float32).reshape(6, 8, 1)
        stored, pixels = io.BytesIO(), FLOATS
        Image.fromarray(given.view(np.uint8)).save(stored, 'PNG')
        stored = stored.getvalue()
        # TFDS itself needs TensorFlow to write them, not to read them.
        monkeypatch.setattr(tfds.features.Image, 'encode_example', lambda _, encoded: encoded)
    write_tfds(tmp_path, feature, trainA=[stored])
    fields = {'name': 'cycle_gan/tiny', 'split': 'trainA', 'path': str(tmp_path)}
    source = open_source('tfds', **fields, channels=pixels.channels, pixels=pixels)
    assert source.size(0) == (6, 8) and source[0].dtype == given.dtype
    np.testing.assert_array_equal(source[0], given)


def test_tfds_errors_are_one_line_that_helps(tfds_dir, tmp_path):
    for name, split, path, message, error in (
        ('cycle_gan/tiny', 'train', tfds_dir, "no split 'train' .*trainA", MissingSplit),
        ('cycle_gan/tiny', 'testA', tfds_dir, "no split 'testA' with images", MissingSplit),
        ('cycle_gan/tiny', 'trainA+test', tfds_dir, "no split 'trainA.test'", MissingSplit),
        ('cycle_gan/tiny', 'trainA[:x]', tfds_dir, r"split 'trainA\[:x\]' of", UserError),
        (
            'cycle_gan/horse2zebra',
            'trainA',
            str(tmp_path),
            'not prepared.*tfds build cycle_gan/horse2zebra --file_format=array_record',
            ValueError,
        ),
        ('cycle_gan/zebra2horse', 'trainA', str(tmp_path), 'zebra2horse', ValueError),
        ('no_such_set', 'trainA', str(tmp_path), 'not a TFDS builder', ValueError),
        ('', 'trainA', tfds_dir, r'data\.name', ValueError),
    ):
        with pytest.raises(error, match=message) as caught:
            Tfds(name, split, path, 3)
        assert '\n' not in str(caught.value)


def test_reading_tfds_imports_no_tensorflow(tfds_dir):
    code = (
        'import sys; from cyclegan_jax.data.sources.tfds import Tfds\n'
        f'print(Tfds("cycle_gan/tiny", "trainA", {tfds_dir!r}, 3)[3].mean())\n'
        'print([name for name in sys.modules if name in ("tensorflow", "torch")])'
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.stdout.split() == ['3.0', '[]'], result.stderr


@pytest.fixture(scope='module')
def huggingface_dir(tmp_path_factory):
    datasets = pytest.importorskip('datasets')
    root = tmp_path_factory.mktemp('huggingface')

    def cells(*numbers):
        return [None if n is None else {'bytes': png(n), 'path': f'{n}.png'} for n in numbers]

    def table(**columns):
        features = {name: datasets.Image() for name in columns} | {'text': datasets.Value('string')}
        columns['text'] = ['x'] * len(next(iter(columns.values())))
        return datasets.Dataset.from_dict(columns, datasets.Features(features))

    pairs = table(imageA=cells(1, 2, 3, 4), imageB=cells(11, None, 13, None))
    pairs.save_to_disk(root / 'pairs')
    empty = table(imageA=cells(None), imageB=cells(5))
    datasets.DatasetDict(train=pairs, test=empty).save_to_disk(root / 'splits')
    table(image=cells(7, 8)).save_to_disk(root / 'single')
    return root


def test_huggingface_columns_may_hold_different_numbers_of_images(huggingface_dir):
    pairs = str(huggingface_dir / 'pairs')
    a, b = HuggingFace(pairs, 'train', 'imageA', 3), HuggingFace(pairs, 'train', 'imageB', 3)
    assert (values(a), values(b)) == ([1, 2, 3, 4], [11, 13])
    assert a.size(0) == a[0].shape[:2] == (6, 8)
    assert b.name(1).endswith('pairs[train][imageB][2]')
    assert values(HuggingFace(str(huggingface_dir / 'single'), 'train', 'image', 1)) == [7, 8]
    assert values(HuggingFace(str(huggingface_dir / 'splits'), 'test', 'imageB', 3)) == [5]
    assert a.fingerprint() == HuggingFace(pairs, 'train', 'imageA', 3).fingerprint()
    assert a.fingerprint() != b.fingerprint()


def bands(number):
    """5 channels of 16 bits, with values that 8 bits do not have."""
    image = np.full((6, 8, 5), 1000 + number, np.uint16)
    return image + np.arange(5, dtype=np.uint16)


@pytest.mark.parametrize('first', [True, False])
def test_huggingface_columns_of_arrays_keep_their_values(first, tmp_path):
    datasets = pytest.importorskip('datasets')
    images = [bands(n).transpose(2, 0, 1) if first else bands(n) for n in range(3)]
    feature = datasets.Array3D(images[0].shape, 'uint16')
    table = {'imageA': [images[0], None, images[2]]}
    features = datasets.Features(imageA=feature)
    datasets.Dataset.from_dict(table, features).save_to_disk(tmp_path / 'bands')
    fields = {'name': str(tmp_path / 'bands'), 'split': 'train', 'column': 'imageA'}
    source = open_source('huggingface', **fields, channels=5, pixels=BANDS)
    assert len(source) == 2 and source.size(1) == (6, 8)
    np.testing.assert_array_equal(source[1], bands(2))
    assert source[1].dtype == np.uint16
    again = open_source('huggingface', **fields, channels=5, pixels=BANDS)
    assert source.fingerprint() == again.fingerprint()


def test_huggingface_images_of_16_bits_keep_their_values(tmp_path):
    datasets = pytest.importorskip('datasets')
    deep = np.arange(48, dtype=np.uint16).reshape(6, 8) + 1000
    buffer = io.BytesIO()
    Image.fromarray(deep).save(buffer, 'PNG')
    features = datasets.Features(imageA=datasets.Image())
    cells = {'imageA': [{'bytes': buffer.getvalue(), 'path': None}]}
    datasets.Dataset.from_dict(cells, features).save_to_disk(tmp_path / 'deep')
    fields = {'name': str(tmp_path / 'deep'), 'split': 'train', 'column': 'imageA'}
    source = open_source('huggingface', **fields, channels=1, pixels=DEEP)
    np.testing.assert_array_equal(source[0][..., 0], deep)


def test_arrays_of_bytes_are_photographs_too(tmp_path):
    datasets = pytest.importorskip('datasets')
    photo = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    features = datasets.Features(imageA=datasets.Array3D((6, 8, 3), 'uint8'))
    datasets.Dataset.from_dict({'imageA': [photo]}, features).save_to_disk(tmp_path / 'x')
    source = open_source(
        'huggingface', name=str(tmp_path / 'x'), split='train', column='imageA', channels=3
    )
    np.testing.assert_array_equal(source[0], photo)


def test_huggingface_images_go_through_our_decoder(tmp_path):
    """Their own decoder would show 16 bits as white, and stop at a bad cell without its number."""
    datasets = pytest.importorskip('datasets')
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), 100 * 257, np.uint16)).save(buffer, 'PNG')
    cells = [{'bytes': buffer.getvalue(), 'path': None}, {'bytes': b'<html>', 'path': None}]
    features = datasets.Features(imageA=datasets.Image())
    datasets.Dataset.from_dict({'imageA': cells}, features).save_to_disk(tmp_path / 'deep')
    source = HuggingFace(str(tmp_path / 'deep'), 'train', 'imageA', 3)
    assert (source[0] == 100).all()
    with pytest.raises(ImageError, match=r'\[1\]: not an image'):
        source[1]


def write_parquet(folder, monkeypatch, *cells):
    """A data set of one column, written as by anybody who knows the format."""
    datasets, pyarrow = pytest.importorskip('datasets'), pytest.importorskip('pyarrow')
    monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE', folder.parent / 'cache')
    schema = datasets.Features(imageA=datasets.Image()).arrow_schema
    rows = [{'imageA': {'bytes': data, 'path': path}} for data, path in cells]
    folder.mkdir(exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), folder / 'train.parquet')
    return HuggingFace(str(folder), 'train', 'imageA', 3)


def test_huggingface_rows_may_name_no_file_of_this_machine(tmp_path, monkeypatch):
    """Whoever wrote the table chose the paths in it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / 'set'
    for path, value in ((tmp_path / 'private', 9), (folder / 'own', 7)):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(value))
    (folder / 'link').symlink_to(tmp_path / 'private')
    paths = folder / 'own', tmp_path / 'private', folder / '../private', folder / 'link', 'private'
    source = write_parquet(folder, monkeypatch, *((None, str(path)) for path in paths))
    assert (source[0] == 7).all()
    for index in range(1, len(paths)):
        with pytest.raises(ImageError, match=rf'\[{index}\]: it names the file .*private, which'):
            source.size(index)


def test_huggingface_cells_without_bytes_say_so(tmp_path, monkeypatch):
    source = write_parquet(tmp_path / 'set', monkeypatch, (b'', '1.png'), (None, ''))
    for index, reason in enumerate(('empty file', 'neither bytes nor the path of a file')):
        with pytest.raises(ImageError, match=rf'\[{index}\]: .*{reason}'):
            source[index]


def test_huggingface_errors_are_one_line_that_helps(huggingface_dir, monkeypatch):
    import datasets

    def offline(name):
        raise ConnectionError(f"Couldn't reach '{name}'\non the Hub")

    monkeypatch.setattr(datasets, 'load_dataset', offline)
    splits = str(huggingface_dir / 'splits')
    for name, split, column, message, error in (
        (splits, 'trainA', 'imageA', r"no split 'trainA', only \['train', 'test'\]", MissingSplit),
        (
            splits,
            'train',
            'image',
            r"no column of images or arrays 'image', only \['imageA', 'imageB'\]",
            None,
        ),
        (splits, 'train', 'text', "no column of images or arrays 'text'", None),
        (splits, 'test', 'imageA', "column 'imageA' has no images", None),
        ('huggan/facades', 'train', 'imageA', "Couldn't reach 'huggan/facades' on the Hub", None),
        ('', 'train', 'imageA', r'data\.name', None),
    ):
        with pytest.raises(error or ValueError, match=message) as caught:
            HuggingFace(name, split, column, 3)
        assert '\n' not in str(caught.value)
    monkeypatch.setitem(sys.modules, 'datasets', None)
    with pytest.raises(ValueError, match='pip install datasets'):
        HuggingFace(splits, 'train', 'imageA', 3)
