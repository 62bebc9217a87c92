"""Losses of TUFL against the original's numbers, values and gradients."""

from pathlib import Path

import jax
import numpy as np
import pytest

from uda_jax import losses

GOLDENS = Path(__file__).parents[1] / "goldens" / "tufl_ssada.npz"


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
