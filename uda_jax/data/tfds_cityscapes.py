"""Cityscapes as tensorflow-datasets' own builder prepares it."""

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from uda_jax.data.dataset import Dataset, check_one_of
from uda_jax.data.fingerprint import digits
from uda_jax.data.records import Records, open_split
from uda_jax.errors import UserError
from uda_jax.files import write_atomically
from uda_jax.labels import LabelSpace, get_coding, get_label_space, id_table


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
    every = tuple(range(len(names)))
    store = Records(str(root), split, keys, every, labels, own, has_counts=False)
    return Dataset(label_space=space, names=names, store=store, coding=coding)


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
