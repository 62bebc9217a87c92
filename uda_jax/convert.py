"""Parameters by PyTorch's names <-> Flax parameters, strictly, by one table per model.

A table is a sequence of (regular expression, replacement), applied in order to the
whole name, with dots between its parts.  What every network shares is done here: the
last part of the name, the layout of kernels (OIHW <-> HWIO), the collection of a leaf.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from uda_jax.errors import UserError

Table = Sequence[tuple[str, str]]

_EXACT_IN_FLOAT32 = ("float16", "bfloat16", "float32")


def from_torch(
    tensors: Mapping[str, np.ndarray], table: Table, params: Any, batch_stats: Any
) -> tuple[Any, Any]:
    """Flax parameters with the values of a PyTorch state_dict.

    Every tensor must have a leaf and every leaf a tensor of its shape; only BatchNorm's
    counters "num_batches_tracked", which nothing here uses, are left out.

    Args:
      tensors: arrays by PyTorch's names; float16, bfloat16 or float32.
      table: the model's TORCH_NAMES.
      params, batch_stats: the wanted structure; leaves need only a shape (the result of
        `model.init` or of `jax.eval_shape(model.init, key)`).

    Returns:
      (params, batch_stats), nested dicts of float32 numpy arrays.

    Raises:
      UserError: names, shapes or types do not fit; it lists both sides.
    """
    wanted = {f"params/{k}": v for k, v in flatten_dict(params, sep="/").items()}
    stats = flatten_dict(batch_stats, sep="/")
    wanted |= {f"batch_stats/{k}": v for k, v in stats.items()}
    found, origin, surplus, wrong = {}, {}, [], []
    for name, tensor in tensors.items():
        if name.rsplit(".", 1)[-1] == "num_batches_tracked":
            continue
        tensor = np.asarray(tensor)
        path = _path(_rename(name, table), tensor.ndim)
        if path not in wanted:
            surplus.append(name)
            continue
        if path in found:
            wrong.append(f"{name} and {origin[path]} both mean {path}")
            continue
        if str(tensor.dtype) not in _EXACT_IN_FLOAT32:
            wrong.append(f"{name} is {tensor.dtype}, not a float of at most 32 bits")
        value = tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor
        if value.shape != tuple(wanted[path].shape):
            wrong.append(
                f"{name} {tensor.shape} does not fit {path} {wanted[path].shape}"
            )
        found[path], origin[path] = value.astype(np.float32), name
    missing = [path for path in wanted if path not in found]
    if surplus or missing or wrong:
        raise UserError(
            "The weights do not fit the network: "
            f"{_listing(surplus)} in the file have no place, "
            f"{_listing(missing)} of the network get no value, "
            f"{_listing(wrong)} disagree: choose the network, its form and its number "
            "of classes as the file was trained with."
        )
    tree = unflatten_dict(found, sep="/")
    return tree.get("params", {}), tree.get("batch_stats", {})


def to_torch(params: Any, batch_stats: Any, table: Table) -> dict[str, np.ndarray]:
    """The inverse of `from_torch`: arrays by PyTorch's names, kernels OIHW, float32.

    BatchNorm's counters are not among them; PyTorch's `load_state_dict` sets those of a
    plain dict to 0 itself.

    Args:
      params, batch_stats: nested dicts of arrays.
      table: from our names to PyTorch's (the model's FLAX_NAMES).
    """
    tensors = {}
    for tree, last_names in (
        (params, {"kernel": "weight", "scale": "weight", "bias": "bias"}),
        (batch_stats, {"mean": "running_mean", "var": "running_var"}),
    ):
        for path, leaf in flatten_dict(tree).items():
            value = np.asarray(leaf)
            if value.ndim == 4:
                value = value.transpose(3, 2, 0, 1)
            name = _rename(".".join((*path[:-1], last_names[path[-1]])), table)
            tensors[name] = np.ascontiguousarray(value)
    return tensors


def _rename(name: str, table: Table) -> str:
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name


def _path(name: str, ndim: int) -> str:
    """Path of the leaf; a "weight" is a kernel with four axes, a scale with one."""
    *parents, last = name.split(".")
    if last == "weight":
        last = "kernel" if ndim == 4 else "scale"
    collection = "params"
    if last in ("running_mean", "running_var"):
        collection, last = "batch_stats", last.removeprefix("running_")
    return "/".join((collection, *parents, last))


def _listing(names: Iterable[str]) -> str:
    """'3 (a, b, c)', at most six of them by name."""
    names = list(names)
    if not names:
        return "0"
    shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    return f"{len(names)} ({shown})"
