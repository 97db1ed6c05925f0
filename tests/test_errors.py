"""Messages: what is chosen from, what is left out of a long list, what a number must be."""

import pytest

from cyclegan_jax import errors


@pytest.mark.parametrize(
    ('items', 'text'),
    [
        ([], ''),
        (['a', 'b'], 'a, b'),
        (['a', 'b', 'c', 'd'], 'a, b, c, d'),
        ('abcdef', 'a, b, c, d, and 2 more'),
    ],
)
def test_a_shortlist_says_how_many_more_there_are(items, text):
    assert errors.shortlist(items) == text


def test_a_choice_suggests_what_may_have_been_meant():
    errors.check_choice('data.resize', 'crop', ('crop', 'none'))
    with pytest.raises(errors.UserError) as error:
        errors.check_choice('data.resize', 'corp', ('crop', 'none'))
    assert str(error.value) == (
        "data.resize is 'corp'; choose one of 'crop', 'none' (did you mean 'crop'?)."
    )


@pytest.mark.parametrize('value', [0, -1, float('nan')])
def test_a_number_below_its_bound_is_refused(value):
    errors.check_at_least('batch_size', 1, 1)
    with pytest.raises(errors.UserError, match=f'batch_size is {value}; it must be at least 1'):
        errors.check_at_least('batch_size', value, 1)


def test_an_error_of_a_library_becomes_one_line():
    assert errors.describe(RuntimeError('first\n  second')) == 'first second'
    assert errors.describe(RuntimeError()) == 'RuntimeError'
    assert len(errors.describe(RuntimeError('x' * 1000))) == 300
