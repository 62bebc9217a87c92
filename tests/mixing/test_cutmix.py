"""CutMix: the original's boxes rebuilt from its seeds, and properties of boxes."""

import random
from pathlib import Path

import jax
import numpy as np
import pytest

from uda_jax import mixing
from uda_jax.mixing.cutmix import _CANDIDATES

cutmix_boxes = jax.jit(mixing.cutmix_boxes, static_argnums=(1, 2))
first_box_that_fits = jax.jit(mixing.first_box_that_fits, static_argnums=4)

GOLDENS = Path(__file__).parents[1] / "goldens" / "tufl_ssada.npz"


def original_draws(seed, side, count=_CANDIDATES):
    """What the original's two generators draw, in its order: area, then candidates."""
    random.seed(seed)
    generator = np.random.RandomState(seed)
    empty = random.random() > 0.5
    area = generator.uniform(0.02, 0.4) * side * side
    ratios, lefts, tops = np.zeros(count), np.zeros(count, int), np.zeros(count, int)
    for i in range(count):
        ratios[i] = generator.uniform(0.3, 1 / 0.3)
        lefts[i], tops[i] = generator.randint(0, side), generator.randint(0, side)
    return empty, area, ratios, lefts, tops


def test_boxes_equal_the_originals():
    with np.load(GOLDENS) as file:
        golden = file["ssada/cutmix_boxes_800_seed0-19_y0y1x0x1"]
    for seed, expected in enumerate(golden):
        empty, *draws = original_draws(seed, 800)
        box = first_box_that_fits(*draws, (800, 800))
        np.testing.assert_array_equal(np.zeros(4) if empty else box, expected)


def test_the_first_that_fits_and_none():
    # Area 64, ratios 4 and 1: 16 x 4 and 8 x 8 in an image of 10 x 12.
    ratios, lefts, tops = (
        np.array([4.0, 1, 1]),
        np.array([0, 5, 4]),
        np.array([0, 0, 2]),
    )
    box = first_box_that_fits(64.0, ratios, lefts, tops, (10, 12))
    np.testing.assert_array_equal(box, [2, 10, 4, 12])
    box = first_box_that_fits(64.0, ratios[:2], lefts[:2], tops[:2], (10, 12))
    np.testing.assert_array_equal(box, 0)


@pytest.mark.parametrize("size", [(320, 320), (200, 512)])
def test_boxes_keep_to_the_published_ranges(size):
    boxes = np.array(cutmix_boxes(jax.random.key(0), 2000, size))
    filled = boxes[boxes.any(1)]
    assert abs(len(filled) / len(boxes) - 0.5) < 0.04
    top, bottom, left, right = filled.T
    assert top.min() >= 0 and bottom.max() <= size[0]
    assert left.min() >= 0 and right.max() <= size[1]
    height, width = bottom - top, right - left
    share = height * width / (size[0] * size[1])
    # Both sides are rounded down.
    assert 0.018 < share.min() < 0.03 and 0.36 < share.max() <= 0.4
    assert (height / (width + 1)).min() > 0.29 and (height / width).max() < 3.6


def test_a_box_depends_on_its_place_alone():
    boxes = cutmix_boxes(jax.random.key(1), 8, (64, 64))
    part = cutmix_boxes(jax.random.key(1), 3, (64, 64))
    np.testing.assert_array_equal(boxes[:3], part)
    other = cutmix_boxes(jax.random.key(2), 8, (64, 64))
    assert np.any(np.array(boxes) != other)


def test_cutmix_moves_image_label_and_mask_alike():
    rng = np.random.default_rng(0)
    label, other = rng.integers(0, 256, (2, 3, 5, 7), dtype=np.uint8)
    boxes = np.array([[1, 4, 2, 7], [0, 0, 0, 0], [0, 5, 0, 7]], np.int32)
    expected = label.copy()
    expected[0, 1:4, 2:7] = other[0, 1:4, 2:7]
    expected[2] = other[2]
    mixed = jax.jit(mixing.cutmix)(label, other, boxes)
    assert mixed.dtype == np.uint8
    np.testing.assert_array_equal(mixed, expected)
    paint = np.random.default_rng(1).normal(size=(256, 3)).astype(np.float32)
    image = mixing.cutmix(paint[label], paint[other], boxes)
    np.testing.assert_array_equal(image, paint[expected])
    np.testing.assert_array_equal(mixing.cutmix(label > 9, other > 9, boxes), mixed > 9)
