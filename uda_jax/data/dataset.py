"""A random-access dataset of images and labels, and the checks of all its readers."""

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from uda_jax.data.images import read_image, read_label
from uda_jax.errors import UserError, did_you_mean
from uda_jax.labels import (
    ID_TABLES,
    LABEL_SPACES,
    LabelSpace,
    get_label_space,
    train_id_table,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Images, and labels if there are any, decoded one by one; picklable.

    `dataset[i]` is {"image": uint8 [H, W, 3] RGB, "label": uint8 [H, W] train ids,
    "name": str, "weight": float32 scalar}.  "label" is absent when the dataset was
    opened without labels, "weight" when its manifest gives none.  Decoding raises
    UserError for a file that cannot be used (see `uda_jax.data.images`) and for a label
    whose size is not its image's.

    Attributes:
      label_space: classes of the train ids.
      names: one per image, unique.
      images: paths.
      labels: paths, or () without labels.
      id_table: raw id in the label files -> train id.
      weights: one per image, or ().
    """

    label_space: LabelSpace
    names: tuple[str, ...]
    images: tuple[str, ...]
    labels: tuple[str, ...] = ()
    id_table: Mapping[int, int] = dataclasses.field(default_factory=dict)
    weights: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = read_image(self.images[index])
        item = {"image": image, "name": self.names[index]}
        if self.labels:
            label = read_label(self.labels[index], self.id_table)
            if label.shape != image.shape[:2]:
                raise UserError(
                    f"label {self.labels[index]} is {_size(label)} but its image "
                    f"{self.images[index]} is {_size(image)} (height x width): they "
                    "must be equal, so resize one of them (labels by nearest)."
                )
            item["label"] = label
        if self.weights:
            item["weight"] = np.float32(self.weights[index])
        return item


def make_dataset(
    label_space: str,
    coding: str,
    where: Path,
    names: list[str],
    images: list[Path],
    labels: list[Path] | None,
) -> Dataset:
    """Checks what every reader must check and makes the Dataset.

    Args:
      label_space: key of `LABEL_SPACES`.
      coding: of the label files: a dataset's name, "label_ids" for the raw ids of the
        label space's own dataset, or "train_ids".
      where: pattern of the images, for messages.
      names, images, labels: one per image; labels None when they are not read.

    Raises:
      UserError: the label space is unknown or not made of this coding, there are no
        images, two share a name, or one has no label.
    """
    space = get_label_space(label_space)
    if coding in ("label_ids", space.coding):
        id_table = ID_TABLES[label_space]
    elif coding == "train_ids":
        id_table = train_id_table(space.num_classes)
    elif made_of_it := [s.name for s in LABEL_SPACES.values() if s.coding == coding]:
        raise UserError(
            f'label space "{label_space}" is not made of {coding} label ids: choose '
            f"one of {', '.join(made_of_it)}."
        )
    else:
        check_one_of("coding", coding, ("train_ids", "label_ids"))
    if not images:
        raise UserError(
            f"no images match {where}: check the path and that the download was "
            "unpacked there."
        )
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(
            f'two images in {where} have the name "{twice}" and would share one label: '
            "rename or remove one."
        )
    if labels is not None:
        pairs = zip(images, labels, strict=True)
        missing = [(image, label) for image, label in pairs if not label.is_file()]
        if missing:
            image, label = missing[0]
            raise UserError(
                f"{len(missing)} of {len(images)} images in {where} have no label, the "
                f"first is {image.name} (expected {label}): add the labels or remove "
                "the images."
            )
    return Dataset(
        label_space=space,
        names=tuple(names),
        images=tuple(map(str, images)),
        labels=tuple(map(str, labels or ())),
        id_table=id_table if labels is not None else {},
    )


def existing_folder(path: Path) -> Path:
    """`path`, which must be a folder.

    Raises:
      UserError: it is not; names the first folder above it that is missing too.
    """
    if path.is_dir():
        return path
    missing = path
    while not missing.parent.is_dir():
        missing = missing.parent
    also = "" if missing == path else f" (nor does {missing})"
    raise UserError(
        f"folder {path} does not exist{also}: set the dataset's root to the folder "
        "that it was unpacked into."
    )


def check_one_of(kind: str, name: str, allowed: Collection[str]) -> None:
    """Raises UserError where `name` is not one of `allowed`."""
    if name not in allowed:
        raise UserError(
            f'{kind} "{name}" is unknown{did_you_mean(name, allowed)}: '
            f"choose one of {', '.join(allowed)}."
        )


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[0]} x {pixels.shape[1]}"
