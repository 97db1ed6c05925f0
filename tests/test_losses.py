import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cyclegan_jax import losses, networks
from cyclegan_jax.errors import UserError

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


def test_a_weight_that_relaxes_ends_at_its_share():
    loss = {'adversarial_weight': 1, 'cycle_weight': 10, 'identity_weight': 5}
    assert losses.relaxing_terms(loss | {'cycle_weight_end': None}) == {}
    assert losses.relaxing_terms(loss | {'cycle_weight_end': 3.0}) == {'cycle': 0.3}
    images = {'a': jnp.ones((1, 2, 2, 3))}
    outputs = losses.Outputs(images, images, {'a': jnp.full((1, 2, 2, 3), 0.5)}, {}, {})
    weights = {'adversarial': 0, 'cycle': 10, 'identity': 0}
    terms = losses.generator_terms(outputs, 'lsgan', weights, {'cycle': jnp.float32(0.3)})
    np.testing.assert_allclose(terms['cycle_a'], 1.5, rtol=1e-6)
    for mistake in ({'cycle_weight_end': -1.0}, {'cycle_weight_end': 1.0, 'cycle_weight': 0.0}):
        with pytest.raises(UserError, match=r'loss\.cycle_weight_end is'):
            losses.relaxing_terms(loss | mistake)


def test_each_scale_counts_alike():
    """Whatever the number of its logits."""
    scales = jnp.full((2, 7, 7, 1), 3.0), jnp.full((2, 2, 2, 1), 1.0)
    assert losses.generator_adversarial('lsgan', scales) == (4 + 0) / 2
    zeros = jnp.zeros((2, 7, 7, 1)), jnp.zeros((2, 2, 2, 1))
    assert losses.discriminator_adversarial('lsgan', zeros, scales) == 0.5 * (1 + (9 + 1) / 2)


def test_the_penalty_is_the_squared_slope():
    """By hand of a judge that is a sum of squares, and by differences of one that is a network."""
    images = jnp.array([[1.0, 2.0], [3.0, -1.0]]).reshape(2, 1, 2, 1)
    judge = lambda x: jnp.square(x)  # of each image the mean of two: its gradient is x
    np.testing.assert_allclose(losses.gradient_penalty(judge, images), (5 + 10) / 2, rtol=1e-6)

    network = networks.make_discriminator(kind='two_scale', width=4, num_layers=1)
    image = jax.random.uniform(jax.random.key(0), (1, 12, 12, 1), minval=-1)
    params = jax.jit(network.init)(jax.random.key(1), image)
    params = jax.tree.map(lambda x: 20 * x, params)
    judge = lambda x: network.apply(params, x)
    mean = jax.jit(jax.vmap(lambda x: losses.over_scales(jnp.mean, judge(x))))
    steps = 1e-3 * jnp.eye(image.size).reshape(-1, *image.shape)
    slopes = (mean(image[None] + steps) - mean(image[None] - steps)) / 2e-3
    penalty, gradient = jax.jit(jax.value_and_grad(lambda x: losses.gradient_penalty(judge, x)))(
        image
    )
    assert penalty > 1e-4
    np.testing.assert_allclose(penalty, jnp.sum(jnp.square(slopes)), rtol=2e-2)
    assert jnp.abs(gradient).max() > 0


def test_the_penalty_is_a_mean_over_images():
    judge = lambda x: jnp.sin(x).mean((1, 2, 3))
    images = jax.random.normal(jax.random.key(0), (3, 4, 4, 2))
    each = [losses.gradient_penalty(judge, images[i : i + 1]) for i in range(3)]
    np.testing.assert_allclose(losses.gradient_penalty(judge, images), np.mean(each), rtol=1e-5)


@pytest.mark.parametrize('weight', [-1.0, float('nan')])
def test_a_penalty_of_no_weight_is_told(weight):
    with pytest.raises(UserError, match=f'loss.penalty_weight is {weight}'):
        losses.penalty_weight({'penalty_weight': weight})
