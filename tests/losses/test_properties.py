"""What every loss has in common, and what it asks for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uda_jax import losses

# One shape for all of them: every operation compiles once.
SHAPE = (6, 5)
EXTREME = 1e4 * jnp.eye(*SHAPE) - 1e4 * jnp.eye(*SHAPE, 1)


def on_all(loss):
    return lambda z: loss(z, z[::-1], jnp.ones(z.shape[:-1], bool))


def image_wise(loss):
    """The loss of one image whose pixels stand in a row."""
    return lambda z: loss(z[None, None], losses.image_wise_weights(z[None, None]))


# Losses whose minimum is a certain prediction.
CONFIDENT = {
    "entropy": losses.entropy,
    "max_square": losses.max_square,
    "normalized_entropy": losses.normalized_entropy,
    "soft_ce": losses.soft_cross_entropy,
    "soft_ce_image_wise": image_wise(losses.soft_cross_entropy),
    "squares": losses.squared_probabilities,
    "squares_image_wise": image_wise(losses.squared_probabilities),
}
UNSUPERVISED = {
    **CONFIDENT,
    "entropy_top": lambda z: losses.entropy(z, top_ratio=0.5),
    "confidence_entropy": losses.confidence_entropy,
    "neutral_ce": on_all(losses.neutral_cross_entropy),
    "focal": on_all(losses.unsup_focal),
    "focal_g1": on_all(lambda *a: losses.unsup_focal(*a, gamma=1.0)),
    "focal_error": on_all(lambda *a: losses.unsup_focal(*a, modulator="error")),
    "fooling": lambda z: losses.domain_loss(z, 0),
    "fooling_least_squares": lambda z: losses.domain_loss(z, 1, "least_squares"),
}
SUPERVISED = {
    "cross_entropy": losses.cross_entropy,
    "valid": lambda z, y: losses.cross_entropy(z, y, normaliser="valid"),
    "ohem": lambda z, y: losses.ohem_cross_entropy(z, y, min_kept=2),
}


@pytest.mark.parametrize("name", UNSUPERVISED)
def test_extreme_logits_stay_finite(name):
    value, gradient = jax.value_and_grad(UNSUPERVISED[name])(EXTREME)
    assert np.isfinite(value) and np.all(np.isfinite(gradient))


@pytest.mark.parametrize("name", SUPERVISED)
def test_extreme_logits_stay_finite_supervised(name):
    label = jnp.array([1, 1, 255, 0, 4, 2])
    value, gradient = jax.value_and_grad(SUPERVISED[name])(EXTREME, label)
    assert np.isfinite(value) and np.all(np.isfinite(gradient))


@pytest.mark.parametrize("name", SUPERVISED)
def test_ignored_pixels_change_nothing(name):
    logits = jax.random.normal(jax.random.key(0), SHAPE)
    label = jnp.array([0, 255, 2, 3, 255, 1], jnp.uint8)
    other = logits.at[jnp.array([1, 4])].set(50.0)
    value, gradient = jax.value_and_grad(SUPERVISED[name])(logits, label)
    assert value == SUPERVISED[name](other, label)
    np.testing.assert_array_equal(gradient[jnp.array([1, 4])], 0)


@pytest.mark.parametrize("name", SUPERVISED)
def test_all_ignored_gives_zero_and_no_gradient(name):
    logits = jax.random.normal(jax.random.key(0), SHAPE)
    label = jnp.full(6, 255, jnp.uint8)
    value, gradient = jax.value_and_grad(SUPERVISED[name])(logits, label)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


def test_empty_mask_gives_zero_and_no_gradient():
    logits = jax.random.normal(jax.random.key(0), SHAPE)
    nothing = jnp.zeros(6, bool)
    terms = [
        lambda z: losses.entropy(z, threshold=2.0),
        lambda z: losses.entropy(z, threshold=2.0, top_ratio=0.5),
        lambda z: losses.max_square(z, threshold=2.0),
        lambda z: losses.confidence_entropy(z, threshold=2.0),
        lambda z: losses.neutral_cross_entropy(z, 2 * z, nothing),
        lambda z: losses.unsup_focal(z, 2 * z, nothing),
    ]
    for term in terms:
        value, gradient = jax.value_and_grad(term)(logits)
        assert value == 0
        np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("name", CONFIDENT)
def test_confidence_lowers_the_loss(name):
    logits = jax.random.normal(jax.random.key(0), SHAPE)
    assert CONFIDENT[name](3 * logits) < CONFIDENT[name](logits)
    step = logits - jax.grad(CONFIDENT[name])(logits)
    before, after = (jax.nn.softmax(z).max(-1).mean() for z in (logits, step))
    assert after > before


def test_image_wise_weights_pass_no_gradient():
    logits = jax.random.normal(jax.random.key(0), SHAPE)
    weights = losses.image_wise_weights(logits[None, None])
    through = jax.grad(image_wise(losses.squared_probabilities))(logits)
    fixed = jax.grad(lambda z: losses.squared_probabilities(z[None, None], weights))(
        logits
    )
    np.testing.assert_array_equal(through, fixed)


def test_rare_classes_pull_more():
    logits = jnp.zeros(SHAPE).at[0, 0].set(1.0).at[1:, 1].set(1.0)
    gradient = jax.grad(image_wise(losses.squared_probabilities))(logits)
    rare, frequent = np.abs(gradient[0]).max(), np.abs(gradient[1:]).max()
    np.testing.assert_allclose(rare / frequent, 5**0.2, rtol=1e-5)


@pytest.mark.parametrize("gan", ["vanilla", "least_squares"])
def test_domains_are_at_the_two_ends(gan):
    scores = jnp.zeros(3)
    to_source, to_target = (
        -jax.grad(losses.domain_loss)(scores + 0.5, domain, gan) for domain in (0, 1)
    )
    assert np.all(to_source < 0) and np.all(to_target > 0)


@pytest.mark.parametrize("name", CONFIDENT)
def test_bfloat16_logits_give_float32_losses(name):
    logits = jax.random.normal(jax.random.key(0), SHAPE).astype(jnp.bfloat16)
    value = CONFIDENT[name](logits)
    assert value.dtype == jnp.float32
    assert value == CONFIDENT[name](logits.astype(jnp.float32))


def test_legacy_sign_of_squares_flattens():
    logits = jax.random.normal(jax.random.key(0), SHAPE)
    legacy = losses.max_square(logits, legacy_sign=True)
    assert legacy == -losses.max_square(logits) > 0


def test_pair_gradients_are_those_of_entropy_and_focal_cross_entropy():
    keys = jax.random.split(jax.random.key(1))
    before, after = (jax.random.normal(k, SHAPE) for k in keys)
    mask = jnp.ones(6, bool)
    weights = jnp.arange(1.0, 6)
    to_before, _ = jax.grad(losses.unsup_focal, (0, 1))(before, after, mask, weights)
    entropy = jax.grad(losses.entropy)(before, weights)
    np.testing.assert_allclose(to_before, entropy, rtol=1e-4, atol=1e-6)


def test_focal_fades_where_views_agree():
    before = jnp.array([[4.0, 0.0, 0.0]])
    mask = jnp.ones(1, bool)
    agree = losses.unsup_focal(before, before, mask)
    differ = losses.unsup_focal(before, -before, mask)
    plain = losses.neutral_cross_entropy(before, before, mask)
    np.testing.assert_allclose(agree, 1e-8)
    assert differ > 0.1 and plain > 0.1
