"""Runtimes beside JAX: the same pictures, by the same options."""

import collections
import importlib.util
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import psutil
import pytest
from translate_fixtures import RESNET, picture, random_network

from cyclegan_jax import interop, translate
from cyclegan_jax.data import images
from cyclegan_jax.errors import UserError
from cyclegan_jax.inference import Translator, onnx_graph, runtimes

SPECS = {
    'resnet': RESNET,
    'nearest': interop.full_spec('generator', {'width': 4, 'num_blocks': 1, 'upsample': 'nearest'}),
    'unet': interop.full_spec('generator', {'kind': 'unet', 'width': 4, 'num_downs': 5}),
}
OTHERS = [name for name in runtimes.RUNTIMES if name != 'jax']


@pytest.fixture(scope='module', params=SPECS)
def network(request):
    return random_network(spec=SPECS[request.param])


@pytest.fixture(scope='module')
def translator(network):
    return Translator(network)


def needs(runtime):
    """Skips where it is not installed; not imported yet, as it is for `load` to say how."""
    if not (importlib.util.find_spec('onnx') and importlib.util.find_spec(runtime)):
        pytest.skip(f'onnx or {runtime} is not installed')


def other(runtime, network, **options):
    needs(runtime)
    return Translator(network, runtime=runtime, **options)


def levels(results, expected):
    """Differences of pictures, in levels; they are of one size and mode."""
    pairs = list(zip(results, expected, strict=True))
    assert all((one.size, one.mode) == (two.size, two.mode) for one, two in pairs)
    differences = [np.subtract(one, two, dtype=np.int32).ravel() for one, two in pairs]
    return np.abs(np.concatenate(differences))


@pytest.mark.parametrize('runtime', OTHERS)
def test_pictures_are_the_same_within_a_level(runtime, network, translator):
    given = [picture(mode, (32, 32), seed) for seed, mode in enumerate(['RGB', 'RGBA', 'L', 'RGB'])]
    given.append(picture('RGB', (45, 30)))
    options = {'batch_size': 2}
    found = other(runtime, network)
    assert levels(found(given, **options), translator(given, **options)).max() <= 1
    assert levels([found(given[0], size=16)], [translator(given[0], size=16)]).max() <= 1


@pytest.mark.parametrize('runtime', OTHERS)
def test_tiles_are_normalised_by_themselves_and_this_is_told(runtime, network, caplog):
    images._noted.clear()
    given = picture('RGB', (45, 30))
    found = other(runtime, network)
    assert found(given, tile=48).size == given.size and not caplog.records  # one tile
    assert found(given, tile=32).size == given.size
    assert 'colours may drift from tile to tile' in caplog.text


@pytest.mark.parametrize('runtime', OTHERS)
def test_arrays_are_the_same_but_for_rounding(runtime, network, translator):
    image = np.random.default_rng(0).uniform(-1, 1, (32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(other(runtime, network)(image), translator(image), atol=1e-4)


@pytest.mark.parametrize('runtime', ['jax', 'openvino'])
def test_bfloat16_is_within_its_bound(runtime, network, translator):
    """That of docs/translating.md."""
    given = [picture(size=(32, 32), seed=seed) for seed in range(4)]
    found = (
        other(runtime, network, dtype='bfloat16')
        if runtime != 'jax'
        else Translator(network, dtype='bfloat16')
    )
    difference = levels(found(given), translator(given))
    assert difference.mean() <= 1.5 and difference.max() <= 16
    if runtime == 'jax' or 'BF16' in _capabilities():
        assert difference.max() > 0


def _capabilities():
    return runtimes.openvino_core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')


SIGNAL = """
import os, signal
from translate_fixtures import random_network
from cyclegan_jax.inference import runtimes
def load():
    return runtimes.load('openvino', random_network(), 'a2b', 'float32')
loaded = [load() for _ in range(3)]
while loaded:
    del loaded[0]
signal.signal(signal.SIGINT, lambda *_: print('heard'))
os.kill(os.getpid(), signal.SIGINT)
"""


def test_a_signal_is_heard_after_generators_of_openvino_have_come_and_gone():
    needs('openvino')
    done = subprocess.run(
        [sys.executable, '-c', SIGNAL], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    assert (done.returncode, done.stdout) == (0, 'heard\n'), done.stderr


def test_onnxruntime_has_no_bfloat16():
    with pytest.raises(UserError, match='computes in float32, not in bfloat16; take --runtime=op'):
        other('onnxruntime', random_network(), dtype='bfloat16')


@pytest.mark.parametrize('runtime', OTHERS)
def test_what_is_not_finite_is_an_error(runtime):
    network = random_network()
    broken = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), network.params)
    translator = other(runtime, network._replace(params=broken), name='a2b of runs/x')
    with pytest.raises(UserError, match=r'^a2b of runs/x gives values that are not finite'):
        translator(picture())


def test_names_are_checked():
    with pytest.raises(
        UserError, match=r"runtime is 'onnx'; .* \(did you mean 'jax'|'onnxruntime'"
    ):
        Translator(random_network(), runtime='onnx')
    with pytest.raises(UserError, match="dtype is 'float16'; choose one of 'float32', 'bfloat16'"):
        Translator(random_network(), dtype='float16')


def test_a_kind_without_a_graph_is_told_what_to_do(monkeypatch):
    pytest.importorskip('onnx')
    monkeypatch.setattr(onnx_graph, '_WRITERS', {})
    with pytest.raises(UserError, match=r"^b2a of x is of kind 'resnet', .* --runtime=jax to tran"):
        Translator(random_network(), name='b2a of x', runtime='openvino')


@pytest.fixture
def command(tmp_path):
    interop.save_pretrained(tmp_path / 'model', {'a2b': random_network()})
    picture().save(tmp_path / 'given.png')

    def run(*flags):
        return translate.main(
            [
                f'--model={tmp_path}/model',
                f'--input={tmp_path}/given.png',
                f'--output={tmp_path}/out',
                *flags,
            ]
        )

    return run


def test_the_command_takes_all_runtimes(command, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(
        'cyclegan_jax.inference.files.Translator.from_pretrained',
        lambda *args, **how: made.append(how) or Translator(random_network()),
    )
    for runtime in runtimes.RUNTIMES:
        for dtype in runtimes.DTYPES:
            assert command(f'--runtime={runtime}', f'--dtype={dtype}') == 0
            assert made[-1] == {'runtime': runtime, 'dtype': dtype}
    assert command() == 0
    assert made[-1] == {'runtime': 'jax', 'dtype': 'float32'}


@pytest.mark.parametrize('runtime', OTHERS)
@pytest.mark.parametrize('missing', ['onnx', None])
def test_a_missing_package_is_told_in_one_line(runtime, missing, command, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, 'cyclegan_jax.inference.onnx_graph', raising=False)
    monkeypatch.setitem(sys.modules, missing or runtime, None)
    # As where no test before this one has had a core.
    monkeypatch.setattr(runtimes, 'openvino_core', runtimes.openvino_core.__wrapped__)
    assert command(f'--runtime={runtime}') == 2
    assert capsys.readouterr().err == (
        f'error: --runtime={runtime} needs {runtime} and onnx: pip install '
        f"'cyclegan_jax[{runtime}]'\n"
    )


@pytest.mark.parametrize('runtime', OTHERS)
def test_what_does_not_fit_into_memory_is_told_before(runtime, command, monkeypatch, capsys):
    needs(runtime)
    memory = collections.namedtuple('memory', 'available')
    own = psutil.Process().memory_info().rss
    monkeypatch.setattr(psutil, 'virtual_memory', lambda: memory(-2 * own))
    assert command(f'--runtime={runtime}') == 4
    assert 'use --tile=512, a smaller --size, or a smaller --batch' in capsys.readouterr().err


def test_openvino_is_not_asked_to_tell_of_itself():
    other('openvino', random_network())
    assert sys.modules['openvino_telemetry'] is None
