"""What kind of checkpoint a file is, by the table `checkpoint_kinds.KINDS`."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from uda_jax.checkpoint_kinds import KINDS, Kind, Shape
from uda_jax.errors import UserError
from uda_jax.models import mit, segformer

# Which copy of the network in a checkpoint of self-training.  The originals evaluate
# the student: their loader takes "model." away and ignores what then has no place.
COPIES = {"student": "model.", "teacher": "ema_model.", "imagenet": "imnet_model."}

# DAFormer makes its ImageNet copy with a whole network, whose head is never trained.
RANDOM_HEAD = (r"(?!backbone\.)", "untrained head of the copy with ImageNet's weights")
COUNTERS = (r"(.*\.)?num_batches_tracked$", "counters of BatchNorm")
WRAPPERS = 4  # of a state_dict; a pickle can hold itself


class Recognised(NamedTuple):
    """A checkpoint's tensors and what they are.

    Attributes:
      kind: the row of the table.
      tensors: by the names that the network's table knows, prefixes taken away.
      own: those names -> the file's own; those that are not in the file are missing.
      options: what `kind.options` found.
      num_classes: of the classifier; 0 where there is none.
      dropped: rule -> names in the file.
      backbone_only: the file has no trained head.
    """

    kind: Kind
    tensors: dict[str, np.ndarray]
    own: dict[str, str]
    options: dict[str, Any]
    num_classes: int
    dropped: dict[str, list[str]]
    backbone_only: bool


def recognise(
    saved: Any, path: str, copy: str = "student", model: str = ""
) -> Recognised:
    """What the object of a checkpoint file is.

    Wrappers ("state_dict", "model") are opened; prefixes "module." (DataParallel) and
    "Scale." (Caffe) are taken away; of a self-training checkpoint one copy of the
    network is chosen; Hugging Face's names are rewritten.

    Args:
      saved: from `torch_files.read`.
      path: for messages.
      copy: a key of `COPIES`.
      model: the network that a file of no known kind is taken for.

    Raises:
      UserError: the file is of no known kind, or `copy` is not in it.
    """
    dropped: dict[str, list[str]] = {}
    tensors = _unwrap(saved, path, dropped)
    prefix = ""
    for part in ("module.", "Scale."):
        if all(name.startswith(prefix + part) for name in tensors):
            prefix += part
    prefix = _choose_copy(tensors, path, copy, prefix, dropped)
    own = {n.removeprefix(prefix): n for n in tensors if n.startswith(prefix)}
    tensors = {name: tensors[theirs] for name, theirs in own.items()}
    if mit.is_hugging_face(tensors):
        segmentor = any(name.startswith("decode_head.") for name in tensors)
        rename = (segformer if segmentor else mit).from_hugging_face
        own = _origins(rename, tensors, own)
        tensors = rename(tensors)
    kind = _kind_of(tensors)
    if kind is None and model:
        kind = Kind(f"{model} by its own names", {}, (model,), lambda tensors: {})
    if kind is None:
        raise UserError(
            f"{path} holds {len(tensors)} tensors ({', '.join(list(own.values())[:4])},"
            f" ...) and is of no known kind ({', '.join(kind.name for kind in KINDS)}):"
            " name its network with --model."
        )
    counting, axis = kind.classes
    if counting and tensors.get(counting, np.empty(0)).ndim != 4:
        raise UserError(
            f"{path} looks like {kind.name}, but {prefix}{counting}, which tells the "
            "number of classes, is missing or no convolution: give the whole file."
        )
    num_classes = tensors[counting].shape[axis] if counting else 0
    try:
        options = kind.options(tensors)
    except UserError as error:
        raise UserError(f"{path} looks like {kind.name}, but {error}") from error
    random = copy == "imagenet" and not kind.table
    kept = {}
    for name, tensor in tensors.items():
        drops = (COUNTERS, *kind.drops, *([RANDOM_HEAD] if random else ()))
        rule = next((rule for pattern, rule in drops if re.match(pattern, name)), "")
        if not rule:
            kept[name] = tensor
        elif name in own:
            dropped.setdefault(rule, []).append(own[name])
    return Recognised(
        kind, kept, own, options, num_classes, dropped, random or bool(kind.table)
    )


def printable(name: Any) -> str:
    """A name from a file as text that cannot break a sentence or a terminal."""
    text = str(name)
    return text if text.isprintable() else ascii(text)


def _origins(rename, tensors, own) -> dict[str, str]:
    """Names after `rename` -> the file's, by sending numbers through it as arrays."""
    names = list(tensors)
    numbers = {
        name: np.full((1,) * tensor.ndim, number, np.float64)
        for number, (name, tensor) in enumerate(tensors.items(), 1)
    }
    found = {}
    for name, array in rename(numbers).items():
        # What it adds itself is 0.
        if parts := [own[names[int(n) - 1]] for n in np.unique(array) if n]:
            found[name] = " + ".join(parts)
    return found


def _kind_of(tensors) -> Kind | None:
    for kind in KINDS:
        if all(
            name in tensors and _has_shape(tensors[name], shape)
            for name, shape in kind.has.items()
        ):
            return kind
    return None


def _has_shape(tensor, shape: Shape) -> bool:
    return tensor.ndim == len(shape) and all(
        n in (None, m) for n, m in zip(shape, tensor.shape, strict=True)
    )


def _unwrap(saved, path, dropped) -> dict[str, np.ndarray]:
    for depth in range(WRAPPERS + 1):
        if not isinstance(saved, Mapping):
            break
        wrapped = [k for k in ("state_dict", "model") if isinstance(saved.get(k), dict)]
        if not wrapped:
            break
        if depth == WRAPPERS:
            raise UserError(
                f"{path} holds a {wrapped[0]} inside of {WRAPPERS} others: give a file "
                "with one state_dict."
            )
        beside = [printable(key) for key in saved if key != wrapped[0]]
        if beside:
            dropped.setdefault("beside the network's weights", []).extend(beside)
        saved = saved[wrapped[0]]
    if not isinstance(saved, Mapping) or not saved:
        raise UserError(
            f"{path} holds {type(saved).__name__}, no tensors by name: give a file "
            "with a state_dict."
        )
    for name, tensor in saved.items():
        if not isinstance(tensor, np.ndarray) or not isinstance(name, str):
            raise UserError(
                f"{path} holds {type(tensor).__name__} under {name!r} where a tensor "
                "should be: give a file with a state_dict."
            )
        if not name.isprintable():
            raise UserError(
                f"{path} holds a tensor of the name {name!a}, and names are "
                "letters, digits and dots: give the file as it was saved."
            )
    return dict(saved)


def _choose_copy(tensors, path, copy, prefix, dropped) -> str:
    """`prefix` with that of the copy."""
    prefixes = {c: prefix + p for c, p in COPIES.items()}
    found = {n: c for n in tensors for c, p in prefixes.items() if n.startswith(p)}
    copies = [c for c in COPIES if c in found.values()]
    if copy not in copies:
        if copies or copy != "student":
            raise UserError(
                f"{path} holds no weights of the {copy}, only "
                f"{', '.join(copies) or 'one network'}: choose another --copy."
            )
        return prefix
    stray = [name for name in tensors if name not in found]
    if stray:
        raise UserError(
            f"{path} holds the {' and the '.join(copies)} and, in none of them, "
            f"{', '.join(stray[:4])}{', ...' if stray[4:] else ''}: give a file of the "
            "network's copies alone."
        )
    others = [name for name, which in found.items() if which != copy]
    if others:
        dropped[f"other copies than the {copy}"] = others
    return prefixes[copy]
