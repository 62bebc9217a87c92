"""Prepared data: examples resized once and kept where each is found at once.

`python -m uda_jax.data.prepare` writes a set; `find_prepared` takes it in place of the
originals, and the reader `prepared` opens its folder where there are no originals.  A
set is a folder of tensorflow-datasets:

    data/prepared/<data set>/<size, filter, format, key>/1.0.0/
        metadata.json       what it holds and what it was made from: `Description`
        class_counts.npz    pixels of each raw id in each label before the resizing
        <data set>-train.array_record-*, dataset_info.json, features.json

Labels are stored as raw ids, so that one set serves every label space.
"""

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from uda_jax.data.dataset import Dataset, check_one_of
from uda_jax.data.fingerprint import fingerprint
from uda_jax.data.records import Records, count_records, digits, open_split, set_name
from uda_jax.errors import UserError
from uda_jax.files import write_atomically
from uda_jax.labels import Coding, LabelSpace, get_coding, get_label_space, id_table

SPLIT, KEYS = "train", ("image", "label")
# The exact one first.
FORMATS = ("png", "jpeg")
# Of how sets are made: sets of another version are not looked at.
VERSION = "1.0.0"

_METADATA = "metadata.json"  # tensorflow-datasets' name


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
    found = _describe(Path(root))
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
    dataset: Dataset, fixed_ops: Sequence, folder: str | Path, *, only: str = ""
) -> tuple[Dataset | None, str]:
    """The same dataset, read from the set that was prepared from it, if there is one.

    A set fits when it holds the examples of `dataset` in their order, was made with
    `fixed_ops`, and no file has changed since (`uda_jax.data.fingerprint`).  Of two
    that fit, PNG, which is exact, comes before JPEG.  A dataset without labels may be
    read from a set with labels and still hands none out.

    Args:
      dataset: of original files.
      fixed_ops: from `uda_jax.data.geometry.split_fixed`; the prepared dataset has them
        behind it.
      folder: that sets are prepared in; it need not exist.
      only: the `Records.name` of the one set to take; "" for the best.

    Returns:
      (the dataset, ""), or (None, a sentence that says why a set of these examples does
      not fit), or (None, "") where there is none.

    Raises:
      UserError: a file of the dataset is missing.
    """
    wanted, fitting, reason = ops_text(fixed_ops), {}, ""
    for place in sorted(
        path.parent for path in Path(folder).glob(f"*/*/{VERSION}/{_METADATA}")
    ):
        try:
            found = _describe(place)
        except UserError as error:
            reason = str(error)
            continue
        if found.names != dataset.names or only not in ("", set_name(place)):
            continue
        if found.ops != wanted:
            misfit = f"{place} was made with {found.ops} instead of {wanted}"
        elif dataset.has_labels and not found.has_labels:
            misfit = f"{place} was prepared without labels"
        elif fingerprint(dataset) != _origin(found, dataset.has_labels):
            misfit = f"the original files have changed since {place} was prepared"
        else:
            fitting[found.format] = (place, found)
            continue
        reason = f"{misfit}: prepare the data again to read it faster."
    for format in FORMATS:
        if format in fitting:
            place, found = fitting[format]
            same = dataclasses.replace(
                dataset,
                store=_store(place, found, dataset.has_labels),
                sizes_may_differ=found.sizes_may_differ,
            )
            return same, ""
    return None, reason


def tfds_cityscapes(
    root: str | Path,
    *,
    label_space: str | LabelSpace,
    split: str = "train",
    labels: bool = True,
) -> Dataset:
    """Cityscapes as tensorflow-datasets' own builder prepared it.

    That builder is `cityscapes` with the configuration "semantic_segmentation", whose
    labels are the 34 raw ids; it needs tensorflow to write, and must be told
    file_format="array_record".  Images are named by its image_id.  To learn them all
    records are read once; they are kept in <root>/image_ids_<split>.json where that can
    be written.

    Args:
      root: folder with dataset_info.json, such as .../semantic_segmentation/1.0.0.
      label_space: one that shares classes with Cityscapes.
      split: "train", "validation" or "test".
      labels: whether to read labels.

    Raises:
      UserError: the folder is no such data set, is damaged, or has no such split.
    """
    import tensorflow_datasets as tfds

    root, keys = Path(root), ("image_left", "segmentation_label")
    try:
        info = tfds.builder_from_directory(root).info
        missing = {*keys, "image_id"} - set(info.features)
        lengths = {name: part.num_examples for name, part in info.splits.items()}
    except Exception as error:  # tensorflow-datasets raises a dozen kinds
        raise UserError(
            f"{root} is no folder of tensorflow-datasets: give the one that holds "
            "dataset_info.json, such as cityscapes/semantic_segmentation/1.0.0."
        ) from error
    if missing:
        raise UserError(
            f'{root} has no feature "{min(missing)}": give the configuration '
            "semantic_segmentation of tensorflow-datasets' cityscapes."
        )
    if info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise UserError(
            f"{root} is stored as {info.file_format.value}, where examples cannot be "
            'read in any order: prepare it with file_format="array_record".'
        )
    check_one_of(f"split of {root}", split, lengths)
    names = _image_ids(root, split, lengths[split])
    space = get_label_space(label_space)
    coding = get_coding("cityscapes", space) if labels else {}
    if labels:
        id_table(space, coding)
    own = digits((root / "dataset_info.json").read_text("utf-8"), split, *names)
    store = Records(str(root), split, keys, tuple(range(len(names))), labels, own)
    return Dataset(label_space=space, names=names, store=store, coding=coding)


def _describe(place: Path) -> Description:
    """What the set in a folder holds; the set is whole.

    Raises:
      UserError: it is not, or there is none.
    """
    path = place / _METADATA
    try:
        values = json.loads(path.read_text("utf-8"))
        values["coding"] = {int(raw): name for raw, name in values["coding"].items()}
        values |= {key: tuple(values[key]) for key in ("names", "weights")}
        found = Description(**values)
    except FileNotFoundError as error:
        raise UserError(
            f"{path} does not exist: give the folder of a whole prepared set, which "
            "python -m uda_jax.data.prepare names at its end."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be read or is of another version: delete {place} and "
            "prepare the data again."
        ) from error
    if (count := count_records(place)) != len(found.names):
        raise UserError(
            f"{place} holds {count} of its {len(found.names)} examples: delete it and "
            "prepare the data again."
        )
    return found


def _store(place: Path, found: Description, labels: bool) -> Records:
    every = tuple(range(len(found.names)))
    return Records(str(place), SPLIT, KEYS, every, labels, _origin(found, labels))


def _origin(found: Description, labels: bool) -> str:
    return found.fingerprint if labels else found.images_fingerprint


def _image_ids(root: Path, split: str, count: int) -> tuple[str, ...]:
    """The image_id of every record of tensorflow-datasets' cityscapes, in order."""
    path = root / f"image_ids_{split}.json"
    try:
        names = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        names = []
    if len(names) == count:
        return tuple(names)
    records = open_split(str(root), split)
    try:
        with ThreadPoolExecutor(8) as pool:
            read = pool.map(lambda i: records[i]["image_id"].decode(), range(count))
            names = list(read)
    except Exception as error:  # array_record has no errors of its own
        raise UserError(
            f"the records of {root} are damaged or gone: prepare that data set again."
        ) from error
    with contextlib.suppress(OSError):  # a folder of somebody else's
        write_atomically(path, json.dumps(names) + "\n")
    return tuple(names)
