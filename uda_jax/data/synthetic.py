"""Drawn cities: GTA5 (Richter et al., ECCV 2016), SYNTHIA (Ros et al., CVPR 2016)."""

from collections.abc import Sequence
from pathlib import Path

from uda_jax.data.dataset import Dataset, check_one_of
from uda_jax.data.list_files import listed
from uda_jax.data.listing import Example, LabelKind, images_in, open_examples
from uda_jax.errors import UserError
from uda_jax.labels import LabelSpace

# Converted labels are those that DAFormer's and SS-ADA's programs write.
_CONVERTED = LabelKind("_labelTrainIds.png", "cityscapes_train_ids")
_GTA5_LABELS = {"label_ids": LabelKind(".png", "gta5"), "train_ids": _CONVERTED}
_SYNTHIA_LABELS = {
    "label_ids": LabelKind(".png", "synthia", "synthia"),
    "train_ids": _CONVERTED,
}
# MaxSquare's lists: images 0 to 8999 are for training, 9000 to 9399 for validation.
_SYNTHIA_VALIDATION = 9000


def gta5(
    root: str | Path,
    *,
    label_space: str | LabelSpace,
    split: str = "all",
    label_files: str = "label_ids",
    list_file: str = "",
    labels: bool = True,
) -> Dataset:
    """GTA5 (Playing for Data): images/<number>.png and labels/<number>.png.

    A few labels have another size than their image, so the items come as they are (see
    `Dataset.sizes_may_differ`).

    Args:
      root: folder that contains images, labels and, for the official splits, split.mat.
      label_space: one that shares classes with Cityscapes.
      split: "all" (24,966 images: ADVENT, DAFormer), or "train" (12,403: MaxSquare),
        "val" (6,382) and "test" (6,181), which GTA5's own split.mat defines.
      label_files: "label_ids" reads the published palette images; "train_ids"
        labels/<number>_labelTrainIds.png.
      list_file: chooses and orders the images, see `uda_jax.data.list_files`; or the
        path of split.mat, where it is not in `root`.
      labels: whether to read labels.

    Raises:
      UserError: a folder, a label or split.mat is missing, there are no images, or a
        split or list names one that is not there.
    """
    root = Path(root)
    check_one_of("split", split, ("all", "train", "val", "test"))
    where = root / "images"
    examples: Sequence[Example] = _flat(images_in(where), root / "labels")
    split_file = root / "split.mat"
    if list_file.endswith(".mat"):
        if split == "all":
            raise UserError(
                f'list_file="{list_file}" holds several splits: choose split="train", '
                '"val" or "test".'
            )
        split_file, list_file = Path(list_file), ""
    if split != "all":
        examples = _in_split(examples, split, split_file, where)
    return open_examples(
        listed(examples, list_file, where),
        where,
        _GTA5_LABELS,
        label_files,
        label_space=label_space,
        labels=labels,
        sizes_may_differ=True,
    )


def synthia(
    root: str | Path,
    *,
    label_space: str | LabelSpace,
    split: str = "all",
    label_files: str = "label_ids",
    list_file: str = "",
    labels: bool = True,
) -> Dataset:
    """SYNTHIA-RAND-CITYSCAPES: RGB/<number>.png and GT/LABELS/<number>.png.

    The published labels are PNG with 16 bits and three channels, of which the first
    holds the class.

    Args:
      root: folder that contains RGB and GT.
      label_space: one that shares classes with SYNTHIA; of the 19 classes of
        Cityscapes its images show 16.
      split: "all" (9,400 images: ADVENT, DAFormer), or "train" (0 to 8999) and "val"
        (9000 to 9399), by the numbers in the files' names, as in MaxSquare's lists.
      label_files: "label_ids" reads the published labels; "train_ids"
        GT/LABELS/<number>_labelTrainIds.png.
      list_file: chooses and orders the images, see `uda_jax.data.list_files`.
      labels: whether to read labels.

    Raises:
      UserError: a folder or a label is missing, there are no images or none of the
        split, a split is asked of names that are no numbers, or the list names an image
        that is not there.
    """
    root = Path(root)
    check_one_of("split", split, ("all", "train", "val"))
    where = root / "RGB"
    examples: Sequence[Example] = _flat(images_in(where), root / "GT/LABELS")
    if split != "all":
        examples = _numbered(examples, split, where)
    return open_examples(
        listed(examples, list_file, where),
        where,
        _SYNTHIA_LABELS,
        label_files,
        label_space=label_space,
        labels=labels,
    )


def _flat(images: Sequence[Path], label_folder: Path) -> list[Example]:
    return [Example(path.stem, path, label_folder / path.stem) for path in images]


def _numbered(examples: Sequence[Example], split: str, where: Path) -> list[Example]:
    """The examples of one of SYNTHIA's splits."""
    other = [e.image.name for e in examples if not e.name.isdecimal()]
    if other:
        raise UserError(
            f'split "{split}" of SYNTHIA goes by the numbers of its images, but '
            f"{where} has {other[0]}: restore the published names or choose "
            'split="all".'
        )
    validation = split == "val"
    chosen = [e for e in examples if (int(e.name) >= _SYNTHIA_VALIDATION) == validation]
    if examples and not chosen:
        raise UserError(
            f"none of the {len(examples)} images in {where} has a number "
            f"{'from' if validation else 'below'} {_SYNTHIA_VALIDATION}, as those of "
            f'split "{split}" have: unpack all 9,400 or choose split="all".'
        )
    return chosen


def _in_split(
    examples: Sequence[Example], split: str, path: Path, where: Path
) -> list[Example]:
    """The examples of one of GTA5's official splits, in the order of their numbers."""
    numbers = _split_numbers(path, split)
    by_name = {example.name: example for example in examples}
    names = [f"{number:05d}" for number in numbers]
    missing = [name for name in names if name not in by_name]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(names)} images of {split}Ids in {path} are "
            f"not in {where}, the first is {missing[0]}.png: unpack all ten parts of "
            "GTA5's images."
        )
    return [by_name[name] for name in names]


def _split_numbers(path: Path, split: str) -> list[int]:
    """Image numbers of a split, sorted, from a MATLAB file with <split>Ids [N, 1]."""
    if not path.is_file():
        raise UserError(
            f'split "{split}" of GTA5 needs its split file, but {path} does not exist: '
            "download split.mat from the data set's site (Playing for Data) and put it "
            'there, or choose split="all", which needs none.'
        )
    import scipy.io  # takes as long as all the rest of the readers

    key = f"{split}Ids"
    try:
        values = scipy.io.loadmat(path, variable_names=[key])[key]
        return sorted(values.ravel().astype(int).tolist())
    # loadmat raises nearly anything on a file that is none of MATLAB's.
    except Exception as error:
        raise UserError(
            f"split file {path} has no numbers {key} that can be read "
            f"({type(error).__name__}): download GTA5's split.mat again."
        ) from error
