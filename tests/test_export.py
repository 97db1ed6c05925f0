"""What is exported gives, in the program that reads it, what the generator gives here."""

import json

import jax
import numpy as np
import pytest
from evaluation_run import write_run
from flax import traverse_util
from PIL import Image
from translate_fixtures import RESNET, random_network

from cyclegan_jax import export, interop, translate
from cyclegan_jax.errors import UserError
from cyclegan_jax.inference import exporting
from cyclegan_jax.inference.exporting import FORMATS
from cyclegan_jax.interop import hub, param_shapes
from cyclegan_jax.interop.files import write_safetensors

NEAREST = RESNET | {'upsample': 'nearest'}
UNET = interop.full_spec('generator', {'kind': 'unet', 'width': 2, 'num_downs': 5})
WIDE = NEAREST | {'width': 64}


def apply(network, images):
    module = network.module()
    return np.asarray(jax.jit(module.apply)({'params': network.params}, images))


def images(*shape):
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def export_two(tmp_path, format_, spec=RESNET, channels=(3, 3)):
    """Exports two random generators; returns them and the folder."""
    networks = {
        'a2b': random_network(channels, spec, seed=1),
        'b2a': random_network(channels[::-1], spec, seed=2),
    }
    return export_these(tmp_path, format_, networks)


def export_these(tmp_path, format_, networks):
    interop.save_pretrained(tmp_path / 'model', networks)
    folder = tmp_path / 'out'
    status = export.main(
        [f'--model={tmp_path / "model"}', f'--output={folder}', f'--format={format_}']
    )
    return networks, folder, status


def assert_same_generators(model, networks):
    loaded = interop.load_pretrained(model)
    assert loaded.keys() == networks.keys()
    for name, network in networks.items():
        assert loaded[name].spec == network.spec
        jax.tree.map(np.testing.assert_array_equal, loaded[name].params, network.params)


def test_all_formats_of_the_command_exist():
    assert export.FORMATS == FORMATS


def test_safetensors_are_read_back_and_described(tmp_path):
    networks, folder, status = export_two(tmp_path, 'safetensors', channels=(3, 1))
    assert status == 0
    assert_same_generators(folder, networks)
    config = json.loads((folder / 'config.json').read_text())
    assert config['cyclegan_jax']['a2b']['channels'] == [3, 1]
    assert 'pipeline_tag: image-to-image' in (folder / 'README.md').read_text()


def test_half_precision_is_a_small_model_to_translate_with(tmp_path, capsys):
    """The generators alone, which translate as before; all that reads models reads it."""
    write_run(tmp_path / 'run', steps=(3,))
    flags = [f'--model={tmp_path}/run', f'--output={tmp_path}/half', '--dtype=float16']
    assert export.main(flags) == 0
    assert 'a2b: half-precision weights, which change pixels by ' in capsys.readouterr().out
    assert not (tmp_path / 'half' / 'discriminators.safetensors').exists()
    full = interop.load_pretrained(tmp_path / 'run')
    half = interop.load_pretrained(tmp_path / 'half', discriminators=True)
    assert half.keys() == {'a2b', 'b2a'}
    for name, network in half.items():
        rounded = jax.tree.map(lambda x: np.float32(np.float16(x)), full[name].params)
        jax.tree.map(np.testing.assert_array_equal, network.params, rounded)
    size = sum(2 * leaf.size for n in full.values() for leaf in jax.tree.leaves(n.params))
    assert (tmp_path / 'half' / 'model.safetensors').stat().st_size < size + 2000
    assert 'discriminator (' not in (tmp_path / 'half' / 'README.md').read_text()


def test_what_half_precision_cannot_hold_is_refused(tmp_path, capsys):
    network = random_network()
    network.params['out']['bias'][0] = 1e6
    interop.save_pretrained(tmp_path / 'model', {'a2b': network})
    flags = [f'--model={tmp_path}/model', f'--output={tmp_path}/out', '--dtype=float16']
    assert export.main(flags) == 2
    assert 'a2b has weights that float16 cannot hold' in capsys.readouterr().err
    assert export.main([*flags, '--format=onnx']) == 2
    assert '--dtype=float16 is of --format=safetensors' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_pytorch_loads_all_four_networks(tmp_path):
    torch = pytest.importorskip('torch')
    import torch_networks as published

    networks = {'a2b': random_network(seed=1), 'b2a': random_network(seed=2)}
    patch = interop.full_spec('discriminator', {'width': 4, 'num_layers': 2})
    for seed, domain in enumerate('ab'):
        params = random_params(param_shapes('discriminator', patch, (3, 1)), seed)
        networks[domain] = interop.Network('discriminator', patch, (3, 1), params)
    interop.save_pretrained(tmp_path, networks)
    assert export.main([f'--model={tmp_path}', f'--output={tmp_path}/out', '--format=pytorch']) == 0
    # Its D_A judges images of b.
    theirs = {'a2b': 'G_A', 'b2a': 'G_B', 'b': 'D_A', 'a': 'D_B'}
    for name, network in networks.items():
        generator = network.role == 'generator'
        module = published.ResNet(3, 3, 4, 1) if generator else published.Patch(3, 4, 2)
        path = tmp_path / 'out' / f'latest_net_{theirs[name]}.pth'
        module.load_state_dict(torch.load(path, weights_only=True))
        x = images(1, 32, 32, 3)
        with torch.no_grad():
            result = module(torch.from_numpy(x.transpose(0, 3, 1, 2))).numpy()
        np.testing.assert_allclose(result.transpose(0, 2, 3, 1), apply(network, x), atol=1e-4)


def random_params(shapes, seed):
    rng = np.random.default_rng(seed)
    is_shape = lambda leaf: isinstance(leaf, tuple)
    draw = lambda shape: rng.normal(0, 0.1, shape).astype(np.float32)
    return jax.tree.map(draw, shapes, is_leaf=is_shape)


def test_huggan_loads_its_folders_by_from_pretrained(tmp_path):
    torch = pytest.importorskip('torch')
    import torch_networks as published
    from huggingface_hub import PyTorchModelHubMixin

    class GeneratorResNet(published.HugganResNet, PyTorchModelHubMixin):
        def __init__(self, input_shape, num_residual_blocks):
            super().__init__(input_shape, num_residual_blocks)

    networks, folder, status = export_two(tmp_path, 'huggan', WIDE)
    assert status == 0
    x = images(1, 32, 32, 3)
    for place, name in ((folder, 'a2b'), (folder / 'b2a', 'b2a')):
        module = GeneratorResNet.from_pretrained(place)  # config.json gives the arguments
        with torch.no_grad():
            result = module(torch.from_numpy(x.transpose(0, 3, 1, 2))).numpy()
        np.testing.assert_allclose(
            result.transpose(0, 2, 3, 1), apply(networks[name], x), atol=1e-4
        )
        assert 'GeneratorResNet.from_pretrained' in (place / 'README.md').read_text()
    assert_same_generators(folder, networks)


@pytest.mark.parametrize('spec', [RESNET, NEAREST, UNET, RESNET | {'width': 16}])
def test_stablehlo_takes_any_number_and_size(tmp_path, spec):
    pytest.importorskip('flatbuffers')
    from jax import export as jax_export

    network = random_network((3, 1), spec)
    _, folder, status = export_these(tmp_path, 'stablehlo', {'a2b': network})
    assert status == 0
    program = jax_export.deserialize(bytearray((folder / 'a2b.stablehlo').read_bytes()))
    assert set(program.platforms) == {'cpu', 'cuda', 'tpu'}
    for shape in ((1, 32, 64, 3), (3, 64, 32, 3)):
        x = images(*shape)
        # Where the size is open, convolutions take another form, rounded otherwise.
        np.testing.assert_allclose(program.call(x), apply(network, x), atol=1e-4)


@pytest.mark.parametrize('spec', [RESNET, NEAREST, UNET])
def test_onnx_takes_any_number_and_size(tmp_path, spec):
    pytest.importorskip('onnx')
    onnxruntime = pytest.importorskip('onnxruntime')
    networks, folder, status = export_two(tmp_path, 'onnx', spec, channels=(3, 1))
    assert status == 0
    for name, network in networks.items():
        session = onnxruntime.InferenceSession(folder / f'{name}.onnx')
        for shape in ((1, 32, 64), (3, 64, 32)):
            x = images(*shape, network.channels[0])
            [result] = session.run(None, {'image': x.transpose(0, 3, 1, 2)})
            np.testing.assert_allclose(result.transpose(0, 2, 3, 1), apply(network, x), atol=1e-5)


def test_onnx_tells_its_readers_what_they_cannot_see(tmp_path):
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    _, folder, _ = export_two(tmp_path, 'onnx', UNET, channels=(3, 1))
    model = onnx.load(folder / 'b2a.onnx')
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        'direction': 'b2a',
        'layout': 'NCHW',
        'value_range': '[-1, 1]',
        'input_channels': 'grey',
        'output_channels': 'RGB',
        'size_multiple': '32',
        'smallest_size': '32',
    }
    assert {(entry.domain, entry.version) for entry in model.opset_import} == {('', 17)}
    windows = [n for n in model.graph.node if n.op_type in ('Conv', 'ConvTranspose')]
    assert windows and all('kernel_shape' in {a.name for a in n.attribute} for n in windows)


def test_stablehlo_takes_the_smallest_image(tmp_path):
    pytest.importorskip('flatbuffers')
    from jax import export as jax_export

    networks, folder, _ = export_two(tmp_path, 'stablehlo')
    program = jax_export.deserialize(bytearray((folder / 'a2b.stablehlo').read_bytes()))
    x = images(1, 8, 8, 3)
    np.testing.assert_allclose(program.call(x), apply(networks['a2b'], x), atol=1e-3)


@pytest.mark.parametrize(
    ('spec', 'words'),
    [
        (
            RESNET | {'num_blocks': 6},
            '--model cycle_gan --netG resnet_6blocks --ngf 4 --input_nc 3 --output_nc 3\n',
        ),
        (RESNET, 'no flags for a2b, a resnet generator (width 4, num_blocks 1'),
        (RESNET | {'num_blocks': 6, 'dropout': 0.5}, 'dropout 0.5): its --model cycle_gan cannot'),
        (UNET, 'no flags for a2b, a unet generator (width 2, num_downs 5'),
    ],
)
def test_pytorch_says_by_which_flags_it_is_loaded(tmp_path, capsys, spec, words):
    pytest.importorskip('torch')
    _, _, status = export_two(tmp_path, 'pytorch', spec)
    assert status == 0
    assert words in capsys.readouterr().out


def test_an_output_that_is_a_file(tmp_path, capsys):
    interop.save_pretrained(tmp_path / 'model', {'a2b': random_network()})
    (tmp_path / 'out').write_text('mine')
    assert export.main([f'--model={tmp_path / "model"}', f'--output={tmp_path / "out"}']) == 2
    assert capsys.readouterr().err.count('is a file; name a folder') == 1
    assert (tmp_path / 'out').read_text() == 'mine'


def test_names_from_a_file_do_not_lead_out_of_the_folder(tmp_path, capsys):
    network = random_network(spec=WIDE)
    described = {'role': 'generator', 'spec': WIDE, 'channels': [3, 3]}
    tensors = {}
    for name in ('a2b', '..'):
        tensors |= traverse_util.flatten_dict({name: network.params}, sep='/')
    header = {'cyclegan_jax': json.dumps({'a2b': described, '..': described})}
    write_safetensors(tmp_path / 'evil.safetensors', tensors, header)
    folder = tmp_path / 'deep' / 'out'
    flags = [f'--model={tmp_path / "evil.safetensors"}', f'--output={folder}', '--format=huggan']
    assert export.main(flags) == 2
    assert "describes '..'" in capsys.readouterr().err
    assert not (tmp_path / 'deep').exists()


@pytest.mark.parametrize(
    ('format_', 'spec', 'words'),
    [
        ('pytorch', NEAREST, 'choose --format=huggan'),
        ('huggan', RESNET, 'choose --format=pytorch'),
        ('huggan', NEAREST, 'width 64 and channels (3, 3) only'),
    ],
)
def test_what_the_other_code_cannot_hold_is_refused(tmp_path, capsys, format_, spec, words):
    _, folder, status = export_two(tmp_path, format_, spec)
    error = capsys.readouterr().err
    assert status == 2
    assert words in error and error.count('\n') == 1
    assert not folder.exists()


def test_a_program_that_gives_something_else_is_not_exported(tmp_path, monkeypatch, capsys):
    pytest.importorskip('flatbuffers')
    from jax import export as jax_export

    class Wrong:
        def call(self, x):
            return x

    monkeypatch.setattr(jax_export, 'deserialize', lambda content: Wrong())
    _, folder, status = export_two(tmp_path, 'stablehlo')
    assert status == 2
    assert 'gives other images than JAX' in capsys.readouterr().err
    assert not folder.exists()


def test_push_uploads_the_folder(tmp_path, monkeypatch, capsys):
    uploads = []

    class Api:
        def create_repo(self, repo_id, exist_ok):
            return f'https://hub/{repo_id}'

        def upload_folder(self, repo_id, folder_path):
            uploads.append((repo_id, {path.name for path in folder_path.iterdir()}))

    monkeypatch.setattr('huggingface_hub.HfApi', Api)
    monkeypatch.setattr('huggingface_hub.get_token', lambda: 'token')
    interop.save_pretrained(tmp_path, {'a2b': random_network(), 'b2a': random_network()})
    flags = [f'--model={tmp_path}', f'--output={tmp_path / "out"}', '--push=user/zebras']
    assert export.main(flags) == 0
    assert uploads == [('user/zebras', {'model.safetensors', 'config.json', 'README.md'})]
    assert 'https://hub/user/zebras' in capsys.readouterr().out


def push_in_vain(raised, tmp_path, monkeypatch, capsys):
    """What `export --push` says where the hub's client raises this."""

    class Api:
        def create_repo(self, repo_id, exist_ok):
            raise raised

    monkeypatch.setattr('huggingface_hub.HfApi', Api)
    monkeypatch.setattr('huggingface_hub.get_token', lambda: 'token')
    interop.save_pretrained(tmp_path, {'a2b': random_network()})
    flags = [f'--model={tmp_path}', f'--output={tmp_path / "out"}', '--push=user/zebras']
    assert export.main(flags) == 2
    return capsys.readouterr().err


def test_push_without_a_connection_keeps_the_export(tmp_path, monkeypatch, capsys):
    error = push_in_vain(ConnectionError('no route to host'), tmp_path, monkeypatch, capsys)
    assert 'no route to host' in error and 'The export itself is complete' in error
    assert (tmp_path / 'out' / 'model.safetensors').exists()


def test_discriminators_that_no_pytorch_code_has_are_left_out(tmp_path):
    pytest.importorskip('torch')
    spec = interop.full_spec('discriminator', {'kind': 'two_scale', 'width': 4, 'num_layers': 1})
    shapes = param_shapes('discriminator', spec, (3, 1))
    zeros = jax.tree.map(np.zeros, shapes, is_leaf=lambda leaf: isinstance(leaf, tuple))
    judge = interop.Network('discriminator', spec, (3, 1), zeros)
    exporting.export({'a2b': random_network(), 'b': judge}, tmp_path, 'pytorch')
    assert [path.name for path in tmp_path.iterdir()] == ['latest_net_G_A.pth']


def test_push_tells_what_the_http_library_of_the_hub_raises(tmp_path, monkeypatch, capsys):
    """requests, httpx or httpx2, by the hub's version: not all of it is an OSError."""
    from huggingface_hub import errors

    lineage = errors.HfHubHTTPError.__mro__
    library = next(base for base in lineage[1:] if base.__module__ != 'builtins')

    error = push_in_vain(library('no route to host'), tmp_path, monkeypatch, capsys)
    assert 'failed: no route to host. The export itself' in error and error.count('\n') == 1


def test_push_makes_a_space_of_a_page(tmp_path, monkeypatch):
    calls = []

    class Api:
        def create_repo(self, repo_id, **options):
            calls.append(options)

        def upload_folder(self, repo_id, folder_path, **options):
            calls.append(options)

    monkeypatch.setattr('huggingface_hub.HfApi', Api)
    monkeypatch.setattr('huggingface_hub.get_token', lambda: 'token')
    hub.push(tmp_path, 'user/zebras', space='static')
    made = {'exist_ok': True, 'repo_type': 'space', 'space_sdk': 'static'}
    assert calls == [made, {'repo_type': 'space'}]


@pytest.mark.parametrize('weights', ['trained', None])
def test_weights_of_a_run_are_chosen_and_of_others_refused(weights, tmp_path, capsys):
    """By default the average, which is half of the trained ones here."""
    write_run(tmp_path / 'run', steps=(3,), average=True)
    chosen = [f'--weights={weights}'] if weights else []
    model = [f'--model={tmp_path}/run', *chosen]
    assert export.main([*model, f'--output={tmp_path}/out']) == 0
    trained = interop.load_pretrained(tmp_path / 'run', weights='trained')['a2b']
    scale = 1 if weights == 'trained' else 0.5
    expected = trained._replace(params=jax.tree.map(lambda x: scale * x, trained.params))
    exported = interop.load_pretrained(tmp_path / 'out')['a2b']
    jax.tree.map(np.testing.assert_array_equal, exported.params, expected.params)

    picture = np.random.default_rng(0).integers(256, size=(32, 32, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / 'x.png')
    flags = [f'--input={tmp_path}/x.png', f'--output={tmp_path}/translated']
    assert translate.main([*model, *flags]) == 0
    translated = np.asarray(Image.open(tmp_path / 'translated' / 'x.png'))
    output = apply(expected, (picture / 127.5 - 1)[None].astype(np.float32))[0]
    np.testing.assert_allclose(translated, (output + 1) * 127.5, atol=0.6)
    if weights:
        assert translate.main([f'--model={tmp_path}/out', *chosen, *flags]) == 2
        assert f'--weights is {weights}, but {tmp_path}/out is not the' in capsys.readouterr().err


def test_the_workdir_of_a_run_is_not_exported_into(tmp_path):
    """Its config.json, every field of the run, would be replaced."""
    (tmp_path / 'checkpoints').mkdir()
    with pytest.raises(UserError, match='is the workdir of a run'):
        exporting.export({}, tmp_path, 'safetensors')
    assert not (tmp_path / 'config.json').exists()
