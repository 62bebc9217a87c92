"""Losses of MaxSquare and ADVENT against the originals' numbers, with gradients."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uda_jax import losses

GOLDENS = Path(__file__).parents[1] / "goldens" / "maxsquare_advent.json"
C = 19


@pytest.fixture(scope="module")
def golden():
    return json.loads(GOLDENS.read_text())


def draw(seed, scale, shape=(1, C, 8, 12)):
    """The originals' NCHW logits, channels last."""
    x = np.random.RandomState(seed).randn(*shape) * scale
    return np.moveaxis(x.astype(np.float32), 1, -1)


LOGITS = draw(10, 3)
LABEL = np.random.RandomState(11).randint(-1, C, (1, 8, 12))


def image_wise(loss, ratio):
    return lambda z: loss(z, losses.image_wise_weights(z, ratio))


LOSSES = {
    "ce_ignore_-1": lambda z: losses.cross_entropy(z, LABEL, normaliser="valid"),
    "advent_ce2d_255": lambda z: losses.cross_entropy(
        z, np.where(LABEL < 0, 255, LABEL), normaliser="valid"
    ),
    "maxsquare": losses.squared_probabilities,
    "iw_maxsquare_r0.2": image_wise(losses.squared_probabilities, 0.2),
    "iw_maxsquare_r0.5": image_wise(losses.squared_probabilities, 0.5),
    "soft_ce_entropy": losses.soft_cross_entropy,
    "iw_soft_ce_r0.2": image_wise(losses.soft_cross_entropy, 0.2),
    "advent_entropy_loss": losses.normalized_entropy,
    "advent_prob2entropy_mean": lambda z: jnp.mean(losses.self_information(z)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_equal_the_original(golden, name):
    value, gradient = jax.jit(jax.value_and_grad(LOSSES[name]))(LOGITS)
    recorded = golden[name]
    np.testing.assert_allclose(value, recorded["loss"], rtol=1e-5)
    gradient = np.asarray(gradient, np.float64)
    np.testing.assert_allclose(
        np.abs(gradient).sum(), recorded["grad_abs_sum"], rtol=1e-5
    )
    # Single entries may be far below the largest: their rounding is that of the sums.
    atol = 1e-6 * np.abs(gradient).max()
    for mine, key in (
        (gradient[0, 0, :3, 0], "grad[0,0,0,0:3]"),
        (gradient[0, 3, 4, 5], "grad[0,5,3,4]"),
    ):
        np.testing.assert_allclose(mine, recorded[key], rtol=1e-5, atol=atol)


def test_edge_cases_equal_the_original(golden):
    one_hot = 1e4 * jnp.eye(C)[jnp.array([[[3, 3], [3, 3]]])]
    uniform = jnp.zeros((1, 2, 2, C))
    weighted = image_wise(losses.squared_probabilities, 0.2)
    for value, key in (
        (losses.normalized_entropy(one_hot), "entropy_onehot"),
        (losses.normalized_entropy(uniform), "entropy_uniform"),
        (losses.squared_probabilities(one_hot), "ms_onehot"),
        (losses.squared_probabilities(uniform), "ms_uniform"),
        (weighted(one_hot), "iw_onehot"),
    ):
        np.testing.assert_allclose(value, golden[key], rtol=1e-5, err_msg=key)


def test_class_counts_equal_the_original(golden):
    counts = np.array(golden["argmax_hist"])
    weights = losses.image_wise_weights(LOGITS, 0.2)
    expected = 1 / np.maximum(counts**0.2 * 96**0.8, 1)
    np.testing.assert_allclose(weights, expected[LOGITS.argmax(-1)], rtol=1e-6)


def test_image_wise_weights_of_as_many_images_as_classes(golden):
    # The original multiplied the weights of image n with class n here.
    logits = draw(12, 1, (3, 3, 4, 4))
    value = image_wise(losses.squared_probabilities, 0.2)(logits)
    np.testing.assert_allclose(value, golden["iw_N==C==3_fixed"], rtol=1e-5)
    weights = losses.image_wise_weights(logits, 0.2)
    squares = jax.nn.softmax(logits) ** 2
    wrong = -jnp.sum(jnp.moveaxis(weights, 0, -1) * squares) / 9
    np.testing.assert_allclose(wrong, golden["iw_N==C==3_buggy"], rtol=1e-5)


@pytest.mark.parametrize("threshold", ["0.95", "0.80", "0.50"])
def test_guidance_equals_the_original(golden, threshold):
    recorded = golden[f"guidance_th{threshold}"]
    main, aux = draw(10, 4), draw(13, 4)
    label = losses.guidance_label(main, aux, float(threshold))
    valid = label != 255
    assert valid.sum() == recorded["n_valid"]
    np.testing.assert_allclose(valid.mean(), recorded["mask_mean"], rtol=1e-6)
    counts = np.bincount(np.asarray(label)[valid], minlength=C)
    np.testing.assert_array_equal(counts, recorded["label_hist"])
    value = losses.cross_entropy(aux, label, normaliser="valid")
    np.testing.assert_allclose(value, recorded["ce"], rtol=1e-5)


@pytest.mark.parametrize("domain", [0, 1])
def test_domain_loss_equals_the_original(golden, domain):
    scores = draw(202, 2, (1, 1, 3, 4))
    value = losses.domain_loss(scores, domain)
    np.testing.assert_allclose(value, golden["bce"][str(domain)], rtol=1e-5)
