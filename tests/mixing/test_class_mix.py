"""Mixing two pictures: the original's numbers; pixels, labels and weights together."""

from pathlib import Path

import jax
import numpy as np
import pytest

from uda_jax import losses, mixing

GOLDENS = Path(__file__).parents[1] / "goldens" / "tufl_ssada.npz"

class_mix = jax.jit(mixing.class_mix)
soft_mix = jax.jit(mixing.soft_mix)
confident_share = jax.jit(losses.confident_share)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDENS) as file:
        return {k[5:]: file[k] for k in file.files if k.startswith("tufl/")}


def test_image_and_label_equal_the_originals(golden):
    mask = golden["class_mask_1_3_255"][None] == 1
    first, second = np.moveaxis(golden["mix_in"], 1, -1)[:, None]
    mixed = np.moveaxis(class_mix(mask, first, second), -1, 1)
    np.testing.assert_array_equal(mixed, golden["mix_img"])
    label, other = golden["in_lb"][:, None]
    np.testing.assert_array_equal(class_mix(mask, label, other), golden["mix_lb"])


@pytest.mark.parametrize("batch_size", [1, 8])
def test_labels_come_from_where_the_pixels_come_from(batch_size):
    rng = np.random.default_rng(0)
    shape = (batch_size, 5, 7)
    label, other = rng.integers(0, 256, (2, *shape), dtype=np.uint8)
    mask = rng.random(shape) < 0.5
    paint = rng.normal(size=(256, 3)).astype(np.float32)
    mixed = class_mix(mask, label, other)
    assert mixed.dtype == np.uint8
    np.testing.assert_array_equal(mixed, np.where(mask, label, other))
    image = class_mix(mask, paint[label], paint[other])
    np.testing.assert_array_equal(image, paint[mixed])


def test_weights_of_one_number_for_each_image():
    mask = np.array([[[True, False]], [[False, True]]])
    share = np.array([0.25, 0.5], np.float32)[:, None, None]
    weights = class_mix(mask, np.float32(1), share)
    np.testing.assert_array_equal(weights, [[[1, 0.25]], [[0.5, 1]]])


def test_soft_mix_by_hand():
    mask = np.array([[[True, False]]])
    x, y = np.full((1, 1, 2, 3), 10, np.float32), np.full((1, 1, 2, 3), 5, np.float32)
    mixed = soft_mix(mask, x, y, 0.8)
    np.testing.assert_allclose(mixed[0, 0], [[9] * 3, [5] * 3], rtol=1e-6)
    np.testing.assert_array_equal(soft_mix(mask, x, y, 1.0), class_mix(mask, x, y))
    np.testing.assert_array_equal(soft_mix(mask, x, y, 0.0), y)


def test_confident_share_by_hand():
    probs = np.array([[[0.5, 0.5], [0.75, 0.25]], [[0.9, 0.1], [0.2, 0.8]]])
    logits = np.log(probs)[:, :, None].astype(np.float32)  # [2, 2, 1, 2]
    share = confident_share(logits, 0.7)
    assert share.dtype == np.float32
    np.testing.assert_array_equal(share, [0.5, 1])
    # At the threshold counts, and even logits have exactly 1 / 2.
    np.testing.assert_array_equal(confident_share(logits * 0, 0.5), [1, 1])
    huge = np.array([1e4, -1e4], np.float32) * np.ones_like(logits)
    np.testing.assert_array_equal(confident_share(huge, 0.968), [1, 1])
