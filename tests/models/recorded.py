"""Compares arrays with the numbers that the goldens keep of the originals' arrays."""

import jax.numpy as jnp
import numpy as np

# Rounding at the size of an array's other values moves a single one: between CPUs of
# different vector units by up to 1.5e-5 of the array's deviation, and PyTorch's own by
# 0.9e-5 from a forward pass in double precision (MiT-B0's maps).
_ROUNDING = 2e-5
_SINGLE = ("first3", "first", "mid", "last")


def assert_recorded(mine, golden):
    """Every recorded number of an array that PyTorch has as NCHW, to 1e-4 of itself.

    Single values may be away by `_ROUNDING` of the array's deviation besides.
    """
    assert mine.dtype == jnp.float32
    z = np.asarray(mine, np.float64).transpose(0, 3, 1, 2)
    assert list(z.shape) == golden["shape"]
    flat = z.ravel()
    recorded = {
        "mean": z.mean(),
        "std": z.std(),
        "abs_sum": np.abs(z).sum(),
        "abssum": np.abs(z).sum(),
        "first3": flat[:3],
        "first": flat[:3],
        "mid": flat[flat.size // 2],
        "last": flat[-1],
    }
    for key in golden.keys() - {"shape"}:
        np.testing.assert_allclose(
            recorded[key],
            golden[key],
            rtol=1e-4,
            atol=_ROUNDING * golden["std"] if key in _SINGLE else 0,
            err_msg=key,
        )
