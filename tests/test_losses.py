import jax.numpy as jnp
import numpy as np
import pytest

from cyclegan_jax import losses

LOGITS = jnp.array([[-1.0, 0.5], [2.0, 0.0]])


@pytest.mark.parametrize(
    ('kind', 'expected'),
    [
        ('lsgan', (4 + 0.25 + 1 + 1) / 4),
        ('vanilla', np.mean(np.log1p(np.exp([1.0, -0.5, -2.0, 0.0])))),
        ('hinge', -1.5 / 4),
    ],
)
def test_generator_loss_by_hand(kind, expected):
    np.testing.assert_allclose(losses.generator_adversarial(kind, LOGITS), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ('kind', 'expected'),
    [
        ('lsgan', 0.5 * ((4 + 0.25 + 1 + 1) / 4 + 9)),
        (
            'vanilla',
            0.5 * (np.mean(np.log1p(np.exp([1.0, -0.5, -2.0, 0.0]))) + np.log1p(np.exp(3))),
        ),
        ('hinge', 0.5 * ((2 + 0.5 + 0 + 1) / 4 + 4)),
    ],
)
def test_discriminator_loss_by_hand(kind, expected):
    fake = jnp.full((3, 5), 3.0)
    np.testing.assert_allclose(
        losses.discriminator_adversarial(kind, LOGITS, fake), expected, rtol=1e-6
    )


def test_vanilla_loss_stays_finite_for_certain_discriminators():
    assert np.isfinite(losses.generator_adversarial('vanilla', jnp.array([-1e4])))


def test_l1_is_a_mean_over_everything():
    x, y = jnp.zeros((2, 3, 4, 5)), jnp.full((2, 3, 4, 5), -2.0)
    np.testing.assert_allclose(losses.l1(x, y.at[0].set(0.0)), 1, rtol=1e-6)


def test_a_term_of_weight_0_is_left_out(monkeypatch):
    """What a new term costs, and its NaN, are no concern of a run that does not ask for it."""
    monkeypatch.setitem(losses.TERMS, 'dear', lambda outputs, gan: pytest.fail('it is computed'))
    images = {domain: jnp.ones((1, 2, 2, 3)) for domain in 'ab'}
    halves = {domain: jnp.full((1, 2, 2, 3), 0.5) for domain in 'ab'}
    outputs = losses.Outputs(images, images, halves, {}, {})
    weights = {'adversarial': 0, 'cycle': 10, 'identity': 0, 'dear': 0}
    assert losses.generator_terms(outputs, 'lsgan', weights) == {
        'cycle_a': 5,
        'cycle_b': 5,
        'total': 10,
    }
