"""Initial parameters from shapes alone, without compiling the network."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

# (path with "/" between names, the leaf's shape, shape of the kernel beside it) ->
# (distribution, its width), or None for 1 ("scale", "var") and 0 ("bias", "mean").
Shape = tuple[int, ...]
Rule = Callable[[str, Shape, Shape], tuple[str, float] | None]

DISTRIBUTIONS = {
    "normal": jax.random.normal,
    "truncated_normal": partial(jax.random.truncated_normal, lower=-2.0, upper=2.0),
    "uniform": partial(jax.random.uniform, minval=-1.0, maxval=1.0),
}


def fan_in(kernel: Shape) -> int:
    """Inputs of one output of a kernel [..., C_in / groups, C_out]."""
    return int(np.prod(kernel[:-1]))


def fan_out(kernel: Shape, groups: int = 1) -> int:
    """k * k * C_out / groups of a kernel [..., C_in / groups, C_out]."""
    return int(np.prod(kernel[:-2])) * kernel[-1] // groups


def init_from_shapes(
    key: jax.Array, params: Any, batch_stats: Any, rule: Rule
) -> tuple[Any, Any]:
    """Initial values by the names of the leaves.

    "kernel" always follows the rule, every other leaf where the rule names a
    distribution: "normal" with mean 0 and that standard deviation, "truncated_normal"
    the same cut at two deviations (of the uncut distribution, as PyTorch's
    `trunc_normal_` at small widths), "uniform" between -width and width.

    Args:
      key: random key; the result depends on it and on the shapes only.
      params, batch_stats: nested dicts with leaves that have a shape.
      rule: see `Rule`.

    Returns:
      (params, batch_stats), float32.
    """
    params = flatten_dict(params, sep="/")
    batch_stats = flatten_dict(batch_stats, sep="/")
    drawn = {}
    for path in sorted(params):
        beside = path.rpartition("/")[0] + "/kernel"
        kernel = params[beside].shape if beside in params else ()
        if found := rule(path, params[path].shape, kernel):
            drawn[path] = found

    new = {path: _constant(path, leaf) for path, leaf in params.items()}
    for number, (kind, draw) in enumerate(DISTRIBUTIONS.items()):
        paths = [path for path in drawn if drawn[path][0] == kind]
        if not paths:
            continue
        # One draw for all leaves: fifty generators take long to compile.
        own = key if number == 0 else jax.random.fold_in(key, number)
        values = draw(own, shape=(sum(params[path].size for path in paths),))
        # Cut up by numpy, which compiles nothing; `eval_shape` only has a tracer.
        numpy = jnp if isinstance(values, jax.core.Tracer) else np
        values, start = numpy.asarray(values), 0
        for path in paths:
            shape, size = params[path].shape, params[path].size
            part = values[start : start + size].reshape(shape)
            new[path] = jnp.asarray(part * np.float32(drawn[path][1]))
            start += size
    stats = {path: _constant(path, leaf) for path, leaf in batch_stats.items()}
    return unflatten_dict(new, sep="/"), unflatten_dict(stats, sep="/")


def _constant(path, leaf):
    ones = path.rsplit("/", 1)[-1] in ("scale", "var")
    return jnp.asarray(np.full(leaf.shape, 1.0 if ones else 0.0, np.float32))
