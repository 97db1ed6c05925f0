import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from cyclegan_jax.data import images
from cyclegan_jax.data.images import ImageError


def encode(image, format='PNG', **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def smooth(height=24, width=32):
    """A smooth colour picture, so that JPEG changes it little."""
    y, x = np.mgrid[:height, :width]
    channels = [40 + 5 * x, 220 - 6 * y, 60 + 2 * x + 3 * y]
    return np.stack(channels, axis=-1).astype(np.uint8)


def png_header(width, height):
    def chunk(kind, body):
        return (
            struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))
        )

    header = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 1, 0, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + header + chunk(b'IDAT', b'') + chunk(b'IEND', b'')


def test_rgb_is_read_as_it_is():
    picture = smooth()
    decoded = images.decode(encode(Image.fromarray(picture)))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, picture)


@pytest.mark.parametrize('mode', ['1', 'L', 'LA'])
def test_grey_is_repeated(mode):
    grey = Image.fromarray(smooth()[..., 0]).convert(mode)
    expected = np.asarray(grey.convert('L'))
    decoded = images.decode(encode(grey))
    for channel in range(3):
        np.testing.assert_array_equal(decoded[..., channel], expected)
    np.testing.assert_array_equal(images.decode(encode(grey), channels=1)[..., 0], expected)


def test_colour_becomes_grey_by_luma():
    red = Image.new('RGB', (4, 3), (255, 0, 0))
    np.testing.assert_array_equal(images.decode(encode(red), channels=1), np.full((3, 4, 1), 76))


def test_palette_is_looked_up():
    palette = Image.fromarray(smooth()).quantize(16)
    expected = np.asarray(palette.convert('RGB'))
    np.testing.assert_array_equal(images.decode(encode(palette)), expected)


def test_palette_transparency_shows_white():
    palette = Image.new('P', (4, 4), 1)
    palette.putpalette([9, 9, 9, 200, 0, 0])
    palette.putpixel((2, 1), 0)
    decoded = images.decode(encode(palette, transparency=1))
    assert tuple(decoded[0, 0]) == (255, 255, 255)
    assert tuple(decoded[1, 2]) == (9, 9, 9)


def test_alpha_is_composited_on_white_or_kept():
    colours = np.zeros((2, 3, 4), np.uint8)
    colours[..., :3] = 100
    colours[..., 3] = (0, 128, 255)
    png = encode(Image.fromarray(colours))
    np.testing.assert_allclose(images.decode(png)[0, :, 0], (255, 177, 100), atol=1)
    np.testing.assert_array_equal(images.decode(png, channels=4), colours)
    opaque = images.decode(encode(Image.fromarray(smooth())), channels=4)
    assert (opaque[..., 3] == 255).all()


def test_cmyk_keeps_its_colours():
    cmyk = encode(Image.fromarray(smooth()).convert('CMYK'), 'JPEG', quality=95)
    np.testing.assert_allclose(images.decode(cmyk).mean((0, 1)), smooth().mean((0, 1)), atol=2)


@pytest.mark.parametrize('format', ['PNG', 'TIFF'])
def test_sixteen_bits_are_scaled(format):
    wide = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    decoded = images.decode(encode(Image.fromarray(wide), format))
    np.testing.assert_array_equal(decoded[..., 1], np.rint(wide / 257))
    assert len(np.unique(decoded)) > 200


@pytest.mark.parametrize('dtype', [np.int32, np.float32])
def test_pixels_without_a_range_are_refused(dtype):
    tiff = encode(Image.fromarray(np.ones((4, 4), dtype)), 'TIFF')
    with pytest.raises(ImageError, match='no agreed range'):
        images.decode(tiff)


def test_exif_orientation_is_applied():
    picture = Image.fromarray(smooth())
    turned = {
        1: picture,
        2: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: picture.transpose(Image.Transpose.ROTATE_180),
        4: picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: picture.transpose(Image.Transpose.TRANSPOSE),
        6: picture.transpose(Image.Transpose.ROTATE_90),
        7: picture.transpose(Image.Transpose.TRANSVERSE),
        8: picture.transpose(Image.Transpose.ROTATE_270),
    }
    for orientation, stored in turned.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        png = encode(stored, exif=exif)
        np.testing.assert_array_equal(images.decode(png), smooth(), err_msg=str(orientation))
        assert images.read_size(png) == (24, 32)


@pytest.mark.parametrize(
    'format', ['WEBP', 'GIF', 'JPEG', 'BMP', 'TIFF', 'PPM', 'JPEG2000', 'AVIF']
)
def test_the_content_decides_not_the_extension(tmp_path, format):
    if format not in images.FORMATS:
        pytest.skip(f'this Pillow has no {format}')
    path = tmp_path / 'picture.png'
    path.write_bytes(encode(Image.fromarray(smooth()), format))
    decoded = images.decode(path)
    np.testing.assert_allclose(decoded.mean((0, 1)), smooth().mean((0, 1)), atol=3)


def test_formats_that_run_programs_are_refused():
    with pytest.raises(ImageError, match='not an image'):
        images.decode(encode(Image.fromarray(smooth()), 'EPS'))


@pytest.mark.parametrize('share', [0.02, 0.5, 0.9])
@pytest.mark.parametrize('format', ['JPEG', 'PNG'])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, share, format):
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    whole = encode(Image.fromarray(noise), format)
    path = tmp_path / 'cut.jpg'
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ImageError, match=r'cut\.jpg: '):
        images.decode(path)


@pytest.mark.parametrize(
    'content, reason',
    [
        (b'', 'empty file'),
        (b'<html><head>404</head></html>', r'not an image \(starts with "<html>'),
        (b'\x00\x05\x16\x07' + bytes(100), 'not an image'),
    ],
)
def test_what_is_no_image_says_so(tmp_path, content, reason):
    path = tmp_path / 'page.jpg'
    path.write_bytes(content)
    for read in (images.decode, images.read_size):
        with pytest.raises(ImageError, match=rf'page\.jpg: {reason}') as caught:
            read(path)
        assert '\n' not in str(caught.value)


def test_paths_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / 'pipe.jpg')
    (tmp_path / 'broken.jpg').symlink_to(tmp_path / 'nowhere')
    (tmp_path / 'loop.jpg').symlink_to(tmp_path / 'loop.jpg')
    for name, reason in {
        'pipe.jpg': 'not a regular file',
        '.': 'not a regular file',
        'broken.jpg': 'No such file',
        'loop.jpg': 'Too many levels',
    }.items():
        with pytest.raises(ImageError, match=reason):
            images.decode(tmp_path / name)


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
@pytest.mark.parametrize('side', [10_000, 20_000])
def test_bombs_are_refused_from_their_header(side):
    bomb = png_header(side, side)  # without pixels: only the header can have been read
    for read in (images.decode, images.read_size):
        with pytest.raises(ImageError, match='pixels'):
            read(bomb, name='bomb.png')


def test_max_pixels_is_a_limit_not_a_size():
    png = encode(Image.new('L', (10, 10)))
    assert images.decode(png, max_pixels=100).shape == (10, 10, 3)
    with pytest.raises(ImageError, match='10 x 10 pixels, over the limit of 99'):
        images.decode(png, max_pixels=99)


def test_unknown_channels_are_refused():
    with pytest.raises(ValueError, match='channels is 2; it must be 1'):
        images.decode(encode(Image.new('L', (2, 2))), channels=2)


def test_lossy_rules_are_said_once(caplog):
    images._noted.clear()
    png = encode(Image.new('RGBA', (2, 2)))
    with caplog.at_level('WARNING'):
        images.decode(png, name='first.png')
        images.decode(png, name='second.png')
    assert len(caplog.records) == 1
    assert 'first.png: transparency is composited on white' in caplog.text


def test_on_white_is_pillows_composition():
    colour, alpha = np.indices((256, 256), np.uint8)
    every = np.stack([colour, 255 - colour, colour, alpha], axis=-1)
    picture = Image.fromarray(every)
    expected = Image.alpha_composite(Image.new('RGBA', picture.size, 'white'), picture)
    np.testing.assert_array_equal(images.on_white(every), np.asarray(expected)[..., :3])
    np.testing.assert_array_equal(images.on_white(every[None])[0], images.on_white(every))


def test_centre_crop_leaves_out_as_much_on_both_sides():
    image = np.arange(35).reshape(5, 7, 1)
    np.testing.assert_array_equal(images.centre_crop(image, (3, 4)), image[1:4, 1:5])
    assert images.centre_crop(image, (5, 7)).shape == (5, 7, 1)


def test_a_warning_of_pillow_names_the_file(monkeypatch, caplog):
    monkeypatch.setattr(warnings, 'showwarning', images._show_warning)
    exif = Image.Exif()
    exif[0x0112] = 6
    broken = exif.tobytes()[:-10]
    jpeg = encode(Image.fromarray(smooth()), 'JPEG', exif=broken)
    with warnings.catch_warnings():
        warnings.simplefilter('always')
        images.decode(jpeg, name='horse.jpg')
    assert 'horse.jpg: ' in caplog.text and 'EXIF' in caplog.text


@pytest.mark.parametrize('channels', [1, 3, 4])
def test_resize_is_pillows_antialiased_bicubic(channels):
    picture = images.decode(encode(Image.fromarray(smooth(40, 60))), channels)
    expected = Image.fromarray(picture[..., 0] if channels == 1 else picture)
    expected = np.asarray(expected.resize((20, 30), Image.Resampling.BICUBIC))
    resized = images.resize(picture, (30, 20))
    assert resized.shape == (30, 20, channels)
    np.testing.assert_array_equal(resized.squeeze(), expected)
    # Antialiased: a fine checkerboard becomes grey, not a coarser checkerboard.
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[..., None]
    assert np.ptp(images.resize(checks, (8, 8)).astype(int)[1:-1, 1:-1]) < 8


@pytest.mark.parametrize(
    'mode, size, expected, crops',
    [
        ('resize_and_crop', (100, 300), (286, 290), True),
        ('crop', (100, 300), (100, 300), True),
        ('scale_width', (145, 580), (256, 290), False),  # 72.5 high, but never below the crop
        ('scale_width', (1220, 1500), (256, 290), False),
        ('scale_width', (1500, 1000), (435, 290), False),
        ('scale_width_and_crop', (1502, 1000), (435, 290), True),  # 435.58, rounded down
        ('none', (257, 314), (256, 312), False),  # to even multiples, as Python rounds
        ('none', (259, 1), (260, 4), False),
    ],
)
def test_resize_modes_of_the_reference(mode, size, expected, crops):
    assert images.resized_size(mode, size, (286, 290), (256, 240)) == expected
    assert images.crops(mode) == crops


def test_sizes_may_be_one_number_or_two():
    assert images.as_size('data.load_size', 286) == (286, 286)
    assert images.as_size('data.load_size', [64, 128]) == (64, 128)
    for bad in (0, -4, (64,), (64, 0), (64, 64, 3), 64.0):
        with pytest.raises(ValueError, match=r'data\.load_size is .*; it must be a positive int'):
            images.as_size('data.load_size', bad)
