"""Finds the files of a dataset and opens them: what all readers share."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from uda_jax.data.dataset import Dataset, check_one_of, existing_folder, make_dataset
from uda_jax.data.images import IMAGE_SUFFIXES
from uda_jax.errors import UserError
from uda_jax.labels import LabelSpace

# Images that would be left out without a word.
_OTHER_SUFFIXES = (".tif", ".tiff", ".bmp", ".webp", ".gif", ".jp2", ".ppm", ".heic")


class Example(NamedTuple):
    """One image of a dataset.

    Attributes:
      name: unique in the dataset.
      image: path.
      label: path of its label without the ending of its kind; it need not exist.
    """

    name: str
    image: Path
    label: Path


class LabelKind(NamedTuple):
    """One of the forms in which a dataset has its labels.

    Attributes:
      ending: of the files' names.
      coding: what their ids mean, see `uda_jax.labels.get_coding`.
      label_format: key of `uda_jax.data.images.LABEL_FORMATS`.
    """

    ending: str
    coding: str
    label_format: str = "ids"


def open_examples(
    examples: Sequence[Example],
    where: Path,
    kinds: Mapping[str, LabelKind],
    label_files: str,
    *,
    label_space: str | LabelSpace,
    labels: bool,
    sizes_may_differ: bool = False,
) -> Dataset:
    """The Dataset of some images.

    Args:
      examples: in the order of the dataset.
      where: pattern of the images, for messages.
      kinds: the forms in which this dataset can have its labels, by name.
      label_files: key of `kinds`.
      label_space, labels: see the readers.
      sizes_may_differ: see `Dataset`.

    Raises:
      UserError: what `make_dataset` refuses; `label_files` is unknown; or there are no
        labels at all, or only those of another kind.
    """
    check_one_of("label_files", label_files, kinds)
    kind = kinds[label_files]
    label_paths = [Path(f"{e.label}{kind.ending}") for e in examples]
    if labels and examples and not label_paths[0].is_file():
        _check_kind(examples[0].label, kinds, label_files)
        _check_folder(label_paths[0].parent, where)
    return make_dataset(
        label_space,
        kind.coding,
        where,
        [example.name for example in examples],
        [example.image for example in examples],
        label_paths if labels else None,
        label_format=kind.label_format,
        sizes_may_differ=sizes_may_differ,
    )


def _check_kind(label: Path, kinds: Mapping[str, LabelKind], label_files: str) -> None:
    """Raises UserError where a label is there in another kind."""
    for name, kind in kinds.items():
        if Path(f"{label}{kind.ending}").is_file():
            raise UserError(
                f'label_files="{label_files}" reads labels named '
                f"*{kinds[label_files].ending}, but {label.parent} has "
                f'{label.name}{kind.ending}: set label_files="{name}" or unpack the '
                "other labels."
            )


def _check_folder(folder: Path, where: Path) -> None:
    """Raises UserError where not even the folder of the labels exists."""
    missing = folder
    while not missing.parent.is_dir():
        missing = missing.parent
    if not missing.is_dir():
        raise UserError(
            f"label folder {missing} does not exist, so that {where} has no labels: "
            "unpack them there or choose a split that has labels."
        )


def images_in(folder: Path, ending: str = "", *, recursive: bool = False) -> list[Path]:
    """The image files of a folder, sorted by path, without hidden files.

    Args:
      folder: must exist.
      ending: of the files' names; "" for every PNG and JPEG.
      recursive: whether subfolders, and folders linked there, are searched as well.

    Raises:
      UserError: a folder does not exist or cannot be read, or a link makes it appear
        twice; or, without `ending`, there are images of other formats.
    """
    found: list[Path] = []
    others: list[Path] = []
    searched: dict[str, str] = {}
    endings = ending or IMAGE_SUFFIXES
    walk = os.walk(existing_folder(folder), onerror=_unreadable, followlinks=True)
    for parent, folders, files in walk:
        first = searched.setdefault(os.path.realpath(parent), parent)
        if first != parent:
            raise UserError(
                f"folders {first} and {parent} are the same through a link, so that "
                "images would be read twice: remove the link."
            )
        folders[:] = [f for f in folders if recursive and not f.startswith(".")]
        shown = [file for file in files if not file.startswith(".")]
        found += [
            Path(parent, file)
            for file in shown
            if (file if ending else file.lower()).endswith(endings)
        ]
        if not ending:
            others += [
                Path(parent, file)
                for file in shown
                if file.lower().endswith(_OTHER_SUFFIXES)
            ]
    if others:
        raise UserError(
            f"image {min(others)}, the first of {len(others)} such, is neither PNG nor "
            "JPEG: convert them or move them elsewhere."
        )
    return sorted(found, key=lambda path: path.parts)  # 3 times as fast as without


def _unreadable(error: OSError) -> None:
    raise UserError(
        f"folder {error.filename} cannot be read ({error.strerror}): change its "
        "permissions or unpack the dataset again."
    ) from error


def choose_folder(parent: Path, kind: str, name: str) -> Path:
    """The folder `name` of `parent`.

    Args:
      parent, name: folders.
      kind: what the folders are, for messages: "split", "city".

    Raises:
      UserError: `parent` is missing or empty, or has no such folder.
    """
    present = sorted(p.name for p in existing_folder(parent).iterdir() if p.is_dir())
    if not present:
        raise UserError(
            f"folder {parent} is empty: unpack the dataset into it or set its root to "
            "where it is."
        )
    check_one_of(f"{kind} of {parent}", name, present)
    return parent / name


def check_some_of(kind: str, names: Sequence[str], allowed: Collection[str]) -> None:
    """Raises UserError where `names` are not distinct members of `allowed`."""
    if isinstance(names, str):  # whose letters would be taken for names
        raise UserError(
            f'{kind} "{names}" is one string, but a tuple is needed: give ("{names}",).'
        )
    for name in names:
        check_one_of(kind, name, allowed)
    if len(set(names)) != len(names):
        raise UserError(
            f"{kind} {', '.join(names)}: one is given twice, so remove it once."
        )
