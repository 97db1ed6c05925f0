import contextlib
import json
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from cyclegan_jax import data
from cyclegan_jax.data import sources, synthetic
from cyclegan_jax.errors import UserError

# Eight images per domain; the red channel of a is 10 i, of b 100 + 10 i: it tells which they are.
STARTS = {'trainA': 0, 'trainB': 100, 'testA': 5, 'testB': 105}


@pytest.fixture
def root(tmp_path):
    for split, start in STARTS.items():
        for i in range(8 if split.startswith('train') else 2):
            write(tmp_path / split / f'{i}.png', start + 10 * i)
    return tmp_path


def write(path, red, size=(16, 16)):
    path.parent.mkdir(exist_ok=True)
    picture = np.zeros((*size, 3), np.uint8)
    picture[..., 0] = red
    # Green and blue tell the place, so that a crop and a flip can be read from the picture.
    picture[..., 1], picture[..., 2] = np.indices(size)
    Image.fromarray(picture).save(path)


def load(root, **options):
    defaults = {'path': str(root), 'resize': 'crop', 'crop_size': 8, 'seed': 0, 'batch_size': 1}
    return data.load(**defaults | options)


def take(dataset, count, start=0):
    with contextlib.closing(dataset.batches(start=start)) as batches:
        batches = [next(batches) for _ in range(count)]
    return {d: np.stack([batch[d] for batch in batches]) for d in 'ab'}


def numbers(batches):
    """Which image each element is, in order."""
    return batches[..., 0, 0, 0].ravel().tolist()


def assert_equal(first, second):
    for domain in 'ab':
        np.testing.assert_array_equal(first[domain], second[domain])


def as_processes(count, function):
    """What `function(index, gather)` returns in threads that stand for processes."""
    parts, outcomes, met = [None] * count, [None] * count, threading.Barrier(count)

    def run(index):
        def gather(mine):
            parts[index] = mine
            met.wait(10)
            found = [*parts]
            met.wait(10)
            return found

        try:
            outcomes[index] = function(index, gather)
        except UserError as error:
            outcomes[index] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_each_process_decodes_its_share_at_the_start_and_the_batches_are_those_of_one(root):
    def part(index, gather):
        dataset = load(
            root, batch_size=4, process_index=index, process_count=2, gather=gather, num_threads=1
        )
        decoded = sum(image is not None for split in dataset.train.values() for image in split.kept)
        return decoded, take(dataset, 6)

    (first, one), (second, other) = as_processes(2, part)
    assert first == second == 8, 'half of 16'
    both = {d: np.concatenate([one[d], other[d]], axis=1) for d in 'ab'}
    assert_equal(both, take(load(root, batch_size=4), 6))


def test_what_one_process_finds_unusable_all_know(root):
    (root / 'trainB' / '3.png').write_bytes((root / 'trainB' / '3.png').read_bytes()[:60])

    def part(index, gather):
        return load(
            root, batch_size=2, process_index=index, process_count=2, gather=gather, skip_corrupt=on
        )

    on = False
    told = as_processes(2, part)
    assert len({str(error) for error in told}) == 1 and "1 of 20 images can't be used" in str(
        told[0]
    )
    on = True
    one, other = as_processes(2, part)
    assert one.left_out == other.left_out == {'a': [], 'b': [3]}
    assert one.fingerprint == other.fingerprint and one.skipped == other.skipped


def test_each_epoch_shows_every_image_once_in_a_new_order(root):
    (root / 'trainB' / '7.png').unlink()  # lengths 8 and 7: epochs of their own
    dataset = load(root)
    assert dataset.lengths == {'a': 8, 'b': 7}
    assert dataset.epoch_length == 8
    seen = take(dataset, 56)
    a = np.reshape(numbers(seen['a']), (7, 8))
    b = np.reshape(numbers(seen['b']), (8, 7))
    for epochs, start, length in ((a, 0, 8), (b, 100, 7)):
        for epoch in epochs:
            assert sorted(epoch) == [start + 10 * i for i in range(length)]
        assert len({tuple(epoch) for epoch in epochs}) > 5


def test_domains_are_shuffled_and_cropped_independently(root):
    seen = take(load(root), 64)
    a, b = numbers(seen['a']), numbers(seen['b'])
    assert np.mean(np.array(a) == np.array(b) - 100) < 0.5
    # Nor may b be a with a delay of whole epochs.
    epochs_a, epochs_b = np.reshape(a, (8, 8)), np.reshape(b, (8, 8)) - 100
    for delay in range(1, 4):
        assert (epochs_a[delay:] != epochs_b[:-delay]).any()
        assert (epochs_b[delay:] != epochs_a[:-delay]).any()
    assert (seen['a'][..., 1:] != seen['b'][..., 1:]).any(axis=(1, 2, 3, 4)).mean() > 0.9


def test_crops_and_flips_are_uniform(root):
    seen = take(load(root), 160)['a'][:, 0]
    flipped = seen[:, 0, 0, 2] > seen[:, 0, -1, 2]
    assert 0.35 < flipped.mean() < 0.65
    top, left = seen[..., 1].min(axis=(1, 2)), seen[..., 2].min(axis=(1, 2))
    for corner in (top, left):
        assert set(corner) == set(range(9))  # 16 - 8 + 1 places
    assert not np.array_equal(top, left)
    # Every picture is a window of the stored one, mirrored or not.
    rows, columns = np.indices((8, 8))
    for picture, y, x, mirrored in zip(seen, top, left, flipped, strict=True):
        np.testing.assert_array_equal(picture[..., 1], rows + y)
        np.testing.assert_array_equal(
            picture[..., 2], (columns[:, ::-1] if mirrored else columns) + x
        )
    unflipped = take(load(root, flip=False), 20)['a'][:, 0]
    assert (unflipped[:, 0, 0, 2] < unflipped[:, 0, -1, 2]).all()


def test_the_seed_decides(root):
    assert_equal(take(load(root, seed=3), 20), take(load(root, seed=3), 20))
    assert numbers(take(load(root, seed=3), 20)['a']) != numbers(take(load(root, seed=4), 20)['a'])


@pytest.mark.parametrize('options', [{'num_threads': 0}, {'num_threads': 7}, {'cache': 0}])
def test_threads_and_cache_change_nothing(root, options):
    expected = take(load(root, batch_size=2), 12)
    assert_equal(take(load(root, batch_size=2, **options), 12), expected)


@pytest.mark.parametrize('num_threads', [0, 4])
def test_batches_start_at_any_step(root, num_threads):
    expected = take(load(root, batch_size=2), 8)
    for start in (0, 1, 5):
        seen = take(load(root, batch_size=2, num_threads=num_threads), 8 - start, start)
        assert_equal(seen, {d: expected[d][start:] for d in 'ab'})


def test_batches_are_placed_by_the_threads_that_make_them(root):
    threads = []

    def place(batch):
        threads.append(threading.current_thread())
        return {domain: images + 1 for domain, images in batch.items()}

    expected = take(load(root), 2)
    batches = load(root).batches(place=place)
    for t in range(2):
        assert_equal(next(batches), {domain: expected[domain][t] + 1 for domain in 'ab'})
    batches.close()
    assert threading.current_thread() not in threads


@pytest.mark.parametrize('process_count', [2, 4])
def test_processes_get_consecutive_slices_of_one_global_batch(root, process_count):
    expected = take(load(root, batch_size=4), 6)
    parts = [
        take(load(root, batch_size=4, process_index=i, process_count=process_count), 6)
        for i in range(process_count)
    ]
    assert parts[0]['a'].shape[1] == 4 // process_count
    assert_equal({d: np.concatenate([p[d] for p in parts], axis=1) for d in 'ab'}, expected)
    with pytest.raises(ValueError, match='batch_size is 3; it must be a multiple of the 2 proc'):
        load(root, batch_size=3, process_count=2)


def test_test_images_are_not_augmented(root):
    dataset = load(root)
    assert not dataset.test_split_missing
    assert dataset.test_names == {
        d: [str(root / f'test{d.upper()}' / f'{i}.png') for i in range(2)] for d in 'ab'
    }
    test = dataset.test()
    assert numbers(test['a']) == [5, 15] and numbers(test['b']) == [105, 115]
    assert (test['a'][0, 0, 0, 1:] == 4).all()  # the centre crop
    assert dataset.test(1)['b'].shape == (1, 8, 8, 3)
    assert not dataset.paired and dataset.test_labels() is None


def test_test_images_are_resized_straight_to_the_crop_size(root):
    dataset = load(root, resize='resize_and_crop', load_size=(12, 10), crop_size=(8, 6))
    expected = data.resize(data.decode(root / 'testA' / '0.png'), (8, 6))
    np.testing.assert_array_equal(dataset.test()['a'][0], expected)
    assert dataset.image_size == (8, 6)
    assert next(dataset.batches())['a'].shape == (1, 8, 6, 3)


@pytest.mark.parametrize('split', ['', 'nowhere'])
def test_training_images_stand_in_for_missing_test_images(root, split):
    dataset = load(root, test_split_b=split, max_images=3, resize='resize_and_crop', load_size=12)
    assert dataset.test_split_missing
    test = dataset.test()
    assert numbers(test['a']) == [5, 15] and numbers(test['b']) == [100, 110, 120]
    # Uncut, as any test image.
    expected = data.resize(data.decode(root / 'trainB' / '0.png'), (8, 8))
    np.testing.assert_array_equal(test['b'][0], expected)


def test_channels_may_differ(root):
    dataset = load(root, channels_a=1, channels_b=4)
    batch = next(dataset.batches())
    assert (batch['a'].shape, batch['b'].shape) == ((1, 8, 8, 1), (1, 8, 8, 4))
    assert dataset.channels == {'a': 1, 'b': 4}
    assert dataset.test()['a'].shape == (2, 8, 8, 1)


def test_max_images_takes_the_first(root):
    dataset = load(root, max_images=3)
    assert dataset.lengths == {'a': 3, 'b': 3}
    assert set(numbers(take(dataset, 9)['a'])) == {0, 10, 20}


def test_a_single_image_is_enough(root):
    assert numbers(take(load(root, max_images=1), 4)['b']) == [100] * 4


def test_fingerprint_notices_training_images_only(root):
    def fingerprint(**options):
        return load(root, **options).fingerprint

    first = fingerprint()
    assert first == fingerprint(seed=5, cache=0)
    assert first != fingerprint(max_images=4)
    write(root / 'testA' / 'new.png', 0)
    assert first == fingerprint()
    write(root / 'trainB' / 'new.png', 0)
    assert first != fingerprint()


@pytest.mark.parametrize('resize', ['none', 'scale_width'])
def test_without_a_crop_all_images_need_one_size(root, resize):
    options = {'resize': resize, 'load_size': 12, 'crop_size': 4}
    dataset = load(root, **options)
    assert dataset.image_size == ((16, 16) if resize == 'none' else (12, 12))
    assert next(dataset.batches())['a'].shape == (1, *dataset.image_size, 3)
    write(root / 'testB' / 'other.png', 0, (32, 24))
    message = rf"resize='{resize}' .*trainA/0\.png becomes .*testB/other\.png becomes .*_and_crop'"
    with pytest.raises(ValueError, match=message) as caught:
        load(root, **options)
    assert '\n' not in str(caught.value)


def test_scale_width_and_crop_keeps_the_aspect(root):
    for split in STARTS:
        write(root / split / 'wide.png', 1, (16, 32))
    dataset = load(root, resize='scale_width_and_crop', load_size=24, crop_size=8)
    assert {i.shape for i in dataset.train['a']} == {(24, 24, 3), (12, 24, 3)}
    assert {i.shape for i in dataset.tests['a']} == {(8, 8, 3)}
    assert next(dataset.batches())['a'].shape == (1, 8, 8, 3)


def spoil(root):
    whole = (root / 'trainA' / '2.png').read_bytes()
    (root / 'trainA' / '2.png').write_bytes(whole[:-30])  # the header is intact
    (root / 'trainB' / '0.png').write_bytes(b'<html>')
    write(root / 'testA' / '1.png', 0, (7, 16))


@pytest.mark.parametrize('cache', [4.0, 0])
def test_all_unusable_images_are_named_at_once(root, cache):
    spoil(root)
    with pytest.raises(ValueError) as caught:
        load(root, cache=cache)
    message = str(caught.value)
    assert '\n' not in message and '--config.data.skip_corrupt=True' in message
    assert 'trainB/0.png: not an image (starts with "<html>")' in message
    assert 'testA/1.png: 7 x 16 is smaller than data.crop_size 8 x 8' in message
    # Without the cache only the headers are read.
    assert ('trainA/2.png' in message) == bool(cache)
    assert message.startswith('3 of 20' if cache else '2 of 20')


def test_of_many_unusable_images_five_are_named(root):
    for i in range(8):
        (root / 'trainA' / f'{i}.png').write_bytes(b'')
    with pytest.raises(ValueError, match=r'8 of 20 .*empty file; and 3 more') as caught:
        load(root)
    assert str(caught.value).count('empty file') == 5


@pytest.mark.parametrize('cache', [4.0, 0])
def test_skip_corrupt_drops_and_lists(root, cache):
    spoil(root)
    dataset = load(root, cache=cache, skip_corrupt=True)
    assert dataset.lengths == {'a': 7, 'b': 7}
    listed = sorted(line.removeprefix(str(root)).split(':')[0] for line in dataset.skipped)
    assert listed == ['/testA/1.png', '/trainA/2.png', '/trainB/0.png']
    assert sorted(numbers(take(dataset, 7)['a'])) == [0, 10, 30, 40, 50, 60, 70]
    assert numbers(dataset.test()['a']) == [5]
    assert load(root, skip_corrupt=True).fingerprint == dataset.fingerprint


def test_a_file_that_vanishes_is_named(root):
    dataset = load(root, cache=0)
    for path in (root / 'trainA').iterdir():
        path.unlink()
    with pytest.raises(data.ImageError, match=r'trainA/\d\.png: No such file'):
        next(dataset.batches())


def test_the_loop_gets_every_batch_before_a_picture_that_goes_bad(root):
    options = {'cache': 0, 'batch_size': 2, 'num_threads': 2}
    expected = take(load(root, **options), 4)
    dataset = load(root, **options)
    gone = f'{numbers(expected["a"])[-1] // 10}.png'  # of the fourth batch, and no other
    whole = (root / 'trainA' / gone).read_bytes()
    (root / 'trainA' / gone).write_bytes(whole[:-30])
    with contextlib.closing(dataset.batches()) as batches:
        for t in range(3):
            assert_equal(next(batches), {d: expected[d][t] for d in 'ab'})
        with pytest.raises(data.ImageError, match=rf'trainA/{gone}: '):
            next(batches)
    (root / 'trainA' / gone).write_bytes(whole)
    again = load(root, **options, left_out=dataset.left_out)
    assert again.is_that_of(dataset.identity)
    assert_equal(take(again, 1, start=3), {d: expected[d][3:] for d in 'ab'})


@pytest.mark.parametrize('cache', [4.0, 0])
def test_a_run_goes_on_in_its_order_without_a_picture_that_went_bad(root, caplog, cache):
    expected = take(load(root), 16)
    dataset = load(root, cache=0, skip_corrupt=True)
    (root / 'trainA' / '7.png').write_bytes(b'shorter')
    with caplog.at_level('WARNING'):
        unbroken = take(dataset, 16)
    assert caplog.text.count('7.png') == 1  # it is shown twice
    replaced = [0 if n == 70 else n for n in numbers(expected['a'])]  # by the next, 7 + 1 - 8
    assert numbers(unbroken['a']) == replaced
    np.testing.assert_array_equal(unbroken['b'], expected['b'])

    saved = json.loads(json.dumps(dataset.identity))  # as a checkpoint keeps it
    resumed = load(root, cache=cache, skip_corrupt=True, left_out=saved['left_out'])
    assert resumed.is_that_of(saved)
    assert resumed.lengths == {'a': 8, 'b': 8}
    assert '7.png' in resumed.skipped[0]
    assert_equal(take(resumed, 10, start=6), {d: unbroken[d][6:] for d in 'ab'})
    with pytest.raises(UserError, match=r'1 of 20 .*trainA/7\.png'):
        load(root, left_out=saved['left_out'])


@pytest.mark.parametrize('resize', ['crop', 'none'])
def test_a_picture_that_changes_its_size_while_training_is_bad(root, resize):
    dataset = load(root, cache=0, max_images=1, resize=resize)
    write(root / 'trainB' / '0.png', 0, (16, 7))
    with pytest.raises(data.ImageError, match=r'trainB/0\.png: 16 x (7|8)'):
        next(dataset.batches())


def test_what_a_run_was_started_without_stays_out(root):
    whole = (root / 'trainA' / '2.png').read_bytes()
    (root / 'trainA' / '2.png').write_bytes(bytes(len(whole)))
    started = load(root, skip_corrupt=True)
    assert started.left_out == {'a': [2], 'b': []}
    (root / 'trainA' / '2.png').write_bytes(whole)
    resumed = load(root, left_out=started.left_out)
    assert resumed.is_that_of(started.identity)
    assert_equal(take(resumed, 14), take(started, 14))
    assert not load(root).is_that_of(started.identity)


def test_checkpoints_without_names_know_their_data_by_the_fingerprint(root):
    """Those of versions that kept no more than that."""
    old = {'fingerprint': load(root).fingerprint}
    assert load(root).is_that_of(old)
    write(root / 'trainA' / '3.png', 1, (20, 20))
    assert not load(root).is_that_of(old)
    (root / 'trainA' / '3.png').write_bytes(b'')
    assert not load(root, skip_corrupt=True, left_out={'a': [], 'b': []}).is_that_of(old)


def test_fingerprints_of_earlier_versions_match(tmp_path):
    """If this changes, runs that were started before can't go on with the data that they have."""
    for split in ('trainA', 'trainB'):
        (tmp_path / split).mkdir()
        for i in range(3):  # a PPM file has the same bytes, whoever writes it
            (tmp_path / split / f'{i}.ppm').write_bytes(b'P6 8 8 255\n' + bytes(192 + i))
    assert load(tmp_path).fingerprint == 'fae22c587029f1be'


def test_if_many_pictures_in_a_row_are_bad_it_is_an_error_in_spite_of_skip_corrupt(root):
    dataset = load(root, cache=0, skip_corrupt=True)
    for path in (root / 'trainA').iterdir():
        path.unlink()
    with pytest.raises(data.ImageError, match=r'trainA/\d\.png: No such file'):
        next(dataset.batches())


@pytest.mark.parametrize('left_out', [None, {'a': [], 'b': []}])
def test_without_a_single_usable_picture_skip_corrupt_says_what_is_wrong(root, left_out):
    for path in root.rglob('*.png'):
        path.write_bytes(b'')
    with pytest.raises(UserError, match=r'20 of 20 .*0\.png: empty file'):
        load(root, resize='none', skip_corrupt=True, left_out=left_out)


def test_pictures_pulled_out_of_shape_are_named(root, caplog):
    write(root / 'trainA' / 'dot.png', 0, (1, 1))
    write(root / 'testB' / 'line.png', 0, (1, 400))
    options = {'resize': 'resize_and_crop', 'load_size': 12}
    with caplog.at_level('WARNING'):
        load(root, **options)
    assert len(caplog.records) == 1
    assert '2 image(s)' in caplog.text
    assert 'dot.png (1 x 1)' in caplog.text and 'line.png (1 x 400)' in caplog.text


def test_a_new_source_is_a_class_and_a_line(monkeypatch):
    class Grey(sources.Source):
        def __init__(self, split: str, name: str, channels: int):
            self._value, self.channels = int(split) + int(name), channels

        def __len__(self):
            return 2

        def name(self, index):
            return f'grey_{index}'

        def fingerprint(self):
            return str(self._value)

        def stored(self, index):
            if index:
                raise RuntimeError('a fault\nof its reader')
            header = b'P5 8 8 255\n'
            return header + bytes([self._value]) * 64

    monkeypatch.setitem(sources.SOURCES, 'grey', Grey)
    options = {'name': '1', 'name_b': '2', 'split_a': '10', 'split_b': '20'}
    options |= {'test_split_a': '', 'test_split_b': '', 'source': 'grey'}
    dataset = load('', **options, skip_corrupt=True)
    assert take(dataset, 1)['a'].max() == 11 and take(dataset, 1)['b'].min() == 22
    assert dataset.skipped == ["grey_1: can't be read (a fault of its reader)"] * 2
    assert not dataset.paired


def test_equal_files_are_warned_of(root, caplog):
    (root / 'testB' / 'same.png').write_bytes((root / 'trainA' / '4.png').read_bytes())
    with caplog.at_level('WARNING'):
        load(root)
    assert '1 file(s) of one split' in caplog.text
    assert 'trainA/4.png' in caplog.text and 'testB/same.png' in caplog.text


@pytest.mark.parametrize(
    'options, message',
    [
        ({'source': 'folders'}, r"data\.source is 'folders'; .*did you mean 'folder'\?"),
        ({'resize': 'scale'}, r"data\.resize is 'scale'; choose one of .*scale_width"),
        ({'crop_size': 0}, r'data\.crop_size is 0; it must be a positive'),
        ({'channels_b': 0}, r'data\.channels_b is 0; it must be at least 1'),
        ({'batch_size': 0}, 'batch_size is 0; it must be at least 1'),
        ({'batch_size': 9}, 'batch_size is 9, but domain a has only 8 usable'),
        ({'max_images': 0}, r'data\.max_images is 0; it must be at least 1'),
        ({'num_threads': -1}, r'data\.num_threads is -1'),
        ({'seed': -1}, 'seed is -1'),
        ({'cache': float('nan')}, r'data\.cache is nan; it must be at least 0'),
        ({'path': '~nosuchuser/x'}, r'no folder ~nosuchuser/x/trainA'),
        (
            {'resize': 'resize_and_crop', 'load_size': 7},
            r'data\.load_size is \(7, 7\), smaller than data\.crop_size \(8, 8\)',
        ),
        ({'resize': 'scale_width_and_crop', 'load_size': 7}, r'data\.load_size is \(7, 7\)'),
        ({'split_b': 'train_b'}, r'no folder .*train_b .*found: testA, testB, trainA, trainB'),
    ],
)
def test_bad_arguments_are_one_clear_line(root, options, message):
    with pytest.raises(UserError, match=message) as caught:
        load(root, **options)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('resize', ['resize_and_crop', 'crop', 'scale_width_and_crop', 'none'])
def test_synthetic_test_images_have_a_known_truth(resize):
    dataset = load(
        '',
        source='synthetic',
        name='stripes',
        resize=resize,
        load_size=40,
        crop_size=32,
        max_images=6,
    )
    assert dataset.paired and not dataset.test_split_missing
    test, labels = dataset.test(4), dataset.test_labels(4)
    assert test['a'].shape == (4, *dataset.image_size, 3)
    assert labels.shape == test['a'].shape[:3]
    animal = labels == synthetic.CLASSES['stripes'].index('animal')
    assert animal.any()
    # The truth differs from the input where the animals are, and hardly elsewhere.
    differs = (test['a'] != test['b']).any(axis=-1)
    assert differs[animal].all() and differs[~animal].mean() < 0.1


def test_synthetic_images_are_drawn_once_each_as_they_are_wanted(monkeypatch):
    drawn = []
    render = synthetic.render
    monkeypatch.setattr(
        synthetic, 'render', lambda *scene: (drawn.append(scene), render(*scene))[1]
    )
    dataset = load('', source='synthetic', name='stripes', load_size=16, crop_size=16, max_images=8)
    assert drawn == []
    take(dataset, 3 * 8)
    assert len(drawn) == len(set(drawn)) == 2 * 8
    assert dataset.skipped == [] and dataset.lengths == {'a': 8, 'b': 8}


def test_synthetic_stripes_keep_their_grid_under_a_flip():
    """Where training crops nothing, stripes must lie as they do in the test images."""
    dataset = load(
        '',
        source='synthetic',
        name='stripes',
        resize='resize_and_crop',
        load_size=64,
        crop_size=64,
        max_images=8,
    )
    batches = take(dataset, 32)['b'][:, 0].astype(float)
    dark = (batches.max(axis=-1) < 40).mean(axis=(0, 1))  # only black stripes are that dark
    by_column = dark.reshape(16, 4).mean(axis=0)
    assert by_column[[1, 2]].min() > 10 * by_column[[0, 3]].max()


def test_an_open_iterator_lets_the_process_end(root):
    code = (
        'from cyclegan_jax import data\n'
        f'dataset = data.load(path={str(root)!r}, crop_size=8, seed=0, batch_size=2)\n'
        'batches = dataset.batches(); next(batches); print("done")'
    )
    result = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stdout.strip()) == (0, 'done'), result.stderr
    assert 'Traceback' not in result.stderr


def test_importing_data_brings_neither_grain_nor_jax():
    code = (
        'import sys; from cyclegan_jax import data; data.decode\n'
        'print(sorted({"grain", "jax", "datasets", "tensorflow_datasets"} & set(sys.modules)))'
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.stdout.strip() == '[]', result.stderr
