"""Cities in bad weather and at night: ACDC and Dark Zurich (Sakaridis et al.)."""

from pathlib import Path

from uda_jax.data.dataset import Dataset, check_one_of, existing_folder
from uda_jax.data.list_files import listed
from uda_jax.data.listing import (
    Example,
    LabelKind,
    check_some_of,
    images_in,
    open_examples,
)
from uda_jax.errors import UserError
from uda_jax.labels import LabelSpace

CONDITIONS = ("fog", "night", "rain", "snow")

_SPLITS = ("train", "val", "test")
_ENDING = "_rgb_anon.png"
_LABELS = {
    "train_ids": LabelKind("_gt_labelTrainIds.png", "cityscapes_train_ids"),
    "label_ids": LabelKind("_gt_labelIds.png", "cityscapes"),
}


def acdc(
    root: str | Path,
    *,
    label_space: str | LabelSpace,
    split: str = "train",
    conditions: tuple[str, ...] = (),
    label_files: str = "train_ids",
    list_file: str = "",
    labels: bool = True,
) -> Dataset:
    """ACDC (ICCV 2021): rgb_anon/<condition>/<split>/<sequence>/ and the same in gt/.

    The tree that DAFormer's instructions make is read as well: rgb_anon/<split>/ and
    gt/<split>/ with the files of all conditions; they say no longer which it was.

    Args:
      root: folder that contains rgb_anon and gt.
      label_space: one that shares classes with Cityscapes.
      split: "train" (1,600 images), "val" (406) or "test" (2,000, labels not public).
      conditions: some of "fog", "night", "rain" and "snow", in the order of the
        dataset; () for all.
      label_files: "train_ids" reads *_gt_labelTrainIds.png, "label_ids"
        *_gt_labelIds.png.
      list_file: chooses and orders the images, see `uda_jax.data.list_files`.
      labels: whether to read labels.

    Raises:
      UserError: a folder or a label is missing, there are no images, conditions are
        asked of the tree without them, or the list names an image that is not there.
    """
    top = existing_folder(Path(root) / "rgb_anon")
    check_one_of("split", split, _SPLITS)
    check_some_of("condition", conditions, CONDITIONS)
    if any((top / condition).is_dir() for condition in CONDITIONS):
        folders = [f"{condition}/{split}" for condition in conditions or CONDITIONS]
        missing = [folder for folder in folders if not (top / folder).is_dir()]
        if missing:
            raise UserError(
                f"{top} has no folder {missing[0]}: unpack it, or choose conditions "
                "that are there."
            )
        where = top / "<condition>" / split / f"<sequence>/*{_ENDING}"
    elif conditions:
        raise UserError(
            f"{top} has no folders of conditions, so conditions={conditions} cannot be "
            "told apart: unpack ACDC as it is published or take conditions=()."
        )
    else:
        folders = [split]
        where = top / split / f"*{_ENDING}"
    examples = [e for folder in folders for e in _examples(Path(root), folder)]
    return open_examples(
        listed(examples, list_file, where),
        where,
        _LABELS,
        label_files,
        label_space=label_space,
        labels=labels,
    )


def dark_zurich(
    root: str | Path,
    *,
    label_space: str | LabelSpace,
    split: str = "train",
    label_files: str = "train_ids",
    list_file: str = "",
    labels: bool = True,
) -> Dataset:
    """Dark Zurich (ICCV 2019): rgb_anon/<split>/night/<sequence>/, the same in gt/.

    Only images taken at night; those by day and at twilight are no part of it.  The
    files may also lie in rgb_anon/<split>/ and gt/<split>/ themselves.

    Args:
      root: folder that contains rgb_anon and gt.
      label_space: one that shares classes with Cityscapes.
      split: "train" (2,416 images without labels), "val" (50) or "test" (151, labels
        not public).
      label_files, list_file, labels: as in `acdc`.

    Raises:
      UserError: a folder or a label is missing, there are no images, or the list names
        one that is not there.
    """
    top = existing_folder(Path(root) / "rgb_anon")
    check_one_of("split", split, _SPLITS)
    nested = (top / split / "night").is_dir()
    folder = f"{split}/night" if nested else split
    where = top / folder / (f"<sequence>/*{_ENDING}" if nested else f"*{_ENDING}")
    return open_examples(
        listed(_examples(Path(root), folder, recursive=nested), list_file, where),
        where,
        _LABELS,
        label_files,
        label_space=label_space,
        labels=labels,
    )


def _examples(root: Path, folder: str, *, recursive: bool = True) -> list[Example]:
    """The images of rgb_anon/<folder> with labels at the same place in gt/<folder>."""
    top = root / "rgb_anon"
    examples = []
    for image in images_in(top / folder, _ENDING, recursive=recursive):
        name = image.name.removesuffix(_ENDING)
        label = root / "gt" / image.parent.relative_to(top) / name
        examples.append(Example(name, image, label))
    return examples
