"""Prepared data: examples resized once and kept where each is found at once.

`python -m uda_jax.data.prepare` writes a set; `find_prepared` takes it in place of the
originals, and the reader `prepared` opens its folder where there are no originals.  A
set is a folder of tensorflow-datasets:

    data/prepared/<data set>/<size, filter, format, key>/1.0.0/
        metadata.json       what it holds and what it was made from: `Description`
        class_counts.npz    pixels of each raw id in each label before the resizing
        <data set>-train.array_record-*, dataset_info.json, features.json
        files.json          sizes and digests of all these, written last: a set whose
                            files are not those is not read

Labels are stored as raw ids, so that one set serves every label space.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uda_jax.data.dataset import Dataset
from uda_jax.data.fingerprint import fingerprint
from uda_jax.data.records import Records, check_whole, set_name
from uda_jax.errors import UserError
from uda_jax.labels import Coding, LabelSpace, get_label_space, id_table

SPLIT, KEYS = "train", ("image", "label")
# The exact one first.
FORMATS = ("png", "jpeg")
# Of how sets are made: sets of another version are not looked at.
VERSION = "1.0.0"

_METADATA = "metadata.json"  # tensorflow-datasets' name
_FITS = 5  # above all ranks of `_misfit`


@dataclasses.dataclass(frozen=True)
class Description:
    """What a prepared set holds and what it was made from.

    Attributes:
      names: of the examples, in order.
      weights: one per example, or ().
      coding: what the raw ids mean; empty without labels.
      has_labels: whether labels are in it.
      sizes_may_differ: see `uda_jax.data.dataset.Dataset`.
      ops: what was applied, see `ops_text`.
      format: one of `FORMATS`, of the images.
      fingerprint: of the dataset that it was made from.
      images_fingerprint: of that dataset opened without labels.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    coding: Coding
    has_labels: bool
    sizes_may_differ: bool
    ops: str
    format: str
    fingerprint: str
    images_fingerprint: str

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def ops_text(ops: Sequence) -> str:
    """The ops as text, the same in every process."""
    return ", ".join(map(repr, ops)) or "no resizing"


def prepared(
    root: str | Path, *, label_space: str | LabelSpace, labels: bool = True
) -> Dataset:
    """A prepared set, opened without the files that it was made from.

    Args:
      root: the folder that holds its metadata.json.
      label_space: one that shares classes with its labels.
      labels: whether to read labels.

    Raises:
      UserError: this is no whole prepared set, it holds no labels, or the label space
        does not go with them.
    """
    if not (Path(root) / _METADATA).exists():
        raise UserError(
            f"{root} holds no {_METADATA}: give the folder of a whole prepared set, "
            "which python -m uda_jax.data.prepare names at its end."
        )
    found = check_set(Path(root))
    if labels and not found.has_labels:
        raise UserError(
            f"{root} was prepared without labels, as a target is: prepare the data "
            "with labels, as a source."
        )
    space = get_label_space(label_space)
    if labels:
        id_table(space, found.coding)
    return Dataset(
        label_space=space,
        names=found.names,
        store=_store(Path(root), found, labels),
        coding=found.coding if labels else {},
        sizes_may_differ=found.sizes_may_differ,
        weights=found.weights,
    )


def find_prepared(
    dataset: Dataset,
    fixed_ops: Sequence,
    folder: str | Path,
    *,
    only: str = "",
    reader: str = "",
) -> tuple[Dataset | None, str]:
    """The same dataset, read from the set that was prepared from it, if there is one.

    A set fits when it holds the examples of `dataset` in their order, was made with
    `fixed_ops`, is whole, and no file has changed since (`uda_jax.data.fingerprint`).
    Of two that fit, PNG, which is exact, comes before JPEG.  A dataset without labels
    may be read from a set with labels and still hands none out.

    Args:
      dataset: of original files.
      fixed_ops: from `uda_jax.data.geometry.split_fixed`; the prepared dataset has them
        behind it.
      folder: that sets are prepared in; it need not exist.
      only: the `Records.name` of the one set to take; "" for the best.
      reader: of the dataset: sets of other readers are not looked at; "" for any.

    Returns:
      (the dataset, ""), or (None, a sentence that says why the set that is closest to
      fitting does not), or (None, "") where there is none of such examples.

    Raises:
      UserError: a file of the dataset is missing.
    """
    wanted, fitting, misfits = ops_text(fixed_ops), {}, []
    for place in sorted(Path(folder).glob(f"{reader or '*'}/*/{VERSION}")):
        if only not in ("", set_name(place)):
            continue
        try:
            found = _describe(place)
        except UserError as error:
            misfits.append((0, str(error)))
            continue
        if set(found.names).isdisjoint(dataset.names):
            continue  # other data
        if misfit := _misfit(place, found, dataset, wanted):
            rank, what = misfit
            what += ": prepare the data again to read it faster."
            misfits.append((rank, what))
            continue
        try:
            # Last, so that nothing is said of damaged sets of other data.
            check_whole(place, len(found.names))
        except UserError as error:
            misfits.append((_FITS, str(error)))
            continue
        fitting[found.format] = (place, found)
    for format in FORMATS:
        if format in fitting:
            place, found = fitting[format]
            same = dataclasses.replace(
                dataset,
                store=_store(place, found, dataset.has_labels),
                sizes_may_differ=found.sizes_may_differ,
            )
            return same, ""
    return None, max(misfits, default=(0, ""))[1]


def _misfit(
    place: Path, found: Description, dataset: Dataset, ops: str
) -> tuple[int, str] | None:
    """(How close a set comes to fitting, why it does not); None where it does."""
    if found.names != dataset.names:
        before, now = len(found.names), len(dataset.names)
        if before == now:
            return 1, f"{place} holds other examples, or the same in another order"
        return 1, f"{place} holds {before:,} examples, the data set now has {now:,}"
    if found.ops != ops:
        return 2, f"{place} was made with {found.ops} instead of {ops}"
    if dataset.has_labels and not found.has_labels:
        return 3, f"{place} was prepared without labels"
    if fingerprint(dataset) != _origin(found, dataset.has_labels):
        return 4, f"the original files have changed since {place} was prepared"
    return None


def check_set(place: Path) -> Description:
    """What the set in a folder holds, which is all there.

    Raises:
      UserError: it is not.
    """
    found = _describe(place)
    check_whole(place, len(found.names))
    return found


def _describe(place: Path) -> Description:
    path = place / _METADATA
    try:
        values = json.loads(path.read_text("utf-8"))
        values["coding"] = {int(raw): name for raw, name in values["coding"].items()}
        values |= {key: tuple(values[key]) for key in ("names", "weights")}
        return Description(**values)
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is missing: delete {place} and prepare the data again."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be read or is of another version: delete {place} and "
            "prepare the data again."
        ) from error


def _store(place: Path, found: Description, labels: bool) -> Records:
    every = tuple(range(len(found.names)))
    origin = _origin(found, labels)
    return Records(str(place), SPLIT, KEYS, every, labels, origin, has_counts=True)


def _origin(found: Description, labels: bool) -> str:
    return found.fingerprint if labels else found.images_fingerprint
