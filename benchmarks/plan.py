"""What a compiler plans to do: the instructions of a compiled program, and sums over them.

A plan is no time. What it says is exact and the same each time, so that two forms can be compared
where the machine is not at hand. tpu_compile.py and gpu_compile.py share this.
"""

import argparse
import collections
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import measure

# 'bf16[8,256,256,64]{3,0,2,1:T(8,128)}', alone or in a tuple. 'pred' has no number, and 8 bits.
_ARRAY = re.compile(r'\b(?:pred|[a-z]+(\d+)\w*)\[([\d,]*)\]')
_LINE = re.compile(r'\s*(ROOT )?%([\w.-]+) = (\(.*?\)|\S+) ([a-z][\w-]*)\((.*)')
_HEAD = re.compile(r'(ENTRY )?%([\w.-]+) \(.*\{$')
_FREE = {'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all'}
_PART = {'slice', 'dynamic-slice', 'gather'}  # they read no more than they write


_WORKS = ('train_step', 'generator', 'generator_gradient', 'discriminator_gradient')


def add_options(parser: argparse.ArgumentParser) -> None:
    """What is to be compiled, and what is to be told of it."""
    add, number = parser.add_argument, measure.whole_number
    add('--what', default='train_step', choices=_WORKS, help='a network alone is much quicker')
    add('--size', type=number, default='256', metavar='N', help='side of the images')
    add('--batch-per-chip', type=number, default='1', metavar='N', help='images of each domain')
    add('--width', type=number, default='64', metavar='N', help='channels of the first layer')
    add('--blocks', type=number, default='9', metavar='N', help='residual blocks')
    add('--kind', default='resnet', choices=('resnet', 'unet'), help='config.generator.kind')
    choices = ('transpose', 'nearest', 'blur')
    add('--upsample', default='transpose', choices=choices, help='config.generator.upsample')
    add('--dtype', default='bfloat16', choices=('float32', 'bfloat16'), help='of convolutions')
    add('--remat', action='store_true', help='config.generator.remat')
    add('--breakdown', action='store_true', help='also by layer and by kind of operation')


def facts(args: argparse.Namespace) -> dict[str, str | int]:
    """What was asked for, to be kept with the results."""
    names = ('what', 'size', 'width', 'blocks', 'kind', 'upsample', 'dtype', 'remat')
    return {name: getattr(args, name) for name in names}


def lower(args: argparse.Namespace, devices: list) -> tuple:
    """The program asked for, ready for the compiler, and the parameters it trains.

    Raises:
      ValueError: the devices cannot share the batch, or the networks cannot take the images.
    """
    import jax
    import jax.numpy as jnp
    from workloads_jax import build_step

    from cyclegan_jax import ops

    batch = args.batch_per_chip * len(devices)
    names = ('size', 'dtype', 'width', 'blocks', 'remat')
    generator = {'kind': args.kind, 'upsample': args.upsample}
    fields = {name: getattr(args, name) for name in names}
    _, program = build_step(devices, batch=batch, generator=generator, **fields)
    state = program.state
    with ops.target(devices[0].platform), ops.devices(len(devices)):
        if args.what == 'train_step':
            networks = state.generators, state.discriminators
            return program.step.lower(state, program.batch), networks
        network, params = program.networks.generators['a2b'], state.generators['a2b']
        if args.what == 'discriminator_gradient':
            network, params = program.networks.discriminators['a'], state.discriminators['a']
        image = program.batch['a']
        image = jax.ShapeDtypeStruct(image.shape, jnp.float32, sharding=image.sharding)
        function = lambda params, image: network.apply({'params': params}, image)
        if args.what.endswith('gradient'):
            forward = function
            function = jax.grad(lambda *args: jnp.mean(forward(*args)), (0, 1))
        return jax.jit(function).lower(params, image), params


class Instruction(NamedTuple):
    """One of a program's entry computation: on a GPU a kernel, on a TPU a program of its own.

    Attributes:
      kind: what it was in the program that was traced: the last part of XLA's op_name.
      layer: which of the network's layers it belongs to, such as 'block_3/conv_0'; '' if none.
      is_convolution: whether it multiplies matrices.
      bytes: read and written once, if nothing between it and the next is kept in a cache.
      cycles: as libtpu estimates them; 0 by other compilers.
    """

    opcode: str
    kind: str
    layer: str
    is_convolution: bool
    bytes: int
    cycles: int


def instructions(hlo: str) -> Iterator[Instruction]:
    """Those of the optimised program `hlo` that do something; what is in a loop counts once."""
    computations, entry = _computations(hlo)
    types = {name: type_ for name, type_, *_ in computations[entry]}
    for _, type_, opcode, rest in computations[entry]:
        if opcode in _FREE or opcode.endswith('-done'):
            continue
        op_name = _find(r'op_name="([^"]*)"', rest)
        called = computations.get(_find(r'calls=%([\w.-]+)', rest), [])
        operands = re.findall(r'%([\w.-]+)', rest.partition(')')[0])
        read = sum(_read(i, types.get(name, ''), called, opcode) for i, name in enumerate(operands))
        yield Instruction(
            opcode=opcode,
            kind=op_name.rpartition('/')[2] or opcode,
            layer='/'.join(
                re.findall(r'(?<=/)((?:in|out|(?:down|up|block|conv)_\d+))(?=/)', op_name)
            ),
            is_convolution=_is_convolution(opcode, rest, called),
            bytes=read + _size(type_),
            cycles=int(_find(r'"estimated_cycles":"(\d+)"', rest) or 0),
        )


def sums(
    found: Iterable[Instruction],
    group: Callable[[Instruction], str],
    value: Callable[[Instruction], int],
) -> dict[str, int]:
    """`value` in all by group, the largest first."""
    totals = collections.Counter()
    for instruction in found:
        totals[group(instruction)] += value(instruction)
    return dict(totals.most_common())


def in_lines(totals: Mapping[str, int], unit: float, most: int = 12) -> Iterator[str]:
    """A line for each of the largest, in units and per cent, and one for the rest."""
    whole = sum(totals.values()) or 1
    shown = list(totals.items())[:most]
    if rest := whole - sum(value for _, value in shown):
        shown.append(('all others', rest))
    for name, value in shown:
        yield f'{value / unit:12.2f} {value / whole:5.0%}  {name or "-"}'


def print_breakdown(result: Mapping, what: str, unit: float) -> None:
    """The sums of a result by kind of operation and by layer, of which `what` names the unit."""
    for title in ('by_kind', 'by_layer'):
        print(f'{what} {title.replace("_", " ")}:')
        print(*in_lines(result[title], unit), sep='\n', flush=True)


def _computations(hlo: str) -> tuple[dict[str, list[tuple[str, str, str, str]]], str]:
    """By name, the (name, type, opcode, rest of the line) of each instruction; and the entry."""
    found, entry, body = {}, '', []
    for line in hlo.splitlines():
        if head := _HEAD.match(line):
            body = found[head[2]] = []
            entry = head[2] if head[1] else entry
        elif match := _LINE.match(line):
            body.append(match.groups()[1:])
    return found, entry


def _read(index: int, type_: str, called: list, opcode: str) -> int:
    """Bytes that an instruction reads of its operand: fewer where it only looks at a part."""
    whole = _size(type_)
    if opcode in _PART:
        return 0
    for name, _, inner, rest in called:
        if inner == 'parameter' and rest.startswith(f'{index})'):
            users = [
                user for user in called if re.search(rf'%{re.escape(name)}\b(?![.-])', user[3])
            ]
            if users and all(user[2] in _PART for user in users):
                return min(whole, sum(_size(user[1]) for user in users))
    return whole


def _is_convolution(opcode: str, rest: str, called: list) -> bool:
    target = _find(r'custom_call_target="([^"]*)"', rest)
    opcodes = {opcode, *(inner for _, _, inner, _ in called)}
    return bool(opcodes & {'convolution', 'dot'} or re.search('cudnn|cublas', target))


def _size(type_: str) -> int:
    """Bytes of an array, or of all in a tuple."""
    return sum(
        math.prod(int(side) for side in sides.split(',') if side) * int(bits or 8) // 8
        for bits, sides in _ARRAY.findall(type_)
    )


def _find(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else ''
