"""What the pixels of a domain are: how many values, of which type, and in which range.

All code between the decoder and the networks asks here. What is stored, and goes to the devices, is
of the domain's own type and in its own units; networks see float32 in [-1, 1].
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cyclegan_jax.errors import UserError, check_at_least, check_choice
from cyclegan_jax.storage import check_fields

DTYPES = ('uint8', 'uint16', 'float32')
RANGES = ('type', 'minmax', 'percentile')
COLOUR_MAPS = ('heat',)

_PICTURES = (1, 3, 4)  # channels that all programs know how to show: grey, RGB, RGBA


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pixels:
    """The pixels of a domain; by default those of photographs, whatever their channels are.

    channels: how many values a pixel has.
    dtype: one of DTYPES, as which pictures are kept, batched and given back.
    low, high: the values that networks see as -1 and 1, one for all channels or one for each;
      () as long as the training set has not been measured.
    domain: 'a' or 'b', for what errors advise.
    measured: one of RANGES: how low and high are found.
    outside: of values outside of low and high: 'clip', or 'refuse' the picture.
    not_finite: of NaN and infinities: 'refuse' the picture, or 'low' takes their place.
    pages: of files with pages or slices: they are 'channels' of one picture, or 'pictures' each.
    names: of the channels, or ().
    shown: numbers of the channels that samples show, one or three (as red, green and blue), or ().
    colours: '' for grey, or one of COLOUR_MAPS, of one channel that is shown.
    window: the values that samples show black and white, or ().
    """

    channels: int = 3
    dtype: str = 'uint8'
    low: tuple[float, ...] = (0.0,)
    high: tuple[float, ...] = (255.0,)
    domain: str = ''
    measured: str = 'type'
    outside: str = 'clip'
    not_finite: str = 'refuse'
    pages: str = 'channels'
    names: tuple[str, ...] = ()
    shown: tuple[int, ...] = ()
    colours: str = ''
    window: tuple[float, ...] = ()

    @property
    def as_pillow(self) -> bool:
        """Whether files are read as pictures to look at: converted to grey, RGB or RGBA."""
        return self.dtype == 'uint8' and self.channels in _PICTURES and self.pages == 'channels'

    @property
    def photographs(self) -> bool:
        """Whether they are what browsers, Pillow and networks trained on photographs take."""
        return self.as_pillow and (self.low, self.high) == ((0.0,), (255.0,))

    @property
    def whole_type(self) -> bool:
        """Whether no value that the type has is outside of the range."""
        return self.dtype != 'float32' and (self.low, self.high) == _type_range(self.dtype)

    @property
    def known(self) -> bool:
        """Whether low and high are."""
        return bool(self.low)

    def comparable(self, other: 'Pixels') -> bool:
        """Whether equal values mean the same in both."""
        if self.photographs and other.photographs:
            return True
        meaning = lambda pixels: (pixels.channels, pixels.dtype, pixels.low, pixels.high)
        return meaning(self) == meaning(other)

    def flag(self, field: str) -> str:
        """How the user sets a field of the config that describes this domain."""
        return f'--config.data.{field}' + (f'_{self.domain}' if self.domain else '')

    def describe(self) -> str:
        """In words, such as '5 channels of uint16, 0 to 4095'."""
        ends = [f'{low:g} to {high:g}' for low, high in zip(self.low, self.high, strict=True)]
        counted = f'{self.channels} channel{"s" if self.channels > 1 else ""}'
        return f'{counted} of {self.dtype}, {"; ".join(ends) or "range not measured yet"}'

    def with_range(self, low: Sequence[float], high: Sequence[float]) -> 'Pixels':
        return dataclasses.replace(self, low=tuple(map(float, low)), high=tuple(map(float, high)))

    def to_float(self, images):
        """Stored values (..., channels) to float32, low to -1 and high to 1; numpy's or JAX's."""
        low, half = self._scale(images.ndim)
        images = images.astype(np.float32)
        if np.any(low):  # one operation less for photographs
            images = images - low
        return images / half - 1

    def to_stored(self, images):
        """float32 (..., channels) in [-1, 1] to stored values; integers are rounded to the nearest.

        What is outside is clipped; the reference would cut fractions off.
        """
        low, half = self._scale(images.ndim)
        values = (images.clip(-1, 1) + 1) * half
        if np.any(low):
            values = values + low
        return values if self.dtype == 'float32' else values.round().astype(self.dtype)

    def _scale(self, ndim: int):
        """low, and half of the range: numbers, or arrays that fit images of so many axes."""
        halves = [(high - low) / 2 for low, high in zip(self.low, self.high, strict=True)]
        if len(halves) == 1:
            return self.low[0], halves[0]
        shape = (1,) * (ndim - 1) + (-1,)
        return (np.array(x, np.float32).reshape(shape) for x in (self.low, halves))

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


PHOTOGRAPHS = Pixels()  # of any number of channels, as far as it matters


def from_json(found: Mapping, where: str) -> Pixels:
    """What `Pixels.to_json` gave, once through JSON. Fields of later programs are passed over.

    Raises:
      UserError: it is something else; `where` says which file.
    """
    kinds = {'channels': int, 'dtype': str, 'low': (list, tuple), 'high': (list, tuple)}
    check_fields(found, kinds, where)
    fields = {field.name for field in dataclasses.fields(Pixels)}
    values = {name: value for name, value in found.items() if name in fields}
    values |= {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
    check_choice(f'{where}: dtype', values['dtype'], DTYPES)
    pixels = Pixels(**values)
    _check_range(where, pixels.low, pixels.high, pixels.channels)
    return pixels


def saved_pixels(metadata: Mapping, where: str) -> dict[str, Pixels] | None:
    """The pixels of {'a', 'b'} that a checkpoint keeps; None if it is of 0.1.0, or there is none.

    Raises:
      UserError: they are damaged; `where` says which checkpoint.
    """
    if 'pixels' not in metadata:
        return None
    check_fields(metadata, {'pixels': dict}, where)
    found = metadata['pixels']
    check_fields(found, {'a': dict, 'b': dict}, f'{where}, pixels')
    return {domain: from_json(found[domain], f'{where}, pixels of {domain}') for domain in 'ab'}


def ends_to_json(ends: Sequence[Pixels]) -> dict[str, list]:
    """What an export keeps of the pixels that a generator takes and gives; {} of photographs."""
    if all(pixels.photographs for pixels in ends):
        return {}
    return {'pixels': [pixels.to_json() for pixels in ends]}


def saved_ends(metadata: Mapping, channels: tuple[int, int], where: str) -> tuple[Pixels, Pixels]:
    """What `ends_to_json` gave.

    Raises:
      UserError: it is damaged; `where` says which file.
    """
    if 'pixels' not in metadata:
        return PHOTOGRAPHS, PHOTOGRAPHS
    check_fields(metadata, {'pixels': list}, where)
    found = metadata['pixels']
    if len(found) != 2 or not all(isinstance(each, dict) for each in found):
        raise UserError(
            f'{where}: pixels are {str(found)[:60]!r}; expected two objects, in and out.'
        )
    source, target = (from_json(each, f'{where}, pixels') for each in found)
    if (source.channels, target.channels) != channels:
        raise UserError(f'{where}: pixels have not {channels} channels, as the network has.')
    return source, target


def make_pixels(
    domain: str,
    *,
    channels: int = 3,
    dtype: str = 'uint8',
    measured: str = 'type',
    ends: Sequence | None = None,
    outside: str = 'clip',
    not_finite: str = 'refuse',
    pages: str = 'channels',
    bands: str = '',
    show: str = '',
    window: Sequence[float] | None = None,
) -> Pixels:
    """The pixels of a domain as config.data describes them.

    Args:
      measured: `data.range`; `ends`, `data.range_a` of the domain, goes before it: (low, high) of
        all channels, or one such pair for each.
      bands: names of the channels, comma-separated.
      show: names or numbers of the channels that samples show: three, or one, which may be followed
        by a colour map ('thermal:heat').
      window: (low, high) that samples show black and white.

    Raises:
      UserError: a value that makes no sense, named as the field of the config.
    """
    name = lambda field: f'data.{field}_{domain}'
    if not isinstance(channels, int) or isinstance(channels, bool):
        raise UserError(f'{name("channels")} is {channels!r}; it must be a whole number.')
    check_at_least(name('channels'), channels, 1)
    check_choice(name('dtype'), dtype, DTYPES)
    check_choice('data.range', measured, RANGES)
    check_choice('data.outside', outside, ('clip', 'refuse'))
    check_choice('data.not_finite', not_finite, ('refuse', 'low'))
    check_choice('data.pages', pages, ('channels', 'pictures'))
    names = tuple(band.strip() for band in bands.split(',')) if bands else ()
    if names and len({*names}) != channels:
        raise UserError(
            f'{name("bands")} names {len({*names})} channels ({bands}), but {name("channels")} is '
            f'{channels}; name each, and each once.'
        )
    low, high = _ends(name('range'), ends, channels) if ends is not None else ((), ())
    if not low and measured == 'type':
        if dtype == 'float32':
            raise UserError(
                f'{name("dtype")} is float32, which has no range of its own; set '
                f'--config.{name("range")}="(low, high)", or --config.data.range=percentile to '
                'measure the training set.'
            )
        low, high = _type_range(dtype)
    listed, _, colours = show.partition(':')
    if colours:
        check_choice(f'the colour map of {name("show")}', colours, COLOUR_MAPS)
    each = listed.split(',') if listed else ()
    shown = tuple(_channel(name('show'), channel.strip(), names, channels) for channel in each)
    if len(shown) not in (0, 1, 3) or (colours and len(shown) == 3):
        raise UserError(
            f'{name("show")} is {show!r}; it must be one channel, one and a colour map '
            "('thermal:heat'), or three for red, green and blue."
        )
    black_white = ()
    if window is not None:
        [black], [white] = _ends(name('window'), window, 1)
        black_white = black, white
    return Pixels(
        channels=channels,
        dtype=dtype,
        low=low,
        high=high,
        domain=domain,
        measured=measured if ends is None else 'type',
        outside=outside,
        not_finite=not_finite,
        pages=pages,
        names=names,
        shown=shown,
        colours=colours,
        window=black_white,
    )


def _type_range(dtype: str) -> tuple[tuple[float], tuple[float]]:
    return (0.0,), (float(np.iinfo(dtype).max),)


def _ends(name: str, ends: Sequence, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(low, high), or such a pair for each channel, as the lows and the highs."""
    pairs = ends if np.ndim(ends) == 2 else [ends]
    try:
        low, high = zip(*((float(low), float(high)) for low, high in pairs), strict=True)
    except (TypeError, ValueError) as error:
        raise UserError(
            f'{name} is {ends!r}; it must be (low, high), or such a pair for each channel.'
        ) from error
    _check_range(name, low, high, channels)
    return low, high


def _check_range(name: str, low: Sequence[float], high: Sequence[float], channels: int) -> None:
    if len(low) != len(high) or len(low) not in (1, channels):
        raise UserError(
            f'{name} has {len(low)} ranges for {channels} channels; it must be (low, high), or '
            'such a pair for each channel.'
        )
    for least, most in zip(low, high, strict=True):
        if not (np.isfinite(least) and np.isfinite(most) and least < most):
            raise UserError(f'{name} is ({least}, {most}); low must be below high, both finite.')


def _channel(name: str, channel: str, names: Sequence[str], channels: int) -> int:
    """The number of a channel, given by its name or as a number from 0."""
    if channel in names:
        return names.index(channel)
    if channel.isdecimal() and int(channel) < channels:
        return int(channel)
    known = f'{", ".join(names)}, or ' if names else ''
    raise UserError(
        f'{name} names channel {channel!r}; there are {known}the numbers 0 to {channels - 1}.'
    )
