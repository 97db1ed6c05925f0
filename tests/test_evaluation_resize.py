"""The three ways to resize for the FID network, against the packages that define them."""

import numpy as np
import pytest
from inception_state import blocks
from oracles import oracle

from cyclegan_jax.evaluation import inception

SIZES = [(32, 32), (256, 256), (299, 299), (300, 413)]


@pytest.mark.parametrize('protocol', inception.PROTOCOLS)
def test_black_and_white_keep_their_values(protocol):
    low, high = (-1, 1) if protocol == 'pytorch' else (-1, 127 / 128)
    for value, expected in ((0, low), (255, high)):
        resized = inception.prepare(np.full((20, 30, 3), value, np.uint8), protocol)
        assert resized.shape == (299, 299, 3)
        assert resized.dtype == np.float32
        np.testing.assert_allclose(resized, expected, rtol=1e-6)


def test_protocols_differ_in_where_pixels_lie():
    """A step edge in the middle stays there; TensorFlow's corners shift it by half a pixel."""
    edge = np.zeros((10, 10, 3), np.uint8)
    edge[:, 5:] = 255
    crossing = {}
    for protocol in inception.PROTOCOLS:
        row = inception.prepare(edge, protocol)[150, :, 0]
        crossing[protocol] = np.interp(0, row[130:170], np.arange(130, 170))
    assert crossing['pytorch'] == pytest.approx(149, abs=0.1)
    assert crossing['clean'] == pytest.approx(149, abs=0.2)
    assert crossing['tensorflow'] == pytest.approx(149.5 - 299 / 10 / 2, abs=0.2)


def test_only_clean_is_antialiased():
    """Stripes of one pixel become grey when a picture is shrunk, or are aliased."""
    stripes = np.zeros((64, 1794, 3), np.uint8)
    stripes[:, ::2] = 255
    contrast = {p: inception.prepare(stripes, p)[0].std() for p in inception.PROTOCOLS}
    assert contrast['clean'] < 0.02
    assert contrast['tensorflow'] == 0  # each sample falls on a white column
    assert np.ptp(inception.prepare(stripes, 'tensorflow')) == 0
    assert inception.prepare(stripes, 'tensorflow')[0, 0, 0] > 0.9


@pytest.mark.parametrize('size', SIZES)
def test_tensorflow_equals_torch_fidelity_bit_for_bit(size):
    module = oracle('torch_fidelity.interpolate_compat_tensorflow')
    import torch

    [image] = blocks(1, *size)
    channels_first = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    theirs = module.interpolate_bilinear_2d_like_tensorflow1x(
        channels_first, size=(299, 299), align_corners=False
    )
    theirs = ((theirs - 128) / 128)[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(inception.prepare(image, 'tensorflow'), theirs)


@pytest.mark.parametrize('size', SIZES)
def test_clean_equals_clean_fid_bit_for_bit(size):
    module = oracle('cleanfid.resize')
    [image] = blocks(1, *size)
    theirs = (module.build_resizer('clean')(image) - 128) / 128
    np.testing.assert_array_equal(inception.prepare(image, 'clean'), theirs)


@pytest.mark.parametrize('size', SIZES)
def test_pytorch_equals_interpolate(size):
    torch = pytest.importorskip('torch')
    [image] = blocks(1, *size)
    channels_first = torch.from_numpy(image).permute(2, 0, 1)[None] / 255.0
    theirs = torch.nn.functional.interpolate(
        channels_first, size=(299, 299), mode='bilinear', align_corners=False
    )
    theirs = (2 * theirs - 1)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(inception.prepare(image, 'pytorch'), theirs, atol=1e-6)
