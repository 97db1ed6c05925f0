"""Weights are found wherever people have them, and what is not weights is refused by name."""

import json
import pickle
import re
import sys
import tarfile
import types
import zipfile

import flax.struct
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cyclegan_jax import interop
from cyclegan_jax.checkpoint import Checkpoints
from cyclegan_jax.errors import UserError
from cyclegan_jax.interop import hub
from cyclegan_jax.interop.files import read_tensors, write_safetensors, write_torch
from cyclegan_jax.interop.state_dict import Network, param_shapes, to_state_dict

RESNET = interop.full_spec('generator', {'width': 4, 'num_blocks': 1})
HUGGAN = RESNET | {'upsample': 'nearest'}
PATCH = interop.full_spec('discriminator', {'width': 4, 'num_layers': 2})


def random_network(role, spec, channels, seed):
    rng = np.random.default_rng(seed)
    shapes = param_shapes(role, spec, channels)
    is_shape = lambda leaf: isinstance(leaf, tuple)
    params = jax.tree.map(
        lambda shape: rng.standard_normal(shape, np.float32), shapes, is_leaf=is_shape
    )
    return Network(role, spec, channels, params)


def four_networks(generator=RESNET, discriminator=PATCH):
    return {
        'a2b': random_network('generator', generator, (3, 1), 0),
        'b2a': random_network('generator', generator, (1, 3), 1),
        'a': random_network('discriminator', discriminator, (3, 1), 2),
        'b': random_network('discriminator', discriminator, (1, 1), 3),
    }


def assert_same(networks, expected):
    assert networks.keys() == expected.keys()
    for name, network in networks.items():
        assert network[:3] == expected[name][:3]
        jax.tree.map(np.testing.assert_array_equal, network.params, expected[name].params)


def test_exchange_format_holds_all_four_networks(tmp_path):
    networks = four_networks()
    interop.save_pretrained(tmp_path, networks)
    assert_same(interop.load_pretrained(tmp_path, discriminators=True), networks)
    generators = {name: networks[name] for name in ('a2b', 'b2a')}
    assert_same(interop.load_pretrained(tmp_path), generators)
    # The file alone is enough.
    assert_same(interop.load_pretrained(tmp_path / 'model.safetensors'), generators)


def test_exchange_file_with_other_arrays_than_its_header_says(tmp_path):
    networks = four_networks()
    networks['a2b'].params['in']['kernel'] = np.zeros((5, 5, 3, 4), np.float32)
    del networks['b2a'].params['out']
    interop.save_pretrained(tmp_path, networks)
    with pytest.raises(ValueError, match=r'in/kernel is \(5, 5, 3, 4\) instead of \(7, 7, 3, 4\)'):
        interop.load_pretrained(tmp_path)


@pytest.mark.parametrize(
    ('names', 'generator', 'discriminator'),
    [
        ('latest_net_{}.pth', RESNET, PATCH),
        ('{}_7.pth', HUGGAN, PATCH | {'kind': 'huggan'}),
    ],
)
def test_folders_of_the_pytorch_code_bases(tmp_path, names, generator, discriminator):
    pytest.importorskip('torch')
    networks = four_networks(generator, discriminator)
    theirs = {'a2b': 'G_A', 'b2a': 'G_B', 'a': 'D_B', 'b': 'D_A'}
    if generator is HUGGAN:
        theirs = {'a2b': 'G_AB', 'b2a': 'G_BA', 'a': 'D_A', 'b': 'D_B'}
    for name, network in networks.items():
        write_torch(tmp_path / names.format(theirs[name]), to_state_dict(network))
    # An older epoch beside it.
    older = names.replace('latest', '5').replace('7', '5').format(theirs['a2b'])
    write_torch(tmp_path / older, to_state_dict(networks['b2a']))

    assert_same(interop.load_pretrained(tmp_path, discriminators=True), networks)
    older = interop.load_pretrained(tmp_path, step=5)
    assert_same(older, {'a2b': networks['b2a']})
    with pytest.raises(ValueError, match='no networks of epoch 6, only '):
        interop.load_pretrained(tmp_path, step=6)


def test_a_generator_that_is_alone_maps_what_its_name_or_the_caller_says(tmp_path):
    pytest.importorskip('torch')
    network = random_network('generator', RESNET, (3, 3), 0)
    for name in ('zebra.pth', 'latest_net_G.pth', 'latest_net_G_B.pth'):
        write_torch(tmp_path / name, to_state_dict(network))
    assert list(interop.load_pretrained(tmp_path / 'zebra.pth')) == ['a2b']
    assert list(interop.load_pretrained(tmp_path / 'zebra.pth', direction='b2a')) == ['b2a']
    assert list(interop.load_pretrained(tmp_path / 'latest_net_G.pth', direction='b2a')) == ['b2a']
    assert list(interop.load_pretrained(tmp_path / 'latest_net_G_B.pth', direction='a2b')) == [
        'b2a'
    ]


def test_a_discriminator_is_no_model(tmp_path):
    write_safetensors(tmp_path / 'd.safetensors', to_state_dict(four_networks()['a']))
    with pytest.raises(ValueError, match=r'd\.safetensors is a discriminator'):
        interop.load_pretrained(tmp_path / 'd.safetensors')


def test_no_model_there(tmp_path):
    with pytest.raises(ValueError, match=r'nowhere/at/all does not exist'):
        interop.load_pretrained('nowhere/at/all')
    with pytest.raises(ValueError, match='holds no generator: expected checkpoints/'):
        interop.load_pretrained(tmp_path)


def test_disagreements_name_field_and_both_values():
    networks = four_networks()
    config = {
        'channels': {'a': 3, 'b': 3},
        'generator': RESNET | {'width': 8, 'dropout': 0.5, 'num_downs': 8},
        'discriminator': PATCH,
    }
    assert interop.disagreements(networks, **config) == [
        'generator.width is 8, a2b of the weights has 4',
        'data.channels_b is 3, a2b of the weights has 1',
    ], 'both generators say it once'
    config |= {'channels': {'a': 3, 'b': 1}, 'generator': RESNET}
    assert interop.disagreements(networks, **config) == []
    other_kind = config | {'generator': {'kind': 'unet', 'width': 4}}
    assert 'generator.kind is unet, a2b of the weights has resnet' in interop.disagreements(
        networks, **other_kind
    )


class RunsWhenUnpickled:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def test_pickled_code_is_not_run(tmp_path):
    torch = pytest.importorskip('torch')
    trace = tmp_path / 'trace'
    torch.save({'model.1.weight': RunsWhenUnpickled(trace)}, tmp_path / 'zip.pth')
    (tmp_path / 'bare.pth').write_bytes(pickle.dumps(RunsWhenUnpickled(trace)))
    for name in ('zip.pth', 'bare.pth'):
        with pytest.raises(ValueError, match='not a plain state dict'):
            read_tensors(tmp_path / name)
    assert not trace.exists()


def test_a_flipped_bit_is_noticed(tmp_path):
    torch = pytest.importorskip('torch')
    path = tmp_path / 'weights.pth'
    torch.save({'w': torch.full((1000,), 500.0)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(np.full(3, 500.0, np.float32).tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match='fails its checksum'):
        read_tensors(path)


@pytest.mark.parametrize('suffix', ['.pth', '.bin', '.safetensors'])
@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (b'', 'is empty'),
        (b'<!DOCTYPE html><title>404</title>', 'is a web page'),
        (b'version https://git-lfs.github.com/spec/v1\n', 'git lfs pull'),
        (b'some text that is no model at all', '(damaged|not a)'),
    ],
)
def test_files_that_are_no_weights(tmp_path, suffix, content, words):
    if suffix != '.safetensors':
        pytest.importorskip('torch')
    path = tmp_path / f'weights{suffix}'
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        read_tensors(path)
    assert re.search(words, str(error.value)) and '\n' not in str(error.value)


def test_truncated_files(tmp_path):
    pytest.importorskip('torch')
    tensors = {'w': np.ones((64, 64), np.float32)}
    write_torch(tmp_path / 'w.pth', tensors)
    write_safetensors(tmp_path / 'w.safetensors', tensors)
    for path in (tmp_path / 'w.pth', tmp_path / 'w.safetensors'):
        path.write_bytes(path.read_bytes()[:2000])
        with pytest.raises(ValueError, match=path.name):
            read_tensors(path)


def test_a_training_checkpoint_of_other_code_is_no_state_dict(tmp_path):
    torch = pytest.importorskip('torch')
    torch.save({'epoch': 3, 'model': {'w': torch.zeros(1)}}, tmp_path / 'last.pth')
    with pytest.raises(ValueError, match='expected a dict of tensors'):
        read_tensors(tmp_path / 'last.pth')


def test_files_from_before_pytorch_1_6_are_read(tmp_path):
    torch = pytest.importorskip('torch')
    path = tmp_path / 'latest_net_G.pth'
    torch.save({'w': torch.arange(3.0)}, path, _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(path)
    np.testing.assert_array_equal(read_tensors(path)[0]['w'], [0, 1, 2])


def test_half_precision_is_read_as_float32(tmp_path):
    torch = pytest.importorskip('torch')
    torch.save({'w': torch.ones(3, dtype=torch.bfloat16)}, tmp_path / 'half.pth')
    assert read_tensors(tmp_path / 'half.pth')[0]['w'].dtype == np.float32


def test_without_torch_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch', None)
    (tmp_path / 'w.pth').write_bytes(b'PK\x03\x04 and so on')
    with pytest.raises(UserError, match=r"pip install 'cyclegan_jax\[torch\]'.*safetensors"):
        read_tensors(tmp_path / 'w.pth')


def test_safetensors_need_no_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch', None)
    network = random_network('generator', HUGGAN, (3, 3), 0)
    write_safetensors(tmp_path / 'model.safetensors', to_state_dict(network), {'format': 'pt'})
    loaded = interop.load_pretrained(tmp_path)
    assert_same(loaded, {'a2b': network})


class FakeHub:
    """Stands for hf_hub_download: each folder below `root` is the cache of a repository."""

    def __init__(self, root, online):
        self.root, self.online = root, online

    def __call__(self, repo_id, name, local_files_only):
        from huggingface_hub import errors

        path = self.root / repo_id / name
        if path.exists():
            return str(path)
        if not self.online:
            raise errors.LocalEntryNotFoundError('offline')
        response = types.SimpleNamespace(headers={}, request=None)
        if path.parents[name.count('/')].exists():
            raise errors.RemoteEntryNotFoundError('404', response=response)
        raise errors.RepositoryNotFoundError('404', response=response)


@pytest.fixture
def repositories(tmp_path):
    for name in ('old/one', 'new/one', 'both/ways', 'not/one'):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize('online', [True, False])
def test_repositories_of_the_hub(repositories, monkeypatch, online):
    pytest.importorskip('torch')
    monkeypatch.setattr('huggingface_hub.hf_hub_download', FakeHub(repositories, online))
    monkeypatch.setattr('cyclegan_jax.interop.hub._is_unknown_host', lambda _: False)
    one, two = (random_network('generator', HUGGAN, (3, 3), seed) for seed in (0, 1))
    bin_, safe, reverse = 'pytorch_model.bin', 'model.safetensors', 'b2a/model.safetensors'
    write_torch(repositories / 'old/one' / bin_, to_state_dict(one))
    write_torch(repositories / 'new/one' / bin_, to_state_dict(one))
    write_safetensors(repositories / 'new/one' / safe, to_state_dict(two), {'format': 'pt'})
    (repositories / 'both/ways/b2a').mkdir()
    write_safetensors(repositories / 'both/ways' / safe, to_state_dict(one), {'format': 'pt'})
    write_safetensors(repositories / 'both/ways' / reverse, to_state_dict(two), {'format': 'pt'})

    assert_same(interop.load_pretrained('old/one'), {'a2b': one})
    assert_same(interop.load_pretrained('new/one', direction='b2a'), {'b2a': two})
    assert_same(interop.load_pretrained('both/ways'), {'a2b': one, 'b2a': two})
    assert_same(interop.load_pretrained('both/ways', direction='b2a'), {'a2b': one, 'b2a': two})
    missing = {
        'not/one': 'not/one has no model.safetensors or pytorch_model.bin',
        'no/such': 'no/such is neither a file or folder here nor a public',
    }
    for name, words in missing.items():
        words = words if online else 'no connection, and no copy in the cache'
        with pytest.raises(ValueError, match=words):
            interop.load_pretrained(name)


def test_our_own_repositories_have_all_four_networks(repositories, monkeypatch):
    monkeypatch.setattr('huggingface_hub.hf_hub_download', FakeHub(repositories, online=True))
    networks = four_networks()
    interop.save_pretrained(repositories / 'new/one', networks)
    assert_same(interop.load_pretrained('new/one', discriminators=True), networks)


def test_a_workdir_gives_its_newest_checkpoint_or_the_one_asked_for(tmp_path):
    networks = four_networks()
    config = {
        'generator': RESNET | {'num_downs': 8},
        'discriminator': PATCH,
        'data': {'channels_a': 3, 'channels_b': 1},
    }
    with Checkpoints(tmp_path / 'checkpoints') as checkpoints:
        for step, scale in ((1, 1.0), (2, 2.0)):
            params = {name: scaled(network.params, scale) for name, network in networks.items()}
            state = State(
                step=jnp.asarray(step),
                generators={name: params[name] for name in ('a2b', 'b2a')},
                discriminators={name: params[name] for name in 'ab'},
            )
            checkpoints.save(step, state, {'config': config})
    expected = {name: networks[name] for name in ('a2b', 'b2a')}
    assert_same(interop.load_pretrained(tmp_path, step=1), expected)
    assert_same(interop.load_pretrained(tmp_path, step=1, discriminators=True), networks)
    newest = interop.load_pretrained(tmp_path)
    assert_same(newest, {n: e._replace(params=scaled(e.params, 2.0)) for n, e in expected.items()})
    with pytest.raises(ValueError, match='3'):
        interop.load_pretrained(tmp_path, step=3)


@flax.struct.dataclass
class State:
    step: jax.Array
    generators: dict
    discriminators: dict


def scaled(params, factor):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf) * factor, params)


def test_push_without_a_token_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr('huggingface_hub.get_token', lambda: None)
    with pytest.raises(ValueError, match='hf auth login'):
        hub.push(tmp_path, 'user/name')
    with pytest.raises(ValueError, match='must be user/name'):
        hub.push(tmp_path, 'name')


# What a header may say, and what is told of it.
HOSTILE = {
    'a list': ('[]', 'not an object'),
    'a string': ('"x"', 'not an object'),
    'null': ('null', 'not an object'),
    'no JSON': ('{', 'no JSON'),
    'a name that is a path': ({'..': {}}, "describes '..'"),
    'another role': ({'a2b': {'role': 'discriminator'}}, "a2b is a 'discriminator'"),
    'no object': ({'a2b': None}, 'must be an object'),
    'no spec': ({'a2b': {'spec': None}}, "field 'spec' is None"),
    'unknown kind': ({'a2b': {'spec': {'kind': 'vit'}}}, "generator.kind is 'vit'"),
    'kind of another type': ({'a2b': {'spec': {'kind': []}}}, 'must be an object'),
    'width of another type': ({'a2b': {'spec': {'width': '64'}}}, "'width' is '64'"),
    'negative': ({'a2b': {'spec': {'width': -4}}}, 'width is -4'),
    'a million blocks': ({'a2b': {'spec': {'num_blocks': 10**6}}}, 'num_blocks is 1000000'),
    'huge width': ({'a2b': {'spec': {'width': 10**30}}}, 'the file holds at most'),
    'huge channels': ({'a2b': {'channels': [3, 10**30]}}, 'two numbers, in and out'),
    'channels of another type': ({'a2b': {'channels': [3, 'x']}}, 'two numbers, in and out'),
}


@pytest.mark.parametrize('case', HOSTILE)
def test_headers_that_lie_are_told_in_a_line(tmp_path, case):
    header, words = HOSTILE[case]
    if not isinstance(header, str):
        usual = {'role': 'generator', 'spec': RESNET, 'channels': [3, 3]}
        for name, described in header.items():
            if described is not None:
                header[name] = usual | described
                if isinstance(described.get('spec'), dict):
                    header[name]['spec'] = RESNET | described['spec']
        header = json.dumps(header)
    params = random_network('generator', RESNET, (3, 3), 0).params
    tensors = flax.traverse_util.flatten_dict({'a2b': params}, sep='/')
    path = tmp_path / 'model.safetensors'
    write_safetensors(path, tensors, {'cyclegan_jax': header})
    with pytest.raises(UserError, match=re.escape(words)) as error:
        interop.load_pretrained(path)
    assert 'model.safetensors' in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    networks = four_networks()
    networks['b2a'].params['in']['kernel'][0, 0, 0, :2] = value
    interop.save_pretrained(tmp_path, networks)
    with pytest.raises(UserError, match=r'b2a, has 2 of .* weights that are NaN or infinite'):
        interop.load_pretrained(tmp_path)


def test_a_checkpoint_that_is_not_that_of_its_config(tmp_path):
    networks = four_networks()
    del networks['a2b'].params['out']
    networks['b2a'].params['in']['kernel'] = np.zeros((5, 5, 1, 4), np.float32)
    config = {
        'generator': RESNET,
        'discriminator': PATCH,
        'data': {'channels_a': 3, 'channels_b': 1},
    }
    state = State(
        step=jnp.asarray(1),
        generators={n: scaled(networks[n].params, 1) for n in ('a2b', 'b2a')},
        discriminators={n: scaled(networks[n].params, 1) for n in 'ab'},
    )
    with Checkpoints(tmp_path / 'checkpoints', keep=3) as checkpoints:
        checkpoints.save(1, state, {'config': config})
        checkpoints.save(2, state, {'config': config | {'data': {'channels_a': 3}}})
        checkpoints.save(3, state, {'config': config | {'generator': RESNET | {'width': '4'}}})
    for step, words in ((1, 'lacks: out/'), (2, "'channels_b' is missing"), (3, "'width' is '4'")):
        with pytest.raises(UserError, match=words) as error:
            interop.load_pretrained(tmp_path, step=step)
        assert f'step {step}' in str(error.value) and '\n' not in str(error.value)


def sparse(torch):
    return {'w': torch.eye(3).to_sparse()}


def meta(torch):
    return {'w': torch.zeros(3, device='meta')}


def integer_keys(torch):
    return {0: torch.zeros(3)}


def repeated(torch):
    return {'w': torch.zeros(1).expand(10**9)}


@pytest.mark.parametrize('make', [sparse, meta, integer_keys, repeated])
@pytest.mark.filterwarnings('ignore')
def test_tensors_that_are_none_of_ours(tmp_path, make):
    torch = pytest.importorskip('torch')
    torch.save(make(torch), tmp_path / 'w.pth')
    with pytest.raises(UserError, match=r'w\.pth') as error:
        read_tensors(tmp_path / 'w.pth')
    assert 'expected' in str(error.value) and '\n' not in str(error.value)


@pytest.mark.filterwarnings('ignore')
def test_archives_are_told_without_advice_to_run_their_code(tmp_path):
    torch = pytest.importorskip('torch')
    torch.jit.script(torch.nn.Conv2d(1, 1, 1)).save(str(tmp_path / 'script.pt'))
    with tarfile.open(tmp_path / 'tar.pth', 'w') as archive:
        archive.add(tmp_path / 'script.pt', 'script.pt')
    for name, words in (('script.pt', 'a TorchScript program'), ('tar.pth', 'a tar archive')):
        with pytest.raises(UserError, match=words) as error:
            read_tensors(tmp_path / name)
        assert 'weights_only' not in str(error.value)


def test_a_state_dict_beside_an_epoch_is_found(tmp_path):
    torch = pytest.importorskip('torch')
    torch.save({'epoch': 3, 'state_dict': {'w': torch.ones(2)}}, tmp_path / 'last.pth')
    np.testing.assert_array_equal(read_tensors(tmp_path / 'last.pth')[0]['w'], [1, 1])
