"""Class weights: TUFL's tables, ones, and one's own."""

from pathlib import Path

import numpy as np
import pytest

from uda_jax.class_weights import class_weights
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
