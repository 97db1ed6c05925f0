"""What is read off a compiled program, where the answer is known, and what is made of it."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from cyclegan_jax import sharding

sys.path.append(str(Path(__file__).parents[1] / 'benchmarks'))
import plan
import scaling
import tpu_compile
from compiled import collectives, flops, in_words, memory

MESH = sharding.make_mesh(8)
SPLIT, REPLICATED = sharding.split(MESH), sharding.replicated(MESH)


def on_eight_devices(function, places=SPLIT, result=REPLICATED, **kwargs):
    """Compiled for x (8, 512), float32, split over the devices, unless `places` says otherwise."""
    x = jax.ShapeDtypeStruct((8, 512), jnp.float32)
    jitted = jax.jit(function, in_shardings=places, out_shardings=result, **kwargs)
    return jitted.lower(x).compile()


def test_a_sum_over_the_batch_is_one_all_reduce():
    program = on_eight_devices(lambda x: jnp.sum(x, axis=0))
    assert collectives(program.as_text()) == {
        'all-reduce': {'count': 1, 'values': 512, 'bytes': 2048}
    }


def test_what_stays_on_its_device_has_no_collectives():
    program = on_eight_devices(lambda x: 2 * x, result=SPLIT)
    assert collectives(program.as_text()) == {}


def test_a_copy_for_everyone_is_an_all_gather():
    program = on_eight_devices(lambda x: 2 * x)
    found = collectives(program.as_text())
    assert found == {'all-gather': {'count': 1, 'values': 8 * 512, 'bytes': 4 * 8 * 512}}


# As XLA writes them for TPUs and GPUs: tiled layouts, tuples with numbered entries, pairs.
@pytest.mark.parametrize(
    ('line', 'expected'),
    [
        (
            '%all-reduce.7 = (f32[3,3,8]{2,1,0:T(8,128)S(1)}, bf16[4]{0:T(256)(128)(2,1)}, '
            '/*index=2*/f32[]{:T(128)}) all-reduce(%a.1, %b, /*index=2*/%c), channel_id=1',
            {'all-reduce': {'count': 1, 'values': 72 + 4 + 1, 'bytes': 288 + 8 + 4}},
        ),
        (
            '%start = (f32[16]{0}, pred[3]{0}) all-reduce-start(%a, %b), to_apply=%add\n'
            '  ROOT %done = (f32[16]{0}, pred[3]{0}) all-reduce-done(%start)',
            {'all-reduce': {'count': 1, 'values': 19, 'bytes': 64 + 3}},
        ),
        (
            '%start = (f32[2]{0}, f32[16]{0}) all-gather-start(%a), dimensions={0}\n'
            '  %done = f32[16]{0} all-gather-done(%start)\n'
            '  %again = f8e4m3fn[16]{0} all-gather(%b), dimensions={0}',
            {'all-gather': {'count': 2, 'values': 32, 'bytes': 64 + 16}},
        ),
        ('%x = f32[3]{0} get-tuple-element(%all-reduce.7), index=0', {}),
        ('%y = f32[3]{0} fusion(%all-reduce.7), calls=%fused', {}),
    ],
)
def test_text(line, expected):
    assert collectives(f'ENTRY %main {{\n  {line}\n}}\n') == expected


def test_in_words():
    found = {
        'all-reduce': {'count': 2, 'values': 2**18, 'bytes': 2**20},
        'all-gather': {'count': 1, 'values': 2**17, 'bytes': 2**19},
    }
    assert in_words(found) == '1 all-gather, 0.50 MiB; 2 all-reduce, 1.00 MiB'
    assert in_words({}) == 'none'


def test_operations_are_those_of_one_device():
    def product(x):
        return x @ jnp.ones((512, 512))

    whole = flops(on_eight_devices(product, places=REPLICATED))
    assert whole == pytest.approx(2 * 8 * 512 * 512, rel=0.01)
    assert flops(on_eight_devices(product, result=SPLIT)) == pytest.approx(whole / 8, rel=0.01)


def test_memory_counts_a_donated_argument_once():
    share = 512 * 4
    copied = memory(on_eight_devices(lambda x: 2 * x, result=SPLIT))
    assert copied['arguments'] == share
    assert copied['total'] == 2 * share + copied['temporaries']
    donated = memory(on_eight_devices(lambda x: 2 * x, result=SPLIT, donate_argnums=0))
    assert donated['total'] == share + donated['temporaries']


def mesh_of(devices, flops=100.0, memory=1000, **kinds):
    """A row of benchmarks/scaling.py for a mesh that has one image on each device."""
    total = {'count': 1, 'values': 10, 'bytes': 40}
    found = {} if devices == 1 else {'all-reduce': total, **kinds}
    return {
        'devices': devices,
        'batch': devices,
        'flops': flops,
        'memory_bytes': {'total': memory},
        'collectives': found,
    }


def test_scaling_complains_of_what_grows():
    level = [mesh_of(n) for n in (1, 2, 8)]
    assert not list(scaling._complaints(level))
    assert not list(scaling._complaints([*level, mesh_of(64, flops=100.9, memory=900)]))
    [complaint] = scaling._complaints([*level, mesh_of(64, flops=200.0)])
    assert complaint.startswith('operations an image grow: 100 with 2 devices, 200 with 64')
    [complaint] = scaling._complaints([*level, mesh_of(64, memory=1100)])
    assert complaint.startswith('bytes of memory grow: 1000 with 2 devices, 1100 with 64')
    gathered = {'all-gather': {'count': 1, 'values': 0, 'bytes': 0}}
    count, kind = scaling._complaints([*level, mesh_of(64, **gathered)])
    assert count.startswith('collectives grow: 1 with 2 devices, 2 with 64')
    assert kind == '64 devices (batch 64) have 1 all-gather, 0.00 MiB'


def test_tpu_compile_complains_of_what_is_more_than_the_gradients():
    def complaints(**kinds):
        result = {'topology': 'v5e:4x4', 'gradient_values': 90, 'metric_values': 10}
        return list(tpu_compile._complaints({**result, 'collectives': kinds}))

    total = {'count': 1, 'values': 100, 'bytes': 400}
    assert not complaints()
    assert not complaints(**{'all-reduce': total})
    [complaint] = complaints(**{'all-reduce': {**total, 'values': 101}})
    assert complaint.startswith(
        'v5e:4x4: 101 values are summed over the devices, where there are 90'
    )
    [complaint] = complaints(**{'all-reduce': total, 'all-to-all': {**total, 'count': 2}})
    assert complaint == 'v5e:4x4: beside all-reduces there are 2 all-to-all, 0.00 MiB'


HLO = """HloModule jit_step

%fused (param_0: bf16[8,4], param_1: f32[4]) -> f32[4] {
  %param_0 = bf16[8,4]{1,0} parameter(0)
  %slice.1 = bf16[1,4]{1,0} slice(%param_0), slice={[0:1], [0:4]}
  %param_1 = f32[4]{0} parameter(1)
  ROOT %add.1 = f32[4]{0} add(%param_1, %param_1)
}

ENTRY %main (x: bf16[8,4], y: f32[4]) -> (f32[4], bf16[8,4]) {
  %x = bf16[8,4]{1,0} parameter(0)
  %y = f32[4]{0} parameter(1)
  %fusion.1 = f32[4]{0} fusion(%x, %y), kind=kLoop, calls=%fused, metadata={op_name="jit(f)/block_3/conv_0/add"}, backend_config={"estimated_cycles":"70"}
  %conv = (bf16[8,4]{1,0}, u8[16]{0}) custom-call(%x, %fusion.1), custom_call_target="__cudnn$convForward", metadata={op_name="jit(f)/in/jit(conv)/conv_general_dilated"}, backend_config={"estimated_cycles":"30"}
  %part = bf16[8,4]{1,0} get-tuple-element(%conv), index=0
  ROOT %tuple = (f32[4]{0}, bf16[8,4]{1,0}) tuple(%fusion.1, %part)
}
"""  # noqa: E501


def test_a_plan_is_read_instruction_by_instruction():
    """Of `x` the fusion reads one row: 8 of its 64 bytes."""
    assert list(plan.instructions(HLO)) == [
        plan.Instruction('fusion', 'add', 'block_3/conv_0', False, 8 + 16 + 16, 70),
        plan.Instruction('custom-call', 'conv_general_dilated', 'in', True, 64 + 16 + 64 + 16, 30),
    ]
    totals = plan.sums(plan.instructions(HLO), lambda i: i.layer, lambda i: i.cycles)
    assert totals == {'block_3/conv_0': 70, 'in': 30}
    first, rest = plan.in_lines(totals, unit=10, most=1)
    assert first.split() == ['7.00', '70%', 'block_3/conv_0']
    assert rest.split() == ['3.00', '30%', 'all', 'others']
