"""What can be read off a compiled program without running it.

All numbers are of one device: there is one program, and each device runs it on its share.
"""

import math
import re
from collections.abc import Mapping

Collectives = Mapping[str, Mapping[str, int]]

_KINDS = (
    'all-reduce',
    'all-gather',
    'all-to-all',
    'collective-broadcast',
    'collective-permute',
    'ragged-all-to-all',
    'reduce-scatter',
)
# '%name = TYPE all-reduce(...)'. An asynchronous one is a pair, 'all-reduce-start' and
# 'all-reduce-done', of which the second gives the result.
_COLLECTIVE = re.compile(rf'= (.+?) ({"|".join(_KINDS)})(?:-done)?\(')
# 'bf16[3,3,64,128]': TYPE is one of these, or a tuple of them.
_ARRAY = re.compile(r'\b[a-z]+(\d*)\w*\[([\d,]*)\]')


def flops(compiled) -> float:
    """Floating-point operations, as XLA counts them; those in a loop once."""
    return compiled.cost_analysis()['flops']


def memory(compiled) -> dict[str, int]:
    """Bytes of the arguments, of temporaries, and of all that is held at once.

    Results that take the place of donated arguments add nothing to it.
    """
    stats = compiled.memory_analysis()
    arguments, temporaries = stats.argument_size_in_bytes, stats.temp_size_in_bytes
    results = stats.output_size_in_bytes - stats.alias_size_in_bytes
    return {
        'arguments': arguments,
        'temporaries': temporaries,
        'total': arguments + results + temporaries,
    }


def collectives(hlo: str) -> dict[str, dict[str, int]]:
    """For each kind of collective in a program's text: {'count', 'values', 'bytes'}.

    Values and bytes are those of the results; what stands in a loop is counted once.
    """
    found = {}
    for arrays, kind in _COLLECTIVE.findall(hlo):
        total = found.setdefault(kind, {'count': 0, 'values': 0, 'bytes': 0})
        total['count'] += 1
        for bits, sides in _ARRAY.findall(arrays):
            values = math.prod(int(side) for side in sides.split(',') if side)
            total['values'] += values
            total['bytes'] += values * int(bits or 8) // 8  # 'pred' has no number, and 8 bits
    return found


def in_words(found: Collectives) -> str:
    """'1 all-reduce, 2.50 MiB', for each kind; 'none' if there is none."""
    kinds = [
        f'{total["count"]} {kind}, {total["bytes"] / 2**20:.2f} MiB'
        for kind, total in sorted(found.items())
    ]
    return '; '.join(kinds) or 'none'
