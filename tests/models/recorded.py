"""Compares arrays with the numbers that the goldens keep of the originals' arrays."""

import jax.numpy as jnp
import numpy as np


def assert_recorded(mine, golden, near_zero=()):
    """Every recorded number of an array that PyTorch has as NCHW, to 1e-4 of itself.

    near_zero: keys of single values so near 0 that rounding at the size of the other
      values exceeds that; they are compared to 1e-5 of the array's deviation.
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
        loose = key in near_zero
        np.testing.assert_allclose(
            recorded[key],
            golden[key],
            rtol=0 if loose else 1e-4,
            atol=1e-5 * golden["std"] if loose else 0,
            err_msg=key,
        )
