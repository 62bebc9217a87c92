"""Losses: parity with TUFL's numbers (values and gradients), and their properties."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uda_jax import losses
from uda_jax.class_weights import class_weights
from uda_jax.errors import UserError

GOLDENS = Path(__file__).parent / "goldens" / "tufl_ssada.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDENS) as file:
        return {k[5:]: file[k] for k in file.files if k.startswith("tufl/")}


def last(x):
    return np.moveaxis(x, 1, -1)


def check(golden, name, loss, *logits, gradients):
    value, gradient = jax.jit(jax.value_and_grad(loss, range(len(logits))))(*logits)
    np.testing.assert_allclose(value, golden[name], rtol=1e-5)
    for ours, key in zip(gradient, gradients, strict=True):
        theirs = last(golden[key])
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * scale)


SINGLE = {
    "ce_regular": lambda z, y, w: losses.cross_entropy(z, y, w),
    "ohem_n20": lambda z, y, w: losses.ohem_cross_entropy(z, y, w, min_kept=20),
    "ohem_n155": lambda z, y, w: losses.ohem_cross_entropy(z, y, w, min_kept=155),
    "entropy": lambda z, y, w: losses.entropy(z, w, threshold=0.8),
    "entropy_ohem25": lambda z, y, w: losses.entropy(
        z, w, threshold=0.8, top_ratio=0.25
    ),
    "square": lambda z, y, w: losses.max_square(z, w, threshold=0.8, legacy_sign=True),
    "confi_entropy": lambda z, y, w: losses.confidence_entropy(z, w, threshold=0.8),
}


@pytest.mark.parametrize("name", SINGLE)
def test_one_view_equals_the_original(golden, name):
    label, weights = golden["in_lb"], golden["w13"]
    check(
        golden,
        name,
        lambda z: SINGLE[name](z, label, weights),
        last(golden["in_zb"]),
        gradients=[f"{name}_grad"],
    )


PAIR = {
    "nce": losses.neutral_cross_entropy,
    "nce_ohem25": lambda *a: losses.neutral_cross_entropy(*a, top_ratio=0.25),
    "focal_g1": lambda *a: losses.unsup_focal(*a, gamma=1.0),
    "focal_g2": lambda *a: losses.unsup_focal(*a, gamma=2.0),
}


@pytest.mark.parametrize("name", PAIR)
def test_two_views_equal_the_original(golden, name):
    weights = golden["w13"]
    check(
        golden,
        name,
        lambda b, a: PAIR[name](b, a, losses.confident(b, 0.8), weights),
        last(golden["in_zb"]),
        last(golden["in_za"]),
        gradients=[f"{name}_gb", f"{name}_ga"],
    )


def test_pixel_weighted_cross_entropy_equals_the_original(golden):
    value = losses.cross_entropy(
        last(golden["in_zb"]),
        golden["in_lb"],
        golden["w13"],
        pixel_weights=golden["pixw"],
    )
    np.testing.assert_allclose(value, golden["ce_pixw"], rtol=1e-5)


@pytest.mark.parametrize("num_classes", [13, 16, 19])
@pytest.mark.parametrize("name", ["small", "middle", "large"])
def test_class_weights_equal_the_original(golden, name, num_classes):
    weights = class_weights(name, num_classes)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, golden[f"cw_{num_classes}_{name}"], rtol=1e-6)


def test_class_weights_of_other_class_counts():
    np.testing.assert_array_equal(class_weights("none", 11), np.ones(11))
    np.testing.assert_array_equal(class_weights((1.0, 2.0), 2), [1, 2])
    with pytest.raises(UserError, match=r"13, 16, 19 classes but not for 11"):
        class_weights("middle", 11)
    with pytest.raises(UserError, match=r'did you mean "middle"'):
        class_weights("midle", 13)
    with pytest.raises(UserError, match="each of the 3 classes"):
        class_weights((1.0, 2.0), 3)


# --- hand-computed values -----------------------------------------------------------


def test_cross_entropy_by_hand():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]))
    label = jnp.array([0, 1, 255], jnp.uint8)
    weights = jnp.array([2.0, 3.0, 1.0])
    total = -2 * np.log(0.5) - 3 * np.log(0.8)
    everything = losses.cross_entropy(logits, label, weights)
    np.testing.assert_allclose(everything, total / 3, rtol=1e-6)
    valid = losses.cross_entropy(logits, label, weights, normaliser="valid")
    np.testing.assert_allclose(valid, total / 2, rtol=1e-6)
    with pytest.raises(ValueError, match="normaliser"):
        losses.cross_entropy(logits, label, normaliser="labelled")


def test_entropy_and_squares_by_hand():
    uniform = jnp.zeros((4, 4))
    np.testing.assert_allclose(losses.entropy(uniform), np.log(4), rtol=1e-6)
    np.testing.assert_allclose(losses.max_square(uniform), -1 / 8, rtol=1e-6)
    np.testing.assert_allclose(losses.confidence_entropy(uniform), 1, rtol=1e-6)


def test_top_ratio_keeps_the_largest_of_the_masked():
    values = jnp.array([5.0, 1.0, 9.0, 3.0, 7.0])
    mask = jnp.array([True, True, False, True, True])
    np.testing.assert_allclose(losses.confident_mean(values, mask, 0.5), 6)
    np.testing.assert_allclose(losses.confident_mean(values, mask), 4)
    assert losses.confident_mean(values, mask, 0.2) == 0  # floor(4 * 0.2) = 0 pixels


def test_ohem_needs_fewer_pixels_than_there_are():
    with pytest.raises(ValueError, match="min_kept"):
        losses.ohem_cross_entropy(jnp.zeros((4, 3)), jnp.zeros(4, int), min_kept=4)


def test_confident_compares_with_greater_per_class():
    logits = jnp.log(jnp.array([[0.75, 0.25], [0.25, 0.75]]))
    np.testing.assert_array_equal(losses.confident(logits, 0.5), [True, True])
    thresholds = jnp.array([0.9, 0.5])
    np.testing.assert_array_equal(losses.confident(logits, thresholds), [False, True])
    half = jnp.zeros((1, 2))
    assert not losses.confident(half, 0.5)[0]


# --- properties ---------------------------------------------------------------------


def on_all(loss):
    return lambda z: loss(z, z[::-1], jnp.ones(z.shape[:-1], bool))


UNSUPERVISED = {
    "entropy": losses.entropy,
    "entropy_top": lambda z: losses.entropy(z, top_ratio=0.5),
    "max_square": losses.max_square,
    "confidence_entropy": losses.confidence_entropy,
    "neutral_ce": on_all(losses.neutral_cross_entropy),
    "focal": on_all(losses.unsup_focal),
    "focal_g1": on_all(lambda *a: losses.unsup_focal(*a, gamma=1.0)),
    "focal_error": on_all(lambda *a: losses.unsup_focal(*a, modulator="error")),
}
SUPERVISED = {
    "cross_entropy": losses.cross_entropy,
    "valid": lambda z, y: losses.cross_entropy(z, y, normaliser="valid"),
    "ohem": lambda z, y: losses.ohem_cross_entropy(z, y, min_kept=2),
}


@pytest.mark.parametrize("name", UNSUPERVISED)
def test_extreme_logits_stay_finite(name):
    logits = jnp.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0], [0.0, 0.0, 1e4]] * 2)
    value, gradient = jax.value_and_grad(UNSUPERVISED[name])(logits)
    assert np.isfinite(value) and np.all(np.isfinite(gradient))


@pytest.mark.parametrize("name", SUPERVISED)
def test_extreme_logits_stay_finite_supervised(name):
    logits = jnp.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0], [0.0, 0.0, 1e4]])
    label = jnp.array([1, 1, 255])
    value, gradient = jax.value_and_grad(SUPERVISED[name])(logits, label)
    assert np.isfinite(value) and np.all(np.isfinite(gradient))


@pytest.mark.parametrize("name", SUPERVISED)
def test_ignored_pixels_change_nothing(name):
    logits = jax.random.normal(jax.random.key(0), (6, 4))
    label = jnp.array([0, 255, 2, 3, 255, 1], jnp.uint8)
    other = logits.at[jnp.array([1, 4])].set(50.0)
    value, gradient = jax.value_and_grad(SUPERVISED[name])(logits, label)
    assert value == SUPERVISED[name](other, label)
    np.testing.assert_array_equal(gradient[jnp.array([1, 4])], 0)


@pytest.mark.parametrize("name", SUPERVISED)
def test_all_ignored_gives_zero_and_no_gradient(name):
    logits = jax.random.normal(jax.random.key(0), (6, 4))
    label = jnp.full(6, 255, jnp.uint8)
    value, gradient = jax.value_and_grad(SUPERVISED[name])(logits, label)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


def test_empty_mask_gives_zero_and_no_gradient():
    logits = jax.random.normal(jax.random.key(0), (6, 4))
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


@pytest.mark.parametrize("name", ["entropy", "max_square"])
def test_confidence_lowers_the_loss(name):
    logits = jax.random.normal(jax.random.key(0), (20, 5))
    assert UNSUPERVISED[name](3 * logits) < UNSUPERVISED[name](logits)
    step = logits - jax.grad(UNSUPERVISED[name])(logits)
    before, after = (jax.nn.softmax(z).max(-1).mean() for z in (logits, step))
    assert after > before


def test_legacy_sign_of_squares_flattens():
    logits = jax.random.normal(jax.random.key(0), (20, 5))
    legacy = losses.max_square(logits, legacy_sign=True)
    assert legacy == -losses.max_square(logits) > 0


def test_pair_gradients_are_those_of_entropy_and_focal_cross_entropy():
    keys = jax.random.split(jax.random.key(1))
    before, after = (jax.random.normal(k, (30, 5)) for k in keys)
    mask = jnp.ones(30, bool)
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
