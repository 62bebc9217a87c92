"""A random-access dataset of images and labels, wherever their bytes are stored."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from uda_jax.data.images import check_ids, read_image, read_raw_label
from uda_jax.errors import UserError, did_you_mean
from uda_jax.labels import (
    Coding,
    LabelSpace,
    get_coding,
    get_label_space,
    id_table,
    lookup,
)


Size = tuple[int, int]  # (height, width)


class Store(Protocol):
    """Where the pixels of a dataset are; picklable."""

    has_labels: bool

    def image(self, index: int) -> np.ndarray:
        """uint8 [H, W, 3] RGB."""

    def raw_label(self, index: int) -> np.ndarray:
        """uint8 [h, w] raw ids, as stored."""

    def where(self, index: int) -> tuple[str, str]:
        """What messages call the image and its label."""

    def select(self, indices: Sequence[int]) -> "Store":
        """The store of some of the examples."""


@dataclasses.dataclass(frozen=True, eq=False)
class Files:
    """One file for each image and each label.

    Attributes:
      images: paths.
      labels: paths, or () without labels.
      label_format: key of `uda_jax.data.images.LABEL_FORMATS`.
    """

    images: tuple[str, ...]
    labels: tuple[str, ...] = ()
    label_format: str = "ids"

    @property
    def has_labels(self) -> bool:
        return bool(self.labels)

    def image(self, index: int) -> np.ndarray:
        return read_image(self.images[index])

    def raw_label(self, index: int) -> np.ndarray:
        return read_raw_label(self.labels[index], self.label_format)

    def where(self, index: int) -> tuple[str, str]:
        return self.images[index], self.labels[index] if self.labels else ""

    def select(self, indices: Sequence[int]) -> "Files":
        return dataclasses.replace(
            self,
            images=tuple(self.images[i] for i in indices),
            labels=tuple(self.labels[i] for i in indices) if self.labels else (),
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
      store: the pixels.
      coding: what the raw ids of the labels mean: {raw id: class or ""}.
      sizes_may_differ: some of the published labels have another size than their image
        (GTA5): then items are returned as they are, and the first op that resizes or
        crops brings image and label to one size.
      weights: one per image, or ().
    """

    label_space: LabelSpace
    names: tuple[str, ...]
    store: Store
    coding: Coding = dataclasses.field(default_factory=dict)
    sizes_may_differ: bool = False
    weights: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def has_labels(self) -> bool:
        return self.store.has_labels

    @property
    def id_table(self) -> Mapping[int, int]:
        """Raw id -> train id."""
        return id_table(self.label_space, self.coding)

    def raw_label(self, index: int) -> np.ndarray:
        """uint8 [h, w] raw ids, every one of them known to `coding`."""
        raw = self.store.raw_label(index)
        check_ids(raw, self.coding, self.store.where(index)[1])
        return raw

    def label(self, index: int) -> np.ndarray:
        """uint8 [h, w] train ids or `IGNORE`."""
        return self.train_ids(self.raw_label(index))

    def train_ids(self, raw: np.ndarray) -> np.ndarray:
        """uint8 [h, w] train ids or `IGNORE` of raw ids, all known to `coding`."""
        # Twenty times as fast as indexing the table by the label.
        return cv2.LUT(raw, lookup(self.id_table))

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = self.store.image(index)
        item = {"image": image, "name": self.names[index]}
        if self.has_labels:
            label = self.label(index)
            if label.shape != image.shape[:2] and not self.sizes_may_differ:
                raise self.wrong_size(index, image.shape[:2], label.shape)
            item["label"] = label
        if self.weights:
            item["weight"] = np.float32(self.weights[index])
        return item

    def wrong_size(self, index: int, image: Size, label: Size) -> UserError:
        """What to say of a label whose size is not its image's."""
        image_name, label_name = self.store.where(index)
        return UserError(
            f"label {label_name} is {size_text(label)} but its image {image_name} is "
            f"{size_text(image)} (height x width): they must be equal, so resize one "
            "of them (labels by nearest)."
        )

    def select(self, indices: Sequence[int]) -> "Dataset":
        """The dataset of some of the examples, in this order."""
        return dataclasses.replace(
            self,
            names=tuple(self.names[i] for i in indices),
            store=self.store.select(indices),
            weights=tuple(self.weights[i] for i in indices) if self.weights else (),
        )


def make_dataset(
    label_space: str | LabelSpace,
    coding: str,
    where: Path,
    names: list[str],
    images: list[Path],
    labels: list[Path] | None,
    *,
    label_format: str = "ids",
    sizes_may_differ: bool = False,
) -> Dataset:
    """Checks what every reader must check and makes the Dataset.

    Args:
      label_space: key of `LABEL_SPACES`, or a user's own.
      coding: of the label files; see `uda_jax.labels.get_coding`.
      where: pattern of the images, for messages.
      names, images, labels: one per image; labels None when they are not read.
      label_format, sizes_may_differ: see `Files` and `Dataset`.

    Raises:
      UserError: the label space is unknown or shares no class with the coding, there
        are no images, or two share a name; MissingLabels: one has no label.
    """
    space = get_label_space(label_space)
    table = get_coding(coding, space)
    id_table(space, table)
    if not images:
        raise UserError(
            f"no images match {where}: check the path and that the download was "
            "unpacked there."
        )
    if len(set(names)) != len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))
        raise UserError(
            f'two images in {where} have the name "{twice}" and would share one label: '
            "rename or remove one."
        )
    dataset = Dataset(
        label_space=space,
        names=tuple(names),
        store=Files(
            tuple(map(str, images)), tuple(map(str, labels or ())), label_format
        ),
        coding=table if labels is not None else {},
        sizes_may_differ=sizes_may_differ,
    )
    missing = [i for i, label in enumerate(labels or ()) if not label.is_file()]
    if missing:
        image, label = images[missing[0]], labels[missing[0]]
        raise MissingLabels(
            f"{len(missing)} of {len(images)} images in {where} have no label, the "
            f"first is {image.name} (expected {label}): add the labels or remove the "
            "images.",
            dataset,
            missing,
        )
    return dataset


class MissingLabels(UserError):
    """Some images of a dataset have no label.

    Attributes:
      dataset: of all images, with the paths of all labels.
      missing: indices of those whose label is not there.
    """

    def __init__(self, message: str, dataset: Dataset, missing: list[int]):
        super().__init__(message)
        self.dataset, self.missing = dataset, missing


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


def size_text(size: Size) -> str:
    """ "1024 x 2048": height x width."""
    return f"{size[0]} x {size[1]}"
