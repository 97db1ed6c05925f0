"""What is found wrong with a run before it costs time."""

import json

from cyclegan_jax.checks import compare_configs

CONFIG = {
    'seed': 0,
    'batch_size': 1,
    'max_steps': None,
    'log_every': 100,
    'keep_checkpoints': 2,
    'data': {'path': 'here', 'crop_size': (256, 512), 'num_threads': 4},
    'generator': {'kind': 'resnet', 'width': 64},
    'schedule': {'num_epochs': 200},
}

MAY_CHANGE = (
    'max_steps',
    'log_every',
    'keep_checkpoints',
    'schedule.num_epochs',
    'data.path',
    'data.num_threads',
)


def changed(**fields):
    return CONFIG | {
        name: CONFIG[name] | value if isinstance(value, dict) else value
        for name, value in fields.items()
    }


def test_the_same_config_read_back_from_json_is_equal():
    assert compare_configs(json.loads(json.dumps(CONFIG)), CONFIG, MAY_CHANGE) == ([], [])


def test_fields_that_decide_the_run_conflict_and_all_are_named():
    current = changed(
        seed=1, batch_size=8, generator={'width': 32, 'kind': 'unet'}, data={'crop_size': 128}
    )
    conflicts, changes = compare_configs(CONFIG, current, MAY_CHANGE)
    assert conflicts == [
        'seed: checkpoint has 0, config asks 1',
        'batch_size: checkpoint has 1, config asks 8',
        'data.crop_size: checkpoint has [256, 512], config asks 128',
        'generator.kind: checkpoint has resnet, config asks unet',
        'generator.width: checkpoint has 64, config asks 32',
    ]
    assert changes == []


def test_a_run_may_be_longer_or_elsewhere_and_report_otherwise():
    current = changed(
        max_steps=10,
        log_every=5,
        keep_checkpoints=9,
        schedule={'num_epochs': 300},
        data={'path': 'there', 'num_threads': 1},
    )
    conflicts, changes = compare_configs(CONFIG, current, MAY_CHANGE)
    assert conflicts == []
    assert 'schedule.num_epochs: checkpoint has 200, config asks 300' in changes
    assert len(changes) == 6


def test_a_field_that_only_one_version_of_the_program_knows_does_not_stop_a_run():
    assert compare_configs(CONFIG, changed(generator={'attention': True}), MAY_CHANGE) == (
        [],
        ['generator.attention: new'],
    )
    assert compare_configs(changed(old=1), CONFIG, MAY_CHANGE) == ([], ['old: no longer there'])
