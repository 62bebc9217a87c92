"""Losses against values computed by hand, or once more in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uda_jax import losses
from uda_jax.errors import UserError
from uda_jax.losses.pixels import kth_smallest


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


@pytest.mark.parametrize("k", [1, 2, 7, 30, 59, 60])
def test_kth_smallest_is_that_of_a_sort(k):
    values = np.random.default_rng(0).normal(size=(6, 10)).astype(np.float32)
    values[0] = np.array([0, 0, -0.0, 1e-40, -1e-40, 3e38, -3e38, np.inf, -np.inf, 1])
    values[1:3] = values[3]
    assert kth_smallest(jnp.array(values), k) == np.sort(values, None)[k - 1]
    gradient = jax.grad(lambda x: kth_smallest(x, k))(jnp.array(values))
    assert not np.any(gradient)


@pytest.mark.parametrize(
    ("dtype", "k"), [("float32", 0), ("float32", 5), ("bfloat16", 1), ("int32", 1)]
)
def test_kth_smallest_of_what_cannot_be(dtype, k):
    with pytest.raises(ValueError, match=f"k={k} of 4 values of {dtype}"):
        kth_smallest(jnp.zeros((2, 2), dtype), k)


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


# --- MaxSquare and ADVENT -------------------------------------------------------------

HALF = jnp.log(jnp.array([0.5, 0.25, 0.25]))
SURE = jnp.array([1e4, 0.0, 0.0])


def test_entropies_and_squares_of_two_pixels():
    logits = jnp.stack([HALF, SURE])[None, None]
    nats = 1.5 * np.log(2)  # the entropy of HALF; that of SURE is 0
    normalized, per_class, squares = (
        loss(logits)
        for loss in (
            losses.normalized_entropy,
            losses.soft_cross_entropy,
            losses.squared_probabilities,
        )
    )
    np.testing.assert_allclose(normalized, nats / np.log(3) / 2, rtol=1e-6)
    np.testing.assert_allclose(per_class, nats / 3 / 2, rtol=1e-6)
    np.testing.assert_allclose(squares, -(0.375 + 1) / 2 / 6, rtol=1e-6)
    information = losses.self_information(logits)
    expected = np.array([0.5, 0.5, 0.5]) * np.log(2) / np.log(3)
    np.testing.assert_allclose(information[0, 0, 0], expected, rtol=1e-6)
    np.testing.assert_array_equal(information[0, 0, 1], 0)


def image_by_image(logits, ratio, value):
    """-sum_hw w_c sum_c value(p) / C for each image, and then their mean."""
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    total = 0.0
    for image in probs:
        prediction = image.argmax(-1)
        for c in np.unique(prediction):
            mine = image[prediction == c]
            weight = 1 / max(len(mine) ** ratio * prediction.size ** (1 - ratio), 1)
            total -= weight * value(mine).sum() / image.shape[-1]
    return total / len(probs)


@pytest.mark.parametrize("ratio", [0.2, 1.0])
@pytest.mark.parametrize("batch", [1, 2, 4, 5])  # 4 is the number of classes too
def test_every_image_has_its_own_weights(batch, ratio):
    logits = np.random.RandomState(batch).randn(batch, 6, 5, 4) * 2
    logits[0, :3, :, 1] += 5  # classes that are more and less frequent

    @jax.jit
    def both(logits):
        weights = losses.image_wise_weights(logits, ratio)
        return (
            losses.squared_probabilities(logits, weights),
            losses.soft_cross_entropy(logits, weights),
        )

    squares, entropy = both(logits)
    expected = image_by_image(logits, ratio, np.square)
    np.testing.assert_allclose(squares, expected, rtol=1e-5)
    expected = image_by_image(logits, ratio, lambda p: p * np.log(p))
    np.testing.assert_allclose(entropy, expected, rtol=1e-5)


def test_ratio_zero_is_twice_the_plain_squares():
    logits = jax.random.normal(jax.random.key(0), (2, 4, 6, 5))
    weights = losses.image_wise_weights(logits, 0.0)
    np.testing.assert_allclose(weights, 1 / 24, rtol=1e-6)
    weighted = losses.squared_probabilities(logits, weights)
    plain = losses.squared_probabilities(logits)
    np.testing.assert_allclose(weighted, 2 * plain, rtol=1e-6)
    weighted = losses.soft_cross_entropy(logits, weights)
    np.testing.assert_allclose(weighted, losses.soft_cross_entropy(logits), rtol=1e-6)


def test_pseudo_labels_compare_with_greater():
    logits = jnp.stack([HALF, SURE])
    np.testing.assert_array_equal(losses.pseudo_label(logits, 0.5), [255, 0])
    np.testing.assert_array_equal(losses.pseudo_label(logits, 0.4), [0, 0])


def test_guidance_takes_the_surer_head_and_the_mean_of_both():
    main = jnp.log(jnp.array([[0.6, 0.3, 0.1], [0.4, 0.35, 0.25], [0.4, 0.3, 0.3]]))
    aux = jnp.log(jnp.array([[0.1, 0.9, 1e-9], [0.3, 0.1, 0.6], [0.4, 0.3, 0.3]]))
    label = losses.guidance_label(main, aux, 0.55)
    np.testing.assert_array_equal(label, [1, 2, 255])


def test_domain_losses_by_hand():
    scores = jnp.array([0.0, np.log(3.0)])  # probabilities of the target 1/2 and 3/4
    source, target = (losses.domain_loss(scores, domain) for domain in (0, 1))
    np.testing.assert_allclose(source, (np.log(2) + np.log(4)) / 2, rtol=1e-6)
    np.testing.assert_allclose(target, (np.log(2) - np.log(0.75)) / 2, rtol=1e-6)
    for domain in (0, 1):
        value = losses.domain_loss(jnp.array([0.0, 3.0]), domain, "least_squares")
        assert value == (domain**2 + (3 - domain) ** 2) / 2
    with pytest.raises(UserError, match="vanilla, least_squares"):
        losses.domain_loss(scores, 0, "wasserstein")
