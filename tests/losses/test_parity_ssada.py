"""SS-ADA's mined cross-entropy: the original's numbers, and its edges by hand."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uda_jax import losses

GOLDENS = Path(__file__).parents[1] / "goldens" / "tufl_ssada.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDENS) as file:
        return {k[6:]: file[k] for k in file.files if k.startswith("ssada/")}


def value_and_gradient(logits, label, weights=None, **options):
    def loss(z):
        return losses.prob_ohem_cross_entropy(z, label, weights, **options)

    return jax.jit(jax.value_and_grad(loss))(logits)


# 328 of the 360 pixels have a label.
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("min_kept", [50, 326, 329, 1000])
def test_mined_cross_entropy_equals_the_original(golden, min_kept, weighted):
    name = f"probohem_mk{min_kept}" + "_w" * weighted
    value, gradient = value_and_gradient(
        np.moveaxis(golden["z"], 1, -1),
        golden["l"],
        golden["w"] if weighted else None,
        min_kept=min_kept,
    )
    np.testing.assert_allclose(value, golden[name], rtol=1e-5)
    expected = np.moveaxis(golden[f"{name}_grad"], 1, -1)
    np.testing.assert_array_equal(gradient == 0, expected == 0)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6 * scale)


# p of class 0: the probability of each pixel's own class, and one ignored pixel.
PROBS = np.array([0.2, 0.6, 0.8, 0.9, 0.01], np.float32)
LOGITS = jnp.log(np.stack([PROBS, 1 - PROBS], -1))
LABEL = np.array([0, 0, 0, 0, 255])


@pytest.mark.parametrize(
    ("min_kept", "kept"),
    [
        (0, 4),  # no mining
        (1, 2),  # those below 0.7
        (3, 3),  # the threshold rises to 0.8
        (4, 4),
        (5, 4),  # more than have a label: no mining
    ],
)
def test_what_is_kept(min_kept, kept):
    value, gradient = value_and_gradient(LOGITS, LABEL, min_kept=min_kept)
    np.testing.assert_allclose(value, -np.log(PROBS[:kept]).mean(), rtol=1e-5)
    np.testing.assert_array_equal(np.any(gradient != 0, -1), np.arange(5) < kept)


def test_weights_divide_and_do_not_choose():
    label, weights = np.array([0, 1, 0, 0, 255]), np.array([10.0, 1.0], np.float32)
    value, _ = value_and_gradient(LOGITS, label, weights, min_kept=1)
    expected = -(10 * np.log(0.2) + np.log(0.4)) / 11
    np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("min_kept", [0, 2, 100])
def test_nothing_kept_gives_zero(min_kept):
    easy = jnp.where(jnp.arange(2) == 0, 1e4, -1e4) * jnp.ones((5, 1))
    for logits, label, weights in (
        (LOGITS, np.full(5, 255), None),
        (easy, np.full(5, 255, np.uint8), None),
        (LOGITS, LABEL, np.array([0.0, 1.0], np.float32)),
    ):
        value, gradient = value_and_gradient(
            logits, label, weights, min_kept=min_kept, threshold=0.7
        )
        assert value == 0 and not np.any(gradient)


def test_extreme_logits_stay_finite():
    logits = 1e4 * jnp.eye(5) - 1e4 * jnp.eye(5, k=1)
    value, gradient = value_and_gradient(logits, np.array([0, 0, 2, 3, 1]), min_kept=2)
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_ignored_pixels_change_nothing():
    other = LOGITS.at[4].set(jnp.array([5.0, -3.0]))
    for min_kept in (1, 3, 5):
        ours = value_and_gradient(LOGITS, LABEL, min_kept=min_kept)
        theirs = value_and_gradient(other, LABEL, min_kept=min_kept)
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])


def test_compiles_once_however_many_pixels_have_a_label():
    loss = jax.jit(lambda z, y: losses.prob_ohem_cross_entropy(z, y, min_kept=3))
    values = [loss(LOGITS, np.where(np.arange(5) < n, 0, 255)) for n in range(5)]
    assert loss._cache_size() == 1 and np.isfinite(values).all()


def test_min_kept_is_at_least_zero():
    with pytest.raises(ValueError, match="min_kept is -1"):
        losses.prob_ohem_cross_entropy(LOGITS, LABEL, min_kept=-1)
