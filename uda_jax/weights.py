"""A network with its weights, from any file that holds one; and this library's format.

A converted network is two files: NAME.safetensors with the leaves by their paths
("params/backbone/conv1/kernel", float32, kernels HWIO), and NAME.json that says which
network they are for and where they come from.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors.numpy import save_file

from uda_jax import __version__
from uda_jax.convert import Fitted, fit, leaves_by_path
from uda_jax.errors import UserError, did_you_mean
from uda_jax.labels import LabelSpace, get_label_space, space_of
from uda_jax.models import Model
from uda_jax.weight_sources import (
    FORMAT,
    NETWORKS,
    RUNNING,
    check_same,
    full_options,
    network_of,
    open_source,
)

PyTree = Any
NEW_HEADS = "new heads were asked for"


class Weights(NamedTuple):
    """A network, its numbers and their history.

    Attributes:
      model, params, batch_stats: the network and its leaves.
      name, options: key of NETWORKS and what its factory was given.
      num_classes: of its logits.
      label_space: key of LABEL_SPACES, "" where nobody said it.
      kind: what the file was.
      dropped: rule -> names of what the file holds beside.
      initial: paths of leaves that the file does not fill.
      step: of the run, where it was a workdir.
      classes: rows of the label space where it is a user's own; see
        `uda_jax.labels.own_label_space`.
    """

    model: Model
    params: PyTree
    batch_stats: PyTree
    name: str
    options: dict[str, Any]
    num_classes: int
    label_space: str
    kind: str
    dropped: dict[str, list[str]]
    initial: list[str]
    step: int | None
    classes: tuple = ()

    @property
    def space(self) -> LabelSpace | None:
        """The label space; None where nobody said it."""
        return space_of(self.label_space, self.classes) if self.label_space else None


def load_weights_file(
    path: str | os.PathLike,
    /,
    *,
    model: str = "",
    num_classes: int = 0,
    label_space: str = "",
    copy: str = "student",
    part: str = "",
    new_heads: bool = False,
    seed: int = 0,
    **options: Any,
) -> Weights:
    """The network in `path`, every array and every leaf accounted for.

    Args:
      path: a converted file, a run's workdir or a file of PyTorch's.
      model: key of NETWORKS; needed for a file that holds only a backbone.
      num_classes: as `model`; another number than the file's needs new_heads.
      label_space: key of LABEL_SPACES, what the classes are.
      copy: "student", "teacher" or "imagenet", in a checkpoint of self-training.
      part: "discriminator/main" or "discriminator/aux", of the workdir of a run that
        has it; "" for the segmentation network.
      new_heads: leaves outside of the backbone that the file lacks, or has in another
        shape, take initial values.
      seed: of those.
      **options: of the network, where names and shapes do not show them.

    Raises:
      UserError: unreadable, of no known kind, or it does not fit; both sides are named.
    """
    if label_space:
        get_label_space(label_space)
    if model and model not in NETWORKS:
        raise UserError(
            f'model "{model}" is unknown{did_you_mean(model, NETWORKS)}: choose one of '
            f"{', '.join(NETWORKS)}."
        )
    source = open_source(path, copy=copy, model=model, part=part)
    name = model or (source.models[0] if len(source.models) == 1 else "")
    if name not in source.models:
        told = f"--model={name}" if name else "no --model"
        raise UserError(
            f"{source.what} is for {' or '.join(source.models)}, and {told} was given: "
            "name the network that it is for."
        )
    if type(num_classes) is not int or num_classes < 0:
        raise UserError(f"num_classes={num_classes} is no count: give 1 or more.")
    num_classes = num_classes or source.num_classes
    if not num_classes:
        raise UserError(f"{source.what} shows no number of classes: give num_classes.")
    if source.num_classes not in (0, num_classes) and not new_heads:
        raise UserError(
            f"{source.what} has {source.num_classes} classes, and {num_classes} were "
            "asked for: leave num_classes out, or ask for new heads (--new_heads)."
        )
    _check_heads(source, new_heads)
    for option, sentence in source.asks:
        if option not in options:
            raise UserError(f"{path}: {sentence}.")
    settled = full_options(name, source.options) if source.settled else {}
    for option in options.keys() & settled.keys() - set(RUNNING):
        if options[option] != settled[option]:
            raise UserError(
                f"{source.what} has {option}={settled[option]}, and "
                f"{option}={options[option]} was asked for: leave it out."
            )
    network, options = network_of(source, name, num_classes, options)
    key = jax.random.key(seed)
    shapes = network.init(key) if new_heads else jax.eval_shape(network.init, key)
    fitted = _fit(source, network, *shapes, new_heads=new_heads, what=source.what)
    dropped = source.dropped
    if fitted.unused:
        dropped = {**dropped, NEW_HEADS: fitted.unused}
    own = () if label_space else source.classes
    weights = Weights(
        network, fitted.params, fitted.batch_stats, name, options, num_classes,
        label_space or source.label_space, source.kind, dropped, fitted.initial,
        source.step, own,
    )  # fmt: skip
    space = weights.space
    if space and space.num_classes != num_classes:
        raise UserError(
            f"{path} has {num_classes} classes, label_space {space.name} has "
            f"{space.num_classes}: choose the one it was trained with."
        )
    return weights


def fit_like(
    path: str | os.PathLike,
    params: PyTree,
    batch_stats: PyTree,
    *,
    new_heads: bool,
    row: Mapping[str, Any] | None = None,
    label_space: LabelSpace | None = None,
    option: str = "init_from",
) -> tuple[PyTree, PyTree, str]:
    """The arrays of `path` for a network that exists already.

    Args:
      path: see `load_weights_file`.
      params, batch_stats: the network's own.
      new_heads: see `load_weights_file`; such leaves keep their values.
      row, label_space: the config's model and classes; what the file says of its own
        must agree.  None: names and shapes alone are compared.
      option: what the config calls `path`, for messages.

    Returns:
      (params, batch_stats, one line that says what was loaded and what stayed).

    Raises:
      UserError: see `load_weights_file`.
    """
    source = open_source(path)
    if source.backbone_only and option != "init_from":
        raise UserError(
            f"{option}={source.what} holds only a backbone, which labels nothing: give "
            "the whole network's file or the workdir of its run."
        )
    _check_heads(source, new_heads)
    network = _network_like(source, params, option)
    fitted = _fit(
        source, network, params, batch_stats, new_heads=new_heads,
        what=f"{option}={source.what}",
    )  # fmt: skip
    if row is not None:
        check_same(source, row, label_space, new_heads=new_heads, option=option)
    leaves = jax.tree.leaves((fitted.params, fitted.batch_stats))
    total = sum(leaf.size for leaf in leaves)
    line = f"{len(leaves) - len(fitted.initial)} arrays"
    if fitted.initial:
        line += f" of {len(leaves)}"
    line += f" ({total:,} numbers) from {source.what}"
    if source.step is not None:
        line = f"{line.removesuffix(f' ({source.kind})')}, step {source.step}"
        if source.steps is not None and source.step < source.steps:
            line += f" of {source.steps}, a run that has not ended"
    for rule, names in {**source.dropped, NEW_HEADS: fitted.unused}.items():
        if names:
            line += f"; left out: {abridged(names)} ({rule})"
    if fitted.initial:
        line += f"; initial values: {abridged(fitted.initial)}"
    if source.backbone_only and "input_form" in source.options:
        line += f"; made for input_form={source.options['input_form']}"
    for asked, _ in source.asks if row is not None else ():
        full = full_options(row["name"], {k: row[k] for k in row if k != "name"})
        line += f"; {asked}={full[asked]} as the config says, the file does not"
    return fitted.params, fitted.batch_stats, line


def _check_heads(source, new_heads):
    if source.backbone_only and not new_heads:
        raise UserError(
            f"{source.what} holds only a backbone: ask for new heads (--new_heads, in "
            "a config init_new_heads=True), or give the whole network's file."
        )


def _fit(source, network, params, batch_stats, *, new_heads, what) -> Fitted:
    """`convert.fit`, with what the file implies and does not hold among the new."""
    pairs = source.pairs(network)
    backbone = network.backbone if new_heads else None
    fitted = fit(pairs, params, batch_stats, what=what, backbone=backbone)
    implied = {path for path, given in pairs if not given.name}
    return fitted._replace(
        unused=[name for name in fitted.unused if name],
        initial=fitted.initial + sorted(implied - set(fitted.initial)),
    )


def _network_like(source, params, option) -> Model:
    """The source's network; for a backbone alone, the one whose place `params` has."""
    classes = source.num_classes or 2
    for name in source.models:
        network, _ = network_of(source, name, classes, {})
        prefix = network.backbone.split("/", 1)[0]
        if not source.backbone_only or prefix in params:
            return network
    raise UserError(
        f"{option}={source.what} is for {' or '.join(source.models)}, and this "
        f"network ({', '.join(params)}) has no such backbone: choose another file or "
        "network."
    )


def save(
    path: str | os.PathLike, weights: Weights, origin: str | os.PathLike
) -> tuple[int, int]:
    """Writes `path` (.safetensors) and its .json; both appear whole, or neither.

    Args:
      path: of the first file.
      weights: what to write.
      origin: the file or workdir that the weights come from.

    Returns:
      (number of arrays, number of numbers in them).
    """
    path, origin = Path(path), Path(origin)
    pairs = leaves_by_path(weights.params, weights.batch_stats)
    arrays = {name: np.ascontiguousarray(given.value) for name, given in pairs}
    source: dict[str, Any] = {"name": origin.name}
    if origin.is_file():
        with open(origin, "rb") as stream:
            source["sha256"] = hashlib.file_digest(stream, "sha256").hexdigest()
    else:
        source["step"] = weights.step
    # How it was run is no part of the network.
    lasting = {k: v for k, v in weights.options.items() if k not in RUNNING}
    known = {
        "format": FORMAT,
        "model": {"name": weights.name, **lasting},
        "num_classes": weights.num_classes,
        "label_space": weights.label_space,
        "classes": weights.classes,
        "kind": weights.kind,
        "source": source,
        "tensors": len(arrays),
        "numbers": sum(array.size for array in arrays.values()),
        "dropped": weights.dropped,
        "initial": weights.initial,
        "version": __version__,
    }
    # In both files, so that one of another conversion is noticed.
    known["pair"] = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]
    description = path.with_suffix(".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
        save_file(arrays, f"{folder}/weights", metadata={"pair": known["pair"]})
        Path(folder, "json").write_text(json.dumps(known, indent=2) + "\n")
        # save_file makes files that only their owner can read.
        os.chmod(f"{folder}/weights", os.stat(f"{folder}/json").st_mode)
        try:
            os.replace(f"{folder}/json", description)
            os.replace(f"{folder}/weights", path)
        except BaseException:  # Ctrl-C too
            moved = [
                not os.path.exists(f"{folder}/{name}") for name in ("json", "weights")
            ]
            if moved == [True, False]:  # a description alone is of no use
                description.unlink()
            raise
    return known["tensors"], known["numbers"]


def abridged(names: list[str]) -> str:
    """'3 (a, b, c)' or '9 (a, b, c, ...)'."""
    return f"{len(names)} ({', '.join(names[:3])}{', ...' if names[3:] else ''})"
