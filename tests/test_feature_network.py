"""Scores by a feature network of the user's: here one whose features are the channels' means."""

import json

import numpy as np
import pytest
from evaluation_run import tiny_config, write_run
from inception_state import blocks
from onnx import TensorProto, helper, save
from PIL import Image

from cyclegan_jax import data, evaluate
from cyclegan_jax.errors import UserError
from cyclegan_jax.evaluation import distances, feature_network, report
from cyclegan_jax.evaluation.in_training import Scorer
from cyclegan_jax.evaluation.scores import METRICS, parse


def write_network(path, shape=('n', 3, 8, 8), outputs=1, **metadata):
    axes = list(range(2, len(shape))) if shape[1] == 3 else [1, 2]
    names = ['features', 'more'][:outputs]
    nodes = [helper.make_node('ReduceMean', ['x'], [n], axes=axes, keepdims=0) for n in names]
    graph = helper.make_graph(
        nodes,
        'means',
        [helper.make_tensor_value_info('x', TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ['n', 3]) for name in names],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    helper.set_model_props(model, metadata)
    save(model, path)
    return str(path)


@pytest.fixture
def network(tmp_path):
    return write_network(tmp_path / 'Means v1.onnx', mean='0.5', std='[0.5, 0.25, 0.5]')


def features_of(given, image):
    return feature_network.load(given)[0].features.prepare(image, 0, 1)


def test_pictures_are_resized_and_scaled_as_the_metadata_say(network):
    image = blocks(1, 24, 32)[0]
    resized = np.asarray(Image.fromarray(image).resize((8, 8), Image.Resampling.BICUBIC))
    expected = (resized.mean(axis=(0, 1)) / 255 - 0.5) / [0.5, 0.25, 0.5]
    np.testing.assert_allclose(features_of(network, image), expected, rtol=1e-5)


def test_what_is_given_goes_before_the_metadata(network):
    image = np.full((8, 8, 3), 255, np.uint8)
    np.testing.assert_allclose(features_of(f'{network}:mean=0:std=2', image), 0.5)
    assert feature_network.load(f'{network}:name=own')[1].name == 'kid_own'


def test_channels_may_come_last_and_the_size_be_open(tmp_path):
    path = write_network(tmp_path / 'x.onnx', ('n', 'h', 'w', 3), mean='0', std='1')
    image = blocks(1, 16, 16)[0]
    found = features_of(f'{path}:size=16x16', image)
    np.testing.assert_allclose(found, image.mean(axis=(0, 1)) / 255, rtol=1e-5)


def test_the_scores_are_the_distances_of_its_features(network, tmp_path, capsys):
    """Printed, written with the protocol, and known by their names to who reads the file."""
    images = blocks(12, 32, 32)
    for name, chosen in (('real', images[:6]), ('fake', images[6:] // 2)):
        (tmp_path / name).mkdir()
        for i, image in enumerate(chosen):
            Image.fromarray(image).save(tmp_path / name / f'{i}.png')
    folders = [f'--{name}={tmp_path / name}' for name in ('fake', 'real')]
    output = tmp_path / 'scores.json'
    kept = f'--save-real={tmp_path / "real.npz"}'
    command = [*folders, '--metrics=swd', f'--features={network}', f'--output={output}', kept]
    assert evaluate.main(command) == 0
    assert 'kid_means-v1 x1000' in capsys.readouterr().out
    written = json.loads(output.read_text())
    x, y = (
        np.stack([features_of(network, image) for image in chosen])
        for chosen in (images[6:] // 2, images[:6])
    )
    assert written['scores']['frechet_means-v1'] == pytest.approx(distances.frechet(x, y))
    assert written['scores']['kid_means-v1'] == pytest.approx(distances.kid(x, y))
    both = 'frechet_means-v1, kid_means-v1'
    assert len(written['protocol']['features_sha256'][both]) == 64
    assert 'std [0.5, 0.25, 0.5]' in written['protocol']['resize'][both]
    assert 'frechet_means-v1' in report.table('later', written)

    # Kept features serve the same network and preprocessing, and no other.
    command[1] = f'--real={tmp_path / "real.npz"}'
    assert evaluate.main(command[:-1]) == 0
    assert json.loads(output.read_text())['scores']['kid_means-v1'] == pytest.approx(
        written['scores']['kid_means-v1']
    )
    command[3] += ':mean=0.4'
    assert evaluate.main(command[:-1]) == 2
    assert 'kid_means-v1 (not in the file of --real)' in capsys.readouterr().err


def test_a_run_is_scored_by_it(network, tmp_path, capsys):
    write_run(tmp_path / 'run', (3,))
    command = [f'--workdir={tmp_path / "run"}', f'--features={network}', '--metrics=kid_means-v1']
    assert evaluate.main(command) == 0
    written = json.loads((tmp_path / 'run/evaluation/step_3.json').read_text())
    assert written['a2b']['scores'].keys() >= {'kid_means-v1'}
    assert 'floor' in written['a2b']['baselines']


def test_the_best_checkpoint_may_be_kept_by_it(network):
    dataset = data.load(**tiny_config().data, seed=0, batch_size=1)
    fields = {'best': None, 'name': 'labels'}
    found = Scorer(dataset, 'paired', 'kid_means-v1_b2a', **fields, features=network)
    scalars, _, best = found.score(lambda _, images: images // 2)
    assert best['value'] == scalars['evaluation/kid_means-v1/b2a']
    with pytest.raises(UserError, match='must be a score and a direction'):
        Scorer(dataset, 'paired', 'kid_means-v1_b2a', **fields)


def test_scores_are_named_after_the_network_and_never_as_others(network):
    others = feature_network.load(network)
    assert [m.name for m in parse('swd', others=others)] == ['swd', *(m.name for m in others)]
    assert [m.name for m in parse('kid_means-v1', others=others)] == ['kid_means-v1']
    assert not set(METRICS) & {m.name for m in others}
    for name in ('pytorch', 'a_b', ''):
        with pytest.raises(UserError, match='cannot be the name of a score'):
            feature_network.load(f'{network}:name={name}')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (':mean=0.5', 'does not say its std; give it, .*:std=...'),
        (':mean=0.5:std=0', 'std is .0.0.; it must be positive'),
        (':mean=1,2:std=1', "mean is '1,2'; wanted one number, or three"),
        (':mean=x:std=1', "mean is 'x', which cannot be read"),
        (':mean=0:std=1:size=9', "takes images of .8, 8., and size is '9'"),
        (':mean=0:std=1:resize=area', "resize of .* is 'area'; choose one of 'bicubic'"),
        (':men=0', "is 'men'; choose one of .*did you mean 'mean'"),
        (':mean=0:std=1:output=y', "'y' is asked for; name it"),
    ],
)
def test_what_is_not_known_is_asked_for_in_one_line(tmp_path, options, message):
    path = write_network(tmp_path / 'x.onnx')
    with pytest.raises(UserError, match=message):
        feature_network.load(path + options)


def test_a_file_that_is_no_feature_network_is_refused(tmp_path):
    (tmp_path / 'bad.onnx').write_bytes(b'no network')
    with pytest.raises(UserError, match='is not a whole ONNX file'):
        feature_network.load(str(tmp_path / 'bad.onnx'))
    with pytest.raises(UserError, match=r'2 are; name it: .*output=NAME'):
        feature_network.load(write_network(tmp_path / 'two.onnx', outputs=2))
    with pytest.raises(UserError, match='takes arrays of shape'):
        feature_network.load(write_network(tmp_path / 'flat.onnx', shape=('n', 3, 8)))
