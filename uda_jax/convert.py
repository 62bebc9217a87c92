r"""Parameters by PyTorch's names <-> Flax parameters, strictly, by one table per model.

    python -m uda_jax.convert model.pth model.safetensors
    python -m uda_jax.convert runs/tufl_rio model.pth

A table is a sequence of (regular expression, replacement), applied in order to the
whole name, with dots between its parts.  What every network shares is done here: the
last part of the name, the layout of kernels (OIHW <-> HWIO), the collection of a leaf.
The command is `uda_jax.convert_command`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from uda_jax.errors import UserError

Table = Sequence[tuple[str, str]]

_EXACT_IN_FLOAT32 = ("float16", "bfloat16", "float32")


class Given(NamedTuple):
    """An array on its way to a leaf.

    Attributes:
      name: of the array where it comes from.
      shown: that name with the shape that it has there, for messages.
      value: the array in the leaf's layout, often a view.
    """

    name: str
    shown: str
    value: np.ndarray


class Fitted(NamedTuple):
    """What `fit` gives.

    Attributes:
      params, batch_stats: nested dicts of float32 numpy arrays of their own.
      unused: names of given arrays outside of the backbone that found no leaf.
      initial: paths of leaves that stayed as they were.
    """

    params: Any
    batch_stats: Any
    unused: list[str]
    initial: list[str]


def from_torch(
    tensors: Mapping[str, np.ndarray], table: Table, params: Any, batch_stats: Any
) -> tuple[Any, Any]:
    """Flax parameters with the values of a PyTorch state_dict.

    Every tensor must have a leaf and every leaf a tensor of its shape; only BatchNorm's
    counters "num_batches_tracked", which nothing here uses, are left out.

    Args:
      tensors: arrays by PyTorch's names; float16, bfloat16 or float32.
      table: the model's torch.to_flax.
      params, batch_stats: the wanted structure; leaves need only a shape (the result of
        `model.init` or of `jax.eval_shape(model.init, key)`).

    Returns:
      (params, batch_stats), nested dicts of float32 numpy arrays.

    Raises:
      UserError: names, shapes or types do not fit; it lists both sides.
    """
    fitted = fit(by_path(tensors, table), params, batch_stats)
    return fitted.params, fitted.batch_stats


def by_path(tensors: Mapping[str, np.ndarray], table: Table) -> list[tuple[str, Given]]:
    """(path such as "params/conv1/kernel", tensor) pairs; counters are left out.

    Args:
      tensors, table: see `from_torch`.
    """
    pairs = []
    for name, tensor in tensors.items():
        if name.rsplit(".", 1)[-1] == "num_batches_tracked":
            continue
        tensor = np.asarray(tensor)
        value = tensor.transpose(_LAYOUT.get(tensor.ndim, range(tensor.ndim)))
        given = Given(name, f"{name} {tensor.shape}", value)
        pairs.append((_path(_rename(name, table), tensor.ndim), given))
    return pairs


def leaves_by_path(params: Any, batch_stats: Any) -> list[tuple[str, Given]]:
    """The same pairs from trees of this library."""
    return [
        (path, Given(path, f"{path} {list(leaf.shape)}", np.asarray(leaf)))
        for path, leaf in _flat(params, batch_stats).items()
    ]


def fit(
    given: Iterable[tuple[str, Given]],
    params: Any,
    batch_stats: Any,
    *,
    what: str = "The checkpoint",
    backbone: str | None = None,
) -> Fitted:
    """Puts each array into its leaf; nothing is left over on either side.

    Args:
      given: pairs of `by_path` or `leaves_by_path`.
      params, batch_stats: the wanted structure; leaves need only a shape.
      what: the arrays' origin, for messages.
      backbone: regular expression of the backbone's paths (Model.backbone).  If it is
        given, leaves outside of it that get nothing of their shape keep their values,
        and arrays outside of it without a leaf are unused.

    Raises:
      UserError: names or shapes differ, an array is no float of at most 32 bits, or it
        holds NaN or infinite numbers; it lists both sides.
    """
    wanted = _flat(params, batch_stats)
    free = lambda path: (
        backbone is not None and not re.match(backbone, path.split("/", 1)[1])
    )
    found, origin, unused, surplus, wrong, unusable = {}, {}, [], [], [], []
    for path, (name, shown, value) in given:
        if path not in wanted:
            (unused if free(path) else surplus).append(name)
            continue
        if path in origin:
            wrong.append(f"{name} and {origin[path]} both mean {path}")
            continue
        origin[path] = name
        shape = tuple(wanted[path].shape)
        if value.shape != shape:
            if free(path):
                unused.append(name)
            else:
                wrong.append(f"{shown} there and {path} {list(shape)} here")
        elif str(value.dtype) not in _EXACT_IN_FLOAT32:
            unusable.append(f"{name} is {value.dtype}, not a float of at most 32 bits")
        elif not (finite := np.isfinite(value)).all():
            count = value.size - np.count_nonzero(finite)
            unusable.append(f"{name} holds {count} NaN or infinite numbers")
        else:
            found[path] = np.array(value, np.float32, order="C")
    missing = [path for path in wanted if path not in origin and not free(path)]
    if surplus or missing or wrong or unusable:
        raise UserError(_misfit(what, missing, surplus, wrong, unusable))
    initial = [path for path in wanted if path not in found]
    for path in initial:
        found[path] = np.asarray(wanted[path])
    tree = unflatten_dict(found, sep="/")
    return Fitted(tree.get("params", {}), tree.get("batch_stats", {}), unused, initial)


def to_torch(params: Any, batch_stats: Any, table: Table) -> dict[str, np.ndarray]:
    """The inverse of `from_torch`: arrays by PyTorch's names, kernels OIHW, float32.

    BatchNorm's counters are not among them; PyTorch's `load_state_dict` sets those of a
    plain dict to 0 itself.

    Args:
      params, batch_stats: nested dicts of arrays.
      table: the model's torch.to_torch, from our names to PyTorch's.
    """
    tensors = {}
    for tree, last_names in (
        (params, {"kernel": "weight", "scale": "weight", "bias": "bias"}),
        (batch_stats, {"mean": "running_mean", "var": "running_var"}),
    ):
        for path, leaf in flatten_dict(tree).items():
            value = np.asarray(leaf)
            if path[-1] == "kernel":
                value = value.transpose(np.argsort(_LAYOUT[value.ndim]))
            name = _rename(".".join((*path[:-1], last_names[path[-1]])), table)
            tensors[name] = np.ascontiguousarray(value)
    return tensors


# Axes of PyTorch's kernels in our order: OIHW -> HWIO, and dense ones [out, in].
_LAYOUT = {4: (2, 3, 1, 0), 2: (1, 0)}


def _flat(params: Any, batch_stats: Any) -> dict[str, Any]:
    trees = {"params": params, "batch_stats": batch_stats}
    return flatten_dict(trees, sep="/")


def _rename(name: str, table: Table) -> str:
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name


def _path(name: str, ndim: int) -> str:
    """Path of the leaf; a "weight" is a scale with one axis, a kernel with more."""
    *parents, last = name.split(".")
    if last == "weight":
        last = "scale" if ndim == 1 else "kernel"
    collection = "params"
    if last in ("running_mean", "running_var"):
        collection, last = "batch_stats", last.removeprefix("running_")
    return "/".join((collection, *parents, last))


def _misfit(what, missing, surplus, wrong, unusable) -> str:
    """The sentence that lists both sides."""
    parts = []
    if missing:
        parts.append(f"it lacks {_listing(missing)}")
    if surplus:
        parts.append(f"it has {_listing(surplus)} beside")
    if wrong:
        parts.append(_listing(wrong, "; "))
    if unusable:
        parts.append(_listing(unusable, "; "))
    if missing or surplus:
        verdict = "is of another network"
    elif wrong:
        verdict = "is of another network or another number of classes"
    else:
        return f"{what} cannot be used: {parts[0]}."
    return (
        f"{what} {verdict}: {', '.join(parts)}; name the network, its form and its "
        "number of classes as they were trained, or take the heads that fit and start "
        "the others anew (--new_heads, in a config init_new_heads=True)."
    )


def _listing(names: Sequence[str], separator: str = ", ") -> str:
    """'a, b, c and 4 more'."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return separator.join(names[:5]) + more


if __name__ == "__main__":
    from uda_jax import convert_command

    convert_command.run()
