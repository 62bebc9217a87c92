"""Target cities of TUFL, CamVid and the parking lots of SS-ADA."""

from pathlib import Path

from uda_jax.data.dataset import Dataset, check_one_of, existing_folder
from uda_jax.data.list_files import listed
from uda_jax.data.listing import (
    Example,
    LabelKind,
    check_some_of,
    choose_folder,
    images_in,
    open_examples,
)
from uda_jax.labels import LabelSpace

_CROSSCITY = {"label_ids": LabelKind("_eval.png", "cityscapes")}
_CAMVID = {"label_ids": LabelKind(".png", "camvid")}
_PARKING = {"train_ids": LabelKind(".png", "parking")}


def crosscity(
    root: str | Path,
    *,
    label_space: str | LabelSpace,
    city: str,
    split: str = "Train",
    list_file: str = "",
    labels: bool = True,
) -> Dataset:
    """CrossCity (NTHU): <city>/Images/<split>/, <city>/Labels/<split>/<name>_eval.png.

    Chen et al., ICCV 2017.  Images are JPEG, or PNG in some copies.  An image's name is
    its file name up to the first dot.  The published data has labels for the split Test
    only.

    Args:
      root: folder that contains the cities' folders.
      label_space: one that shares classes with Cityscapes.
      city: a folder's name, or "all" for every city, in alphabetical order.
      split: "Train" or "Test".
      list_file: chooses and orders the images, see `uda_jax.data.list_files`.
      labels: whether to read labels.

    Raises:
      UserError: a folder or a label is missing, there are no images, or the list names
        one that is not there.
    """
    root = existing_folder(Path(root))
    check_one_of("split", split, ("Train", "Test"))
    if city == "all":
        cities = sorted(p.name for p in root.iterdir() if (p / "Images").is_dir())
    else:
        cities = [choose_folder(root, "city", city).name]
    examples = []
    for name in cities:
        for path in images_in(root / name / "Images" / split):
            stem = path.name.split(".")[0]
            label = root / name / "Labels" / split / stem
            examples.append(Example(f"{name}/{stem}", path, label))
    where = root / (city if city != "all" else "<city>") / "Images" / split
    return open_examples(
        listed(examples, list_file, where),
        where,
        _CROSSCITY,
        "label_ids",
        label_space=label_space,
        labels=labels,
    )


def camvid(
    root: str | Path,
    *,
    label_space: str | LabelSpace,
    split: str,
    sequences: tuple[str, ...] = (),
    list_file: str = "",
    labels: bool = True,
) -> Dataset:
    """CamVid with 11 classes: <split>/images/<sequence>_<frame> and <split>/labels/.

    Args:
      root: folder that contains train, val and test.
      label_space: "camvid11", or another that shares classes with it.
      split: "train", "val" or "test".
      sequences: the drives to keep, such as ("0006R0", "0016E5"); () for all.
      list_file: chooses and orders the images, see `uda_jax.data.list_files`.
      labels: whether to read labels.

    Raises:
      UserError: a folder, a sequence or a label is missing, there are no images, or the
        list names one that is not there.
    """
    root = existing_folder(Path(root))
    check_one_of("split", split, ("train", "val", "test"))
    where = root / split / "images"
    images = images_in(where)
    present = sorted({_sequence(path) for path in images})
    check_some_of(f"sequence of {root / split}", sequences, present)
    examples = [
        Example(path.stem, path, root / split / "labels" / path.stem)
        for path in images
        if not sequences or _sequence(path) in sequences
    ]
    return open_examples(
        listed(examples, list_file, where),
        where,
        _CAMVID,
        "label_ids",
        label_space=label_space,
        labels=labels,
    )


def parking(
    root: str | Path,
    *,
    label_space: str | LabelSpace,
    split: str = "train",
    list_file: str = "",
    labels: bool = True,
) -> Dataset:
    """SS-ADA's views of parking lots from above: image/<split>/<time>.png and
    label/<split>/<time>.png, which hold train ids.

    Args:
      root: folder that contains image and label.
      label_space: "parking7", or another that shares classes with it.
      split: folder below image: "train" or "val".
      list_file: chooses and orders the images, see `uda_jax.data.list_files`.
      labels: whether to read labels.

    Raises:
      UserError: a folder or a label is missing, there are no images, or the list names
        one that is not there.
    """
    root = Path(root)
    where = choose_folder(root / "image", "split", split)
    examples = [
        Example(path.stem, path, root / "label" / split / path.stem)
        for path in images_in(where)
    ]
    return open_examples(
        listed(examples, list_file, where),
        where,
        _PARKING,
        "train_ids",
        label_space=label_space,
        labels=labels,
    )


def _sequence(path: Path) -> str:
    return path.stem.rpartition("_")[0] or path.stem
