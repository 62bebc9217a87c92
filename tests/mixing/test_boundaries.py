"""Boundaries: the original's weights, exact distances, and windows by hand."""

from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from uda_jax import mixing
from uda_jax.errors import UserError
from uda_jax.mixing.boundaries import _squared_distances

GOLDENS = Path(__file__).parents[1] / "goldens" / "tufl_ssada.npz"

boundary_mask = jax.jit(mixing.boundary_mask, static_argnums=1)
distance_weights = jax.jit(mixing.distance_weights)
squared_distances = jax.jit(_squared_distances)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDENS) as file:
        return {k[5:]: file[k] for k in file.files if k.startswith("tufl/edt")}


@pytest.mark.parametrize("distance", [3, 10])
def test_distance_weights_equal_the_originals(golden, distance):
    weights = distance_weights(golden["edt_mask"] == 1, distance)
    assert weights.dtype == np.float32
    expected = golden[f"edt_d{distance}"]
    np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-7)


def masks(batch_size, size=(23, 31)):
    """Noise from rare pixels to nearly full, one mask for each example."""
    shares = np.linspace(0.003, 0.99, batch_size)[:, None, None]
    return np.random.default_rng(5).random((batch_size, *size)) < shares


def test_distances_are_exact():
    far = np.zeros((1, 23, 31), bool)
    far[0, -1, 0] = True  # the longest way, in one corner
    mask = np.concatenate([masks(7), far])
    expected = [distance_transform_edt(m) + distance_transform_edt(~m) for m in mask]
    np.testing.assert_array_equal(
        squared_distances(mask), np.rint(np.square(expected)).astype(int)
    )


@pytest.mark.parametrize("batch_size", [1, 8])
def test_weights_are_in_range_and_each_examples_own(batch_size):
    mask = masks(batch_size)
    weights = np.array(distance_weights(mask, 6.0))
    assert weights.min() >= 0 and weights.max() <= 1
    distance = np.sqrt(squared_distances(mask))
    assert (weights[distance >= 6] == 0).all()
    for one, alone in zip(weights, mask, strict=True):
        np.testing.assert_array_equal(distance_weights(alone[None], 6.0)[0], one)
    np.testing.assert_array_equal(distance_weights(~mask, 6.0), weights)


def test_no_edge_and_no_difference_give_0():
    empty = np.zeros((1, 6, 8), bool)
    for mask in (empty, ~empty):
        np.testing.assert_array_equal(distance_weights(mask, 5.0), 0)
        assert not boundary_mask(mask, 5).any()
    stripes = empty | (np.arange(8) % 2 == 0)
    np.testing.assert_array_equal(distance_weights(stripes, 5.0), 0)


def test_boundary_by_hand():
    mask = np.zeros((1, 5, 6), bool)
    mask[0, 2:4, 2:4] = True
    expected = np.zeros((5, 6), bool)
    expected[1:5, 1:5] = True
    np.testing.assert_array_equal(boundary_mask(mask, 3)[0], expected)


@pytest.mark.parametrize("width", [3, 7])
def test_boundary_is_where_a_square_holds_both(width):
    mask, half = masks(8), width // 2
    padded = np.pad(mask.astype(float), ((0, 0), (half, half), (half, half)), "edge")
    squares = np.lib.stride_tricks.sliding_window_view(padded, (width, width), (1, 2))
    expected = squares.max((3, 4)) != squares.min((3, 4))
    np.testing.assert_array_equal(boundary_mask(mask, width), expected)


@pytest.mark.parametrize("width", [0, 1, 4, -3])
def test_a_width_that_is_no_window_is_an_error(width):
    with pytest.raises(UserError, match=r"give an odd number of pixels, at least 3\.$"):
        mixing.boundary_mask(np.zeros((1, 4, 4), bool), width)
    if width:
        with pytest.raises(UserError, match=f"blur is {width}.*or 0 for none"):
            mixing.check_windows(or_none=True, blur=width)
    mixing.check_windows(or_none=True, blur=0, width=3)
