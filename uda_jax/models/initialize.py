"""Initial parameters from shapes alone, without compiling the network."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict


def init_from_shapes(
    key: jax.Array,
    params: Any,
    batch_stats: Any,
    kernel_std: Callable[[str, tuple[int, ...]], float],
) -> tuple[Any, Any]:
    """Initial values by the names of the leaves.

    "kernel" is normal with mean 0 and standard deviation `kernel_std(path, shape)`,
    "scale" and "var" are 1, "bias" and "mean" are 0.

    Args:
      key: random key; the result depends on it and on the shapes only.
      params, batch_stats: nested dicts with leaves that have a shape.
      kernel_std: (path of the leaf with "/" between names, shape) -> deviation.

    Returns:
      (params, batch_stats), float32.
    """
    params = flatten_dict(params, sep="/")
    batch_stats = flatten_dict(batch_stats, sep="/")
    kernels = sorted(path for path in params if path.endswith("/kernel"))

    def constant(path, leaf):
        ones = path.rsplit("/", 1)[-1] in ("scale", "var")
        return jnp.full(leaf.shape, 1.0 if ones else 0.0, jnp.float32)

    @jax.jit  # one compilation for all leaves instead of one for each shape
    def build(key):
        # One draw for all kernels: fifty generators take long to compile.
        total = sum(params[path].size for path in kernels)
        draw, start = jax.random.normal(key, (total,), jnp.float32), 0
        new = {path: constant(path, leaf) for path, leaf in params.items()}
        for path in kernels:
            shape, size = params[path].shape, params[path].size
            values = draw[start : start + size].reshape(shape)
            new[path] = values * kernel_std(path, shape)
            start += size
        stats = {path: constant(path, leaf) for path, leaf in batch_stats.items()}
        return unflatten_dict(new, sep="/"), unflatten_dict(stats, sep="/")

    return build(key)
