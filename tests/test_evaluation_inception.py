"""The FID network: its values, and that files which are not its weights are refused."""

import pickle
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from inception_state import blocks, random_state_dict
from oracles import oracle

from cyclegan_jax.evaluation import inception, inception_weights
from cyclegan_jax.interop.files import write_safetensors

FIXTURE = Path(__file__).parent / 'fixtures' / 'inception_features.npy'


@pytest.fixture(scope='module')
def state():
    return random_state_dict()


@pytest.fixture(scope='module')
def images():
    return np.stack([inception.prepare(image, 'pytorch') for image in blocks(2, 64, 96)])


def relative_error(x: np.ndarray, y: np.ndarray) -> float:
    return np.abs(x - y).max() / np.abs(y).max()


def features(params, images) -> np.ndarray:
    # A new function each time, so that a patched module is compiled again.
    return np.asarray(jax.jit(lambda *args: inception.features(*args))(params, images))


def test_features_are_those_of_pytorch_fid(state, images):
    """The fixture is what pytorch-fid 0.3.0 computes from the same weights and images.

    To make it anew: run the next test with pytorch-fid installed, and save its `theirs`.
    """
    ours = features(inception_weights.fold(state), images)
    assert relative_error(ours, np.load(FIXTURE)) < 1e-5


@pytest.mark.slow
def test_agrees_with_the_module_of_pytorch_fid(state, monkeypatch):
    theirs = oracle('pytorch_fid.inception')
    import torch

    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    monkeypatch.setattr(theirs, 'load_state_dict_from_url', lambda *_, **__: tensors)
    network = theirs.InceptionV3().eval()
    params = inception_weights.fold(state)
    for height, width in ((64, 96), (32, 32), (299, 299)):
        raw = blocks(2, height, width)
        with torch.no_grad():
            [expected] = network(torch.from_numpy(raw).permute(0, 3, 1, 2) / 255.0)
        prepared = np.stack([inception.prepare(image, 'pytorch') for image in raw])
        assert relative_error(features(params, prepared), expected.numpy()[..., 0, 0]) < 1e-5


def padding_counted(monkeypatch):
    def average_pool(x):
        window = (1, 3, 3, 1), (1, 1, 1, 1), 'SAME'
        return jax.lax.reduce_window(x, 0.0, jax.lax.add, *window) / 9

    monkeypatch.setattr(inception, '_average_pool', average_pool)


def average_in_last_block(monkeypatch):
    max_pool, average_pool = inception._max_pool, inception._average_pool
    monkeypatch.setattr(
        inception, '_max_pool', lambda x, *a: average_pool(x) if a[0] == 1 else max_pool(x, *a)
    )


def torchvision_epsilon(monkeypatch):
    monkeypatch.setattr(inception_weights, '_BATCH_NORM_EPS', 1e-5)


def bfloat16(monkeypatch):
    convolve = inception.convolve
    low = lambda x: x.astype(jax.numpy.bfloat16)
    monkeypatch.setattr(
        inception, 'convolve', lambda x, kernel, *a: convolve(low(x), low(kernel), *a) * 1.0
    )


@pytest.mark.parametrize(
    'mistake', [padding_counted, average_in_last_block, torchvision_epsilon, bfloat16]
)
def test_the_fixture_sees_each_usual_mistake(mistake, state, images, monkeypatch):
    mistake(monkeypatch)
    ours = features(inception_weights.fold(state), images[:1])
    assert relative_error(ours, np.load(FIXTURE)[:1]) > 1e-3


def test_a_state_dict_may_come_from_data_parallel(state):
    prefixed = {f'module.{name}': array for name, array in state.items()}
    plain, ours = inception_weights.fold(state), inception_weights.fold(prefixed)
    assert all(np.array_equal(plain[unit][0], ours[unit][0]) for unit in plain)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'Mixed_7c.branch1x1.conv.weight': None}, 'missing: Mixed_7c.branch1x1.conv.weight'),
        ({'AuxLogits.fc.weight': np.zeros(3)}, 'unknown: AuxLogits.fc.weight'),
        (
            {'Conv2d_1a_3x3.bn.bias': np.zeros(31)},
            r'of another shape: Conv2d_1a_3x3.bn.bias \(31,\) instead of \(32,\)',
        ),
    ],
)
def test_another_layout_is_refused_with_a_list(change, message, state):
    changed = {k: v for k, v in (state | change).items() if v is not None}
    with pytest.raises(inception_weights.WeightsError, match=message):
        inception_weights.fold(changed)


def refused(path) -> str:
    with pytest.raises(inception_weights.WeightsError) as error:
        inception_weights.load(path)
    assert '\n' not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    'content', [b'', b'<html>404</html>', b'PK\x03\x04 truncated'], ids=['empty', 'html', 'cut']
)
def test_a_file_that_is_not_the_weights_is_refused(content, tmp_path):
    """With the sizes and sums that were found and wanted."""
    path = tmp_path / inception_weights.FILE
    path.write_bytes(content)
    message = refused(path)
    assert f'has {len(content)} bytes (not about 96 MB)' in message
    assert 'wanted 6726825d' in message


def test_a_file_of_the_right_size_is_not_told_to_be_of_another(tmp_path):
    path = tmp_path / inception_weights.FILE
    with path.open('wb') as file:
        file.truncate(95_628_359)
    message = refused(path)
    assert 'has the right size, but a sha256' in message
    assert 'bytes' not in message


def test_a_file_that_is_not_there_is_named(tmp_path):
    assert 'nothing.pth is not a file' in refused(tmp_path / 'nothing.pth')


def test_a_pickle_that_runs_code_is_not_run(tmp_path, monkeypatch):
    """Not even if its sum were right."""
    pytest.importorskip('torch')
    trace = tmp_path / 'trace'
    path = tmp_path / 'evil.pth'
    path.write_bytes(pickle.dumps(Evil(trace), protocol=2))
    refused(path)
    monkeypatch.setattr(inception_weights, 'SHA256_PREFIX', '')
    refused(path)
    assert not trace.exists()


class Evil:
    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return Path.touch, (self._path,)


def test_converted_weights_are_the_same_and_need_no_torch(state, tmp_path, monkeypatch):
    torch = pytest.importorskip('torch')
    monkeypatch.setattr(inception_weights, 'SHA256_PREFIX', '')  # random ones have any sum
    source, target = tmp_path / 'weights.pth', tmp_path / 'weights.safetensors'
    torch.save({name: torch.from_numpy(np.asarray(a)) for name, a in state.items()}, source)
    inception_weights.convert(source, target)
    original, sha256 = inception_weights.load(source)
    monkeypatch.setitem(sys.modules, 'torch', None)
    converted, of_source = inception_weights.load(target)
    assert of_source == sha256
    for unit, arrays in original.items():
        assert all(map(np.array_equal, arrays, converted[unit]))


def test_weights_converted_from_another_file_are_refused(tmp_path):
    path = tmp_path / 'other.safetensors'
    write_safetensors(path, {'x': np.zeros(1)}, {'source_sha256': 'abcdef0123456'})
    assert 'starts with abcdef01, wanted 6726825d' in refused(path)
