"""Pictures that are not photographs: nothing is rounded to 8 bits on any way."""

import io

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from small_run import TINY
from translate_fixtures import random_network

from configs import synthetic
from cyclegan_jax import data, hosts, losses, program, train, translate, visuals
from cyclegan_jax.data import arrays
from cyclegan_jax.errors import UserError
from cyclegan_jax.evaluation import evaluate_run
from cyclegan_jax.export import main as main_export
from cyclegan_jax.inference import Translator, files, value_files
from cyclegan_jax.log import read_metrics
from cyclegan_jax.pixels import PHOTOGRAPHS, Pixels, from_json, make_pixels


def write(root, name, array):
    for split in ('trainA', 'trainB'):
        (root / split).mkdir(exist_ok=True)
        np.save(root / split / f'{name}.npy', array)


def load(root, **fields):
    sizes = {'resize': 'none', 'seed': 0, 'batch_size': 1, 'flip': False}
    return data.load(path=str(root), **sizes | fields)


@pytest.mark.parametrize('xp', [np, jnp])
def test_every_16_bit_value_survives_the_way_to_the_network_and_back(xp):
    pixels = make_pixels('a', channels=1, dtype='uint16')
    every = xp.arange(65536, dtype='uint16').reshape(1, 256, 256, 1)
    floats = pixels.to_float(every)
    assert (floats.min(), floats.max()) == (-1, 1) and floats.dtype == np.float32
    np.testing.assert_array_equal(pixels.to_stored(floats), every)


def test_each_channel_may_have_its_own_range():
    pixels = make_pixels('a', channels=2, dtype='float32', ends=((-1000, 2000), (0, 1)))
    image = np.array([[[-1000, 1], [500, 0.5]]], np.float32)
    np.testing.assert_allclose(pixels.to_float(image), [[[-1, 1], [0, 0]]])
    np.testing.assert_allclose(pixels.to_stored(pixels.to_float(image)), image)
    assert from_json(pixels.to_json(), 'x') == pixels


def test_values_1_of_65535_apart_reach_the_batch(tmp_path):
    image = np.arange(8 * 8 * 5, dtype=np.uint16).reshape(8, 8, 5) + 30000
    write(tmp_path, '0', image)
    fields = {'channels_a': 5, 'dtype_a': 'uint16', 'channels_b': 5, 'dtype_b': 'uint16'}
    dataset = load(tmp_path, **fields)
    batch = next(dataset.batches())
    assert batch['a'].dtype == np.uint16
    np.testing.assert_array_equal(batch['a'][0], image)


def test_a_range_is_measured_once(tmp_path):
    write(tmp_path, '0', np.linspace(-3, 5, 64, dtype=np.float32).reshape(8, 8))
    fields = {
        f'{name}_{d}': v for d in 'ab' for name, v in {'channels': 1, 'dtype': 'float32'}.items()
    }
    dataset = load(tmp_path, range='minmax', **fields)
    assert (dataset.pixels['a'].low, dataset.pixels['a'].high) == ((-3,), (5,))
    write(tmp_path, '1', np.full((8, 8), 9, np.float32))
    resumed = load(tmp_path, range='minmax', measured=dataset.pixels, **fields)
    assert resumed.pixels == dataset.pixels
    assert max(image.max() for image in resumed.test()['a']) == 5, 'clipped'


@pytest.mark.parametrize(
    ('value', 'fields', 'said'),
    [
        (np.nan, {}, '1 of 64 values are NaN or infinite; --config.data.not_finite=low'),
        (7.0, {'outside': 'refuse'}, '--config.data.outside=clip'),
    ],
)
def test_values_that_are_refused_name_the_file(tmp_path, value, fields, said):
    image = np.zeros((8, 8), np.float32)
    image[0, 0] = value
    write(tmp_path, 'bad', image)
    both = {'channels_a': 1, 'dtype_a': 'float32', 'range_a': (-1, 1)}
    both |= {'channels_b': 1, 'dtype_b': 'float32', 'range_b': (-1, 1)}
    with pytest.raises(UserError, match=r'bad\.npy') as error:
        load(tmp_path, **both | fields)
    assert said in str(error.value)
    kept = load(tmp_path, **both, not_finite='low').test()['a']
    assert kept.min() >= -1 and kept.max() <= 1


def test_slices_are_pictures_each(tmp_path):
    volume = np.arange(3 * 8 * 8, dtype=np.uint16).reshape(3, 8, 8)
    write(tmp_path, 'volume', volume)
    fields = {'channels_a': 1, 'dtype_a': 'uint16', 'channels_b': 1, 'dtype_b': 'uint16'}
    dataset = load(tmp_path, pages='pictures', **fields)
    assert dataset.lengths == {'a': 3, 'b': 3}
    np.testing.assert_array_equal(dataset.test()['a'][..., 0], volume)


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32', '>i2'])
def test_tiff_of_any_type_and_channels(dtype):
    tifffile = pytest.importorskip('tifffile')
    values = np.arange(4 * 6 * 5).reshape(4, 6, 5).astype(dtype)
    for stored in (values, np.moveaxis(values, 2, 0)):
        file = io.BytesIO()
        tifffile.imwrite(file, stored, photometric='minisblack')
        pixels = Pixels(channels=5, dtype='float32', low=(0,), high=(1,))
        found = arrays.read_stack(file.getvalue(), pixels, 'x')
        np.testing.assert_array_equal(found[0], values)
        assert arrays.stack_shape(file.getvalue(), pixels, 'x') == (1, 4, 6)


@pytest.mark.parametrize(
    'how',
    [
        {'bigtiff': True},
        *({'compression': name} for name in ('deflate', 'lzw', 'zstd', 'packbits')),
    ],
    ids=str,
)
def test_tiff_of_any_size_and_compression_with_slices(how):
    tifffile = pytest.importorskip('tifffile')
    values = np.random.default_rng(0).integers(0, 65535, (3, 8, 6)).astype(np.uint16)
    file = io.BytesIO()
    tifffile.imwrite(file, values, photometric='minisblack', **how)
    pixels = make_pixels('a', channels=1, dtype='uint16', pages='pictures')
    np.testing.assert_array_equal(arrays.read_stack(file.getvalue(), pixels, 'x')[..., 0], values)


def test_png_keeps_its_16_bits():
    imagecodecs = pytest.importorskip('imagecodecs')
    for channels in (1, 3):
        values = np.arange(4 * 6 * channels, dtype=np.uint16).reshape(4, 6, channels) + 30000
        png = imagecodecs.png_encode(values.squeeze())
        found = arrays.read_stack(png, make_pixels('a', channels=channels, dtype='uint16'), 'x')
        np.testing.assert_array_equal(found[0], values)


def test_nifti_slices():
    nibabel = pytest.importorskip('nibabel')
    values = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    pixels = make_pixels('a', channels=1, dtype='float32', ends=(0, 9), pages='pictures')
    found = arrays.read_stack(nibabel.Nifti1Image(values, np.eye(4)).to_bytes(), pixels, 'x')
    assert found.shape == (4, 3, 2, 1)
    np.testing.assert_array_equal(found[3, :, :, 0], values[:, :, 3].T)


@pytest.mark.parametrize(
    ('fields', 'said'),
    [
        ({'dtype': 'float32'}, 'data.dtype_a is float32, which has no range of its own'),
        ({'ends': (5, 2)}, 'low must be below high'),
        ({'ends': 'wide'}, r'data.range_a is .wide.; it must be \(low, high\)'),
        ({'channels': 2, 'bands': 'x'}, 'data.bands_a names 1 channels'),
        ({'show': 'red'}, "data.show_a names channel 'red'"),
        ({'show': '0,,1'}, "data.show_a names channel ''"),
        ({'dtype': 'int16'}, 'data.dtype_a is .int16.; choose one of'),
    ],
)
def test_mistakes_name_the_field(fields, said):
    with pytest.raises(UserError, match=said):
        make_pixels('a', **fields)


def test_samples_show_named_channels_in_a_window():
    fields = {'channels': 4, 'dtype': 'uint16', 'bands': 'x,red,green,blue', 'window': (0, 100)}
    pixels = make_pixels('a', show='red,green,blue', **fields)
    image = np.array([[[9999, 0, 50, 200]]], np.uint16)
    np.testing.assert_array_equal(visuals.shown(image, pixels), [[[0, 128, 255]]])
    heat = visuals.shown(image, make_pixels('a', show='red:heat', **fields))
    np.testing.assert_array_equal(heat, [[[0, 0, 0]]])
    assert visuals.shown(image, PHOTOGRAPHS) is image


def test_unlike_channels_have_no_identity_loss_and_the_log_says_so(caplog):
    config = synthetic.get_config()
    config.loss.update(identity_weight=5.0, identity_weight_end=1.0)
    with caplog.at_level('INFO', logger='absl'):
        assert program._loss(config, {'a': 5, 'b': 5}) == config.loss and not caplog.text
        loss = program._loss(config, {'a': 5, 'b': 1})
    assert 'No identity loss: domain a has 5 channels and b 1' in caplog.text
    assert losses.term_weights(loss)['identity'] == 0 and 'identity' not in losses.relaxing_terms(
        loss
    )


def test_hosts_compare_the_ranges_that_they_have_measured(tmp_path, monkeypatch):
    """Files that differ in values alone have the same names and sizes."""
    told = []

    def agree(facts, advice):
        told.append(facts)
        if 'the data set' in facts:
            raise UserError('they have told')

    monkeypatch.setattr(hosts, 'agree', agree)
    config = synthetic.get_config()
    config.update_from_flattened_dict(
        TINY
        | {'data.source': 'folder', 'data.path': str(tmp_path), 'data.resize': 'none'}
        | {f'data.channels_{d}': 1 for d in 'ab'}
        | {f'data.dtype_{d}': 'float32' for d in 'ab'}
        | {'data.range': 'minmax', 'num_devices': 1, 'evaluate_every': 0, 'keep_best': ''}
    )
    for highest in (1, 2):
        write(tmp_path, '0', np.linspace(0, highest, 256, dtype=np.float32).reshape(16, 16))
        assert train.main(config, tmp_path / f'run_{highest}') == 2
    one, two = (facts for facts in told if 'the data set' in facts)
    assert {name for name in one if one[name] != two[name]} == {
        'what domain a holds',
        'what domain b holds',
    }


@pytest.mark.slow
def test_a_run_from_five_channels_to_one_is_scored_exported_and_translates(tmp_path, capsys):
    """Of 16 bits and of floats, with truth: each by the range that the run has measured."""
    config = synthetic.get_config()
    config.update_from_flattened_dict(
        TINY
        | {'data.channels_a': 5, 'data.dtype_a': 'uint16', 'data.bands_a': 'r,y,g,c,b'}
        | {'data.channels_b': 1, 'data.dtype_b': 'float32', 'data.range': 'minmax'}
        | {'data.show_a': 'r,g,b', 'data.show_b': '0:heat', 'loss.identity_weight': 5.0}
        | {'batch_size': 8, 'max_steps': 2, 'evaluate_every': 2, 'sample_every': 2}
        | {'evaluate_metrics': 'paired,swd,randconv_kid_v1', 'keep_best': 'psnr_a2b'}
    )
    workdir = tmp_path / 'run'
    assert train.main(config, workdir) == 0, capsys.readouterr().err
    records = read_metrics(workdir)
    assert not any('generator/identity_a' in record for record in records)
    scored = next(r for r in records if 'evaluation/psnr/a2b' in r)
    assert scored['evaluation/l1_in_units/a2b'] > 0 and 'evaluation/swd/b2a' in scored
    assert not any('randconv' in name for name in scored), 'is of photographs'
    translator = Translator.from_pretrained(workdir)
    source, target = translator.pixels
    assert (source.dtype, target.dtype) == ('uint16', 'float32') and target.high[0] < 1
    image = np.full((16, 16, 5), 40000, np.uint16)
    output = translator(image)
    assert output.shape == (16, 16, 1) and output.dtype == np.float32
    assert target.low[0] <= output.min() and output.max() <= target.high[0]
    assert (
        main_export([f'--model={workdir}', f'--output={tmp_path / "out"}', '--format=safetensors'])
        == 0
    )
    assert 'is not said by' not in capsys.readouterr().err
    onward = [f'--model={tmp_path / "out"}', f'--output={tmp_path / "hlo"}', '--format=stablehlo']
    assert main_export(onward) == 0
    told = capsys.readouterr().err
    assert '5 channels of uint16' in told and 'is not said by --format=stablehlo' in told
    exported = Translator.from_pretrained(tmp_path / 'out')
    assert exported.pixels == translator.pixels
    np.testing.assert_array_equal(exported(image), output)
    (tmp_path / 'in').mkdir()
    np.save(tmp_path / 'in' / 'x.npy', image)
    call = [f'--model={workdir}', f'--input={tmp_path / "in"}', f'--output={tmp_path / "to"}']
    assert translate.main([*call]) == 0
    np.testing.assert_allclose(np.load(tmp_path / 'to' / 'x.npy'), output, atol=1e-6)
    with pytest.raises(UserError, match='not Pillow images'):
        translator(Image.new('RGB', (16, 16)))
    assert translate.main([*call, '--colour=model']) == 2
    assert '--colour=model is of photographs' in capsys.readouterr().err
    [found] = evaluate_run(workdir, metrics='paired')
    assert found['protocol']['identity_weight'] == 0  # though the config has 5
    assert found['a2b']['scores']['psnr'] == pytest.approx(scored['evaluation/psnr/a2b'], rel=1e-4)


def test_files_of_values_come_back_with_their_place_in_space(tmp_path):
    tifffile = pytest.importorskip('tifffile')
    ends = Pixels(channels=5, dtype='uint16', high=(65535,)), Pixels(dtype='float32', high=(9,))
    network = random_network((5, 3))._replace(pixels=ends)
    values = np.random.default_rng(0).integers(0, 65535, (24, 20, 5)).astype(np.uint16)
    scale = (10.0, 10.0, 0.0)
    tags = {'extratags': [(33550, 12, 3, scale, True)], 'resolution': (300, 300)}
    how = {'photometric': 'minisblack', 'planarconfig': 'contig'}
    tifffile.imwrite(tmp_path / 'x.tif', values, **how, **tags)
    translator = Translator(network)
    [job] = files.make_jobs(
        files.find_images(str(tmp_path / 'x.tif'), tmp_path / 'out'),
        tmp_path / 'out',
        pixels=ends[1],
    )
    assert files.translate_files(translator, [job]) == 0
    with tifffile.TiffFile(job.target) as tiff:
        assert tiff.pages.first.tags[33550].value == scale
        assert tiff.pages.first.tags[282].value == (300, 1)
        found = tiff.asarray()
    np.testing.assert_allclose(found, translator(values), atol=1e-5)
    assert value_files.is_ours(job.target)
    assert files.translate_files(translator, [job], tile=16, size=32) == 0
    with pytest.raises(UserError, match='choose --format=tif'):
        value_files.check_target(tmp_path / 'x.png', ends[1])


def test_slices_of_a_file_are_translated_into_one_in_their_order(tmp_path):
    tifffile = pytest.importorskip('tifffile')
    ends = (
        Pixels(channels=1, dtype='uint16', high=(65535,), pages='pictures'),
        Pixels(channels=1, dtype='float32', high=(9,)),
    )
    translator = Translator(random_network((1, 1))._replace(pixels=ends))
    slices = np.random.default_rng(0).integers(0, 65535, (3, 16, 12)).astype(np.uint16)
    tifffile.imwrite(tmp_path / 'x.tif', slices, photometric='minisblack')
    job = files.Job(tmp_path / 'x.tif', tmp_path / 'out' / 'x.tif')
    assert files.translate_files(translator, [job]) == 0
    found = tifffile.imread(job.target)
    wanted = np.stack([translator(each[..., None])[..., 0] for each in slices])
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize(('dtype', 'empty'), [('float32', np.nan), ('uint16', 0)])
def test_gaps_of_a_picture_are_gaps_of_its_translation(dtype, empty, tmp_path):
    gaps = np.zeros((16, 12), bool)
    gaps[3:5, 2] = True
    image = np.where(gaps, np.nan, 0.5).astype(np.float32)
    np.save(tmp_path / 'x.npy', image)
    source = Pixels(channels=1, dtype='float32', high=(1,), not_finite='low')
    target = Pixels(channels=1, dtype=dtype, low=(100,), high=(200,))
    translator = Translator(random_network((1, 1))._replace(pixels=(source, target)))
    job = files.Job(tmp_path / 'x.npy', tmp_path / 'out.npy')
    assert files.translate_files(translator, [job]) == 0
    found = np.load(job.target)[..., 0]
    np.testing.assert_array_equal(found[gaps], empty)
    assert (found[~gaps] >= 100).all()


def test_another_runtime_gives_the_same_values():
    pytest.importorskip('onnxruntime')
    ends = Pixels(channels=5, dtype='uint16', high=(65535,)), Pixels(dtype='float32', high=(9,))
    network = random_network((5, 3))._replace(pixels=ends)
    image = np.random.default_rng(0).integers(0, 65535, (24, 20, 5)).astype(np.uint16)
    found = Translator(network, runtime='onnxruntime')(image)
    np.testing.assert_allclose(found, Translator(network)(image), atol=1e-4)
    assert found.dtype == np.float32


def test_nifti_files_keep_their_affine_and_orientation(tmp_path):
    nibabel = pytest.importorskip('nibabel')
    values = np.random.default_rng(0).uniform(size=(3, 4, 2)).astype(np.float32)
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / 'x.nii.gz')
    pixels = make_pixels('a', channels=1, dtype='float32', ends=(0, 1), pages='pictures')
    source = value_files.read(tmp_path / 'x.nii.gz', pixels)
    value_files.write(source.images, source, tmp_path / 'y.nii.gz')
    written = nibabel.load(tmp_path / 'y.nii.gz')
    np.testing.assert_array_equal(written.affine, affine)
    np.testing.assert_array_equal(written.get_fdata(dtype=np.float32), values)
    assert value_files.is_ours(tmp_path / 'y.nii.gz')


def test_npz_and_dicom_are_read(tmp_path):
    pydicom = pytest.importorskip('pydicom')
    values = np.arange(20, dtype=np.uint16).reshape(4, 5)
    file = io.BytesIO()
    np.savez(file, values)
    pixels = make_pixels('a', channels=1, dtype='float32', ends=(-50, 50))
    np.testing.assert_array_equal(
        arrays.read_stack(file.getvalue(), pixels, 'x')[0, ..., 0], values
    )
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 4, 5, 1
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.PhotometricInterpretation = 'MONOCHROME2'
    dataset.RescaleSlope, dataset.RescaleIntercept = 2, -10
    dataset.PixelSpacing = [0.5, 0.25]
    dataset.PixelData = values.tobytes()
    dataset.save_as(tmp_path / 'x.dcm', enforce_file_format=True)
    found = arrays.read_stack(tmp_path / 'x.dcm', pixels, 'x')
    np.testing.assert_array_equal(found[0, ..., 0], 2.0 * values - 10)
    source = value_files.read(tmp_path / 'x.dcm', pixels)
    value_files.write(source.images, source, tmp_path / 'x.tif')
    with pytest.importorskip('tifffile').TiffFile(tmp_path / 'x.tif') as tiff:
        right_and_down = tiff.pages.first.get_resolution('MILLIMETER')
    assert right_and_down == (4, 2)
