"""Class weights: TUFL's tables, ones, one's own, and SS-ADA's formulas."""

from pathlib import Path

import jax
import numpy as np
import pytest

from uda_jax.class_weights import class_weights, from_counts, from_iou
from uda_jax.errors import UserError

GOLDENS = Path(__file__).parent / "goldens" / "tufl_ssada.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDENS) as file:
        return {k[5:]: file[k] for k in file.files if k.startswith("tufl/cw_")}


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


@pytest.mark.parametrize("upper", [1.5, 2.0])
def test_the_formulas_equal_the_original(upper):
    with np.load(GOLDENS) as file:
        for ours, theirs in (
            (from_iou(file["ssada/ious"], upper), f"ssada/cw_iou_up{upper}"),
            (from_counts(file["ssada/cw_counts"], upper), f"ssada/cw_num_up{upper}"),
        ):
            assert ours.dtype == np.float32
            np.testing.assert_allclose(ours, file[theirs], rtol=1e-6)


def test_the_formulas_by_hand():
    np.testing.assert_allclose(from_iou([0, 0.25, 1], 3), [3, 2.5, 1])
    # Without pixels, and with the fewest: both get the most.
    np.testing.assert_allclose(from_counts([0, 10, 40], 3), [3, 3, 1.5])
    np.testing.assert_allclose(from_counts([0, 7]), [2, 2])
    np.testing.assert_array_equal(from_counts([0, 0]), [2, 2])
    np.testing.assert_array_equal(from_counts([1, 7], 1), [1, 1])
    # More pixels than 32 bits count.
    counts = np.array([8_000_000_000, 4_000_000_000])
    np.testing.assert_allclose(from_counts(counts), [1.5, 2])


@pytest.mark.parametrize("formula", [from_iou, from_counts])
def test_the_formulas_run_under_jit(formula):
    values = np.array([0, 0.5, 1], np.float32)
    np.testing.assert_allclose(jax.jit(formula)(values), formula(values))
    for upper in (0.5, float("nan")):
        with pytest.raises(UserError, match=r"upper is .*at least 1"):
            formula(values, upper=upper)
