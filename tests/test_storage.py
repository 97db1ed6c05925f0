"""Files that appear whole or not at all, and files that come from elsewhere."""

import json
import os
from pathlib import Path

import pytest
from disks import full_disk

from cyclegan_jax import storage
from cyclegan_jax.errors import UserError


def test_write_json_replaces_the_file_whole_or_not_at_all(tmp_path):
    path = tmp_path / 'config.json'
    storage.write_json(path, {'seed': 0, 'generator': {'kind': 'resnet', 'width': 64}})
    assert json.loads(path.read_text())['generator'] == {'kind': 'resnet', 'width': 64}
    with pytest.raises(TypeError):
        storage.write_json(path, {'not json': object()})
    assert [entry.name for entry in tmp_path.iterdir()] == ['config.json']
    assert json.loads(path.read_text())['seed'] == 0
    with full_disk(bytes_left=10), pytest.raises(OSError, match='File too large'):
        storage.write_json(path, {'seed': 1})
    assert json.loads(path.read_text())['seed'] == 0
    storage.write_json(path, {'seed': 1})
    assert json.loads(path.read_text()) == {'seed': 1}


def test_a_name_as_long_as_a_file_system_allows_can_be_written(tmp_path):
    path = tmp_path / ('x' * 255)
    storage.write_json(path, {})
    assert storage.read_json(path) == {}


def test_a_file_takes_its_name_only_when_it_is_on_the_disk(tmp_path, monkeypatch):
    """And the folder's list of names is flushed after: a power cut finds old or new."""
    calls = []
    fsync, replace = os.fsync, type(tmp_path).replace

    def record_fsync(handle):
        calls.append(str(Path(f'/proc/self/fd/{handle}').readlink()))
        fsync(handle)

    def record_replace(self, target):
        calls.append('rename')
        return replace(self, target)

    monkeypatch.setattr(os, 'fsync', record_fsync)
    monkeypatch.setattr(type(tmp_path), 'replace', record_replace)
    storage.write_json(tmp_path / 'x.json', {})
    assert calls[0].endswith('.tmp') and calls[1:] == ['rename', str(tmp_path)]


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        (b'', 'no JSON'),
        (b'{"a": 1', 'no JSON'),
        (b'[' * 100_000, 'no JSON'),
        (b'[1]', 'holds a list, not an object'),
        (b'null', 'holds a NoneType'),
        (b'\xff\xfe', 'it is no text'),
        (b' ' * (2**24 + 1), 'has 16777217 bytes'),
        (None, 'cannot be read: No such file'),
    ],
)
def test_what_is_no_json_object_is_told_with_the_name_of_the_file(tmp_path, content, said):
    path = tmp_path / 'best.json'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        storage.read_json(path)
    assert str(path) in str(error.value) and said in str(error.value)


@pytest.mark.parametrize(
    ('found', 'said'),
    [
        ({}, "field 'step' is missing"),
        ({'step': '3'}, "field 'step' is '3'; it must be of type int"),
        ({'step': True}, "field 'step' is True"),
        ({'step': 3, 'value': None}, "field 'value' is None; it must be of type int or float"),
    ],
)
def test_fields_of_other_types_are_named(found, said):
    wanted = {'step': int, 'value': (int, float)}
    storage.check_fields({'step': 3, 'value': 0.5, 'more': []}, wanted, 'best.json')
    with pytest.raises(UserError, match='best') as error:
        storage.check_fields(found, wanted, 'best.json')
    assert said in str(error.value)
