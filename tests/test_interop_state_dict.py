"""Weights of the PyTorch code bases give the same outputs here, and go back unchanged."""

import jax.numpy as jnp
import numpy as np
import pytest

from cyclegan_jax.interop.state_dict import from_state_dict, to_state_dict

torch = pytest.importorskip('torch')
import torch_networks as published  # noqa: E402

RESNET = {
    'downsample': 'stride',
    'kind': 'resnet',
    'num_blocks': 2,
    'upsample': 'transpose',
    'dropout': 0.0,
    'global_skip': False,
    'width': 4,
}
UNET = {'kind': 'unet', 'num_downs': 5, 'dropout': 0.0, 'width': 4}

# Name, PyTorch module, what its keys must be read as, side of a test image.
CASES = {
    'resnet_6': (lambda: published.ResNet(3, 3, 4, 6), RESNET | {'num_blocks': 6}, 32),
    'resnet_9': (lambda: published.ResNet(3, 3, 4, 9), RESNET | {'num_blocks': 9}, 32),
    'resnet_grey_to_colour': (lambda: published.ResNet(1, 3, 4, 2), RESNET, 32),
    'resnet_dropout': (lambda: published.ResNet(3, 3, 4, 2, True), RESNET | {'dropout': 0.5}, 32),
    'huggan': (lambda: published.HugganResNet((3,), 2, 4), RESNET | {'upsample': 'nearest'}, 32),
    'unet_128': (lambda: published.UNet(3, 1, 2, 7), UNET | {'num_downs': 7, 'width': 2}, 128),
    'unet_256': (lambda: published.UNet(3, 3, 2, 8), UNET | {'num_downs': 8, 'width': 2}, 256),
    'patch': (
        lambda: published.Patch(3, 8, 3),
        {'kind': 'patch', 'downsample': 'stride', 'num_layers': 3, 'width': 8},
        64,
    ),
    'patch_1': (
        lambda: published.Patch(3, 8, 1),
        {'kind': 'patch', 'downsample': 'stride', 'num_layers': 1, 'width': 8},
        64,
    ),
    'patch_5': (
        lambda: published.Patch(3, 2, 5),
        {'kind': 'patch', 'downsample': 'stride', 'num_layers': 5, 'width': 2},
        128,
    ),
    'patch_huggan': (
        lambda: published.Patch(3, 8, 3, huggan=True),
        {'kind': 'huggan', 'downsample': 'stride', 'num_layers': 3, 'width': 8},
        64,
    ),
    'pixel': (lambda: published.Pixel(3, 8), {'kind': 'pixel', 'width': 8}, 16),
}


def build(make):
    """The module with random weights, biases included, in a size at which outputs are not tiny."""
    torch.manual_seed(0)
    module = make().eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3 if parameter.ndim == 1 else 0.1)
    return module


def arrays(module):
    return {key: tensor.numpy() for key, tensor in module.state_dict().items()}


def random_image(*shape):
    return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


def apply(network, x):
    module = network.module()
    return np.asarray(module.apply({'params': network.params}, jnp.asarray(x)))


def apply_torch(module, x):
    with torch.no_grad():
        return module(torch.from_numpy(x.transpose(0, 3, 1, 2))).numpy().transpose(0, 2, 3, 1)


@pytest.mark.parametrize('name', CASES)
def test_outputs_equal_those_of_pytorch_and_keys_come_back(name):
    make, spec, side = CASES[name]
    module = build(make)
    network = from_state_dict(arrays(module), name)
    assert network.spec == spec
    x = random_image(2, side, side, network.channels[0])
    expected = apply_torch(module, x)
    assert expected.std() > 0.01  # else agreement would mean little
    np.testing.assert_allclose(apply(network, x), expected, atol=1e-4)

    # There and back: PyTorch takes all keys, and computes what it did, without the dead biases.
    back = to_state_dict(network)
    module.load_state_dict({key: torch.from_numpy(array) for key, array in back.items()})
    np.testing.assert_allclose(apply_torch(module, x), expected, atol=1e-4)


@pytest.mark.slow
def test_full_width_at_256_pixels():
    module = build(lambda: published.ResNet(3, 3, 64, 9))
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    network = from_state_dict(arrays(module), 'full')
    assert sum(p.numel() for p in module.parameters()) == 11_378_179
    x = random_image(1, 256, 256, 3)
    np.testing.assert_allclose(apply(network, x), apply_torch(module, x), atol=1e-4)


def test_sides_that_are_no_multiples_of_4_give_the_size_that_pytorch_gives():
    module = build(lambda: published.ResNet(3, 3, 4, 2))
    network = from_state_dict(arrays(module), 'odd')
    x = random_image(1, 256, 314, 3)
    expected = apply_torch(module, x)
    assert expected.shape == (1, 256, 316, 3)
    np.testing.assert_allclose(apply(network, x), expected, atol=1e-4)


def test_prefix_of_data_parallel_and_old_running_statistics_are_dropped():
    tensors = arrays(build(lambda: published.ResNet(3, 3, 4, 1)))
    old = {f'module.{key}': tensor for key, tensor in tensors.items()}
    old['module.model.2.running_mean'] = old['module.model.2.running_var'] = np.zeros(4)
    old['module.model.2.num_batches_tracked'] = np.zeros(())
    for key, tensor in to_state_dict(from_state_dict(old, 'old')).items():
        if np.any(tensor):
            np.testing.assert_array_equal(tensor, tensors[key])


def batch_norm(tensors):
    tensors |= {'model.2.weight': np.ones(4), 'model.2.bias': np.ones(4)}


def zero_padding(tensors):
    for name in ('weight', 'bias'):
        tensors[f'model.10.conv_block.0.{name}'] = tensors.pop(f'model.10.conv_block.1.{name}')
        tensors[f'model.10.conv_block.3.{name}'] = tensors.pop(f'model.10.conv_block.5.{name}')


def no_norm(tensors):
    for i in (1, 4, 7, 11, 14):
        tensors.pop(f'model.{i}.bias', None)
    for i in (1, 5):
        del tensors[f'model.10.conv_block.{i}.bias']


def without_last(tensors):
    del tensors['model.18.weight']


def misfit(tensors):
    del tensors['model.4.bias']
    tensors['model.99.weight'] = np.zeros((1, 1, 1, 1))
    tensors['model.7.weight'] = np.zeros((16, 8, 5, 5))


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (batch_norm, ['batch norm', 'model.2.weight', '--norm instance']),
        (no_norm, ['--norm none', 'model.1.bias', 'only --norm instance']),
        (zero_padding, ['reflection', 'conv_block.0.weight']),
        (
            misfit,
            [
                'resnet generator',
                'lacks: model.4.bias (8,)',
                'does not know: model.99.weight',
                'model.7.weight is (16, 8, 5, 5) instead of (16, 8, 3, 3)',
            ],
        ),
        (without_last, ['lacks its first or last', 'model.18.weight']),
        (dict.clear, ['model.1.weight (ResNet)', 'it has none']),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(spoil, words):
    tensors = arrays(build(lambda: published.ResNet(3, 3, 4, 1)))
    spoil(tensors)
    with pytest.raises(ValueError) as error:
        from_state_dict(tensors, 'weights.pth')
    message = str(error.value)
    assert message.startswith('weights.pth') and '\n' not in message
    for word in words:
        assert word in message


def test_another_network_altogether_is_refused_with_its_keys():
    with pytest.raises(ValueError, match=r'layer1\.0\.weight.*and 2 more'):
        tensors = {f'layer{i}.0.weight': np.zeros((1, 1, 1, 1)) for i in range(1, 7)}
        from_state_dict(tensors, 'classifier.pth')


def test_a_classifier_is_not_told_to_train_with_another_norm():
    tensors = {'conv1.weight': np.zeros((4, 3, 7, 7)), 'bn1.weight': np.zeros(4)}
    with pytest.raises(ValueError, match='no CycleGAN that is known here'):
        from_state_dict(tensors, 'classifier.pth')


@pytest.mark.parametrize('prefix', ['_orig_mod.', 'module._orig_mod.', '_orig_mod.module.'])
def test_prefixes_of_compiled_and_parallel_modules_are_dropped(prefix):
    tensors = arrays(build(lambda: published.ResNet(3, 3, 4, 1)))
    wrapped = {prefix + key: tensor for key, tensor in tensors.items()}
    assert from_state_dict(wrapped, 'wrapped').spec == from_state_dict(tensors, 'plain').spec


def test_huggan_with_other_than_three_channels_keeps_the_size_here(caplog):
    module = build(lambda: published.HugganResNet((1,), 1, 4))
    network = from_state_dict(arrays(module), 'grey.bin')
    x = random_image(1, 32, 32, 1)
    assert apply_torch(module, x).shape == (1, 24, 24, 1)
    assert apply(network, x).shape == x.shape
    assert 'huggan pads by 1' in caplog.text
