"""Random-access datasets over folders of images and labels, as they were downloaded.

A reader only lists files; `Dataset` decodes one image, and its label, when it is asked
for it.  `SOURCES` maps the names that configs use to the readers.

A dataset opened with `labels=False` never looks for label files: its items have no
"label", so that none can leak into training, and the files need not exist.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from uda_jax.data.dataset import (
    Dataset,
    check_one_of,
    existing_folder,
    make_dataset,
)
from uda_jax.data.images import IMAGE_SUFFIXES
from uda_jax.errors import UserError


def cityscapes(
    root: str | Path,
    *,
    label_space: str,
    split: str = "train",
    fraction: float = 1.0,
    labels: bool = True,
) -> Dataset:
    """Cityscapes: leftImg8bit/<split>/<town>/ and gtFine/<split>/<town>/*_labelIds.png.

    Args:
      root: folder that contains leftImg8bit and gtFine.
      label_space: one made of Cityscapes label ids (19, 16 or 13 classes).
      split: folder below leftImg8bit.
      fraction: in (0, 1]; keeps every int(1 / fraction)-th image, as TUFL does.
      labels: whether to read labels.

    Raises:
      UserError: a folder or a label is missing, or there are no images.
    """
    root = Path(root)
    if not 0 < fraction <= 1:
        raise UserError(
            f"fraction={fraction} of the Cityscapes images is not in (0, 1]: "
            "give 1.0 for all images."
        )
    folder = _choose(existing_folder(root / "leftImg8bit"), "split", split)
    end = "_leftImg8bit.png"
    images = sorted(folder.glob(f"*/*{end}"))[:: int(1 / fraction)]
    names = [path.name.removesuffix(end) for path in images]
    label_paths = [
        root / "gtFine" / split / path.parent.name / f"{name}_gtFine_labelIds.png"
        for path, name in zip(images, names, strict=True)
    ]
    if labels:
        existing_folder(root / "gtFine" / split)
    return make_dataset(
        label_space,
        "cityscapes",
        folder / f"<town>/*{end}",
        names,
        images,
        label_paths if labels else None,
    )


def crosscity(
    root: str | Path,
    *,
    label_space: str,
    city: str,
    split: str = "Train",
    labels: bool = True,
) -> Dataset:
    """CrossCity (NTHU): <city>/Images/<split>/, <city>/Labels/<split>/<name>_eval.png.

    An image's name is its file name up to the first dot.  The published data has labels
    for the split Test only.

    Args:
      root: folder that contains the cities' folders.
      label_space: one made of Cityscapes label ids.
      city: a folder's name, or "all" for every city, in alphabetical order.
      split: "Train" or "Test".
      labels: whether to read labels.

    Raises:
      UserError: a folder or a label is missing, or there are no images.
    """
    root = existing_folder(Path(root))
    check_one_of("split", split, ("Train", "Test"))
    if city == "all":
        cities = sorted(p.name for p in root.iterdir() if (p / "Images").is_dir())
    else:
        cities = [_choose(root, "city", city).name]
    names, images, label_paths = [], [], []
    for name in cities:
        if labels:
            existing_folder(root / name / "Labels" / split)
        for path in _images_in(existing_folder(root / name / "Images" / split)):
            stem = path.name.split(".")[0]
            names.append(f"{name}/{stem}")
            images.append(path)
            label_paths.append(root / name / "Labels" / split / f"{stem}_eval.png")
    return make_dataset(
        label_space,
        "cityscapes",
        root / (city if city != "all" else "<city>") / "Images" / split,
        names,
        images,
        label_paths if labels else None,
    )


def camvid(
    root: str | Path,
    *,
    label_space: str,
    split: str,
    sequences: tuple[str, ...] = (),
    labels: bool = True,
) -> Dataset:
    """CamVid with 11 classes: <split>/images/<sequence>_<frame> and <split>/labels/.

    Args:
      root: folder that contains train, val and test.
      label_space: "camvid11".
      split: "train", "val" or "test".
      sequences: the drives to keep, such as ("0006R0", "0016E5"); () for all.
      labels: whether to read labels.

    Raises:
      UserError: a folder, a sequence or a label is missing, or there are no images.
    """
    root = existing_folder(Path(root))
    check_one_of("split", split, ("train", "val", "test"))
    images = _images_in(existing_folder(root / split / "images"))
    present = sorted({path.stem.rsplit("_", 1)[0] for path in images})
    for sequence in sequences:
        check_one_of(f"sequence of {root / split}", sequence, present)
    images = [
        p for p in images if not sequences or p.stem.rsplit("_", 1)[0] in sequences
    ]
    label_paths = [root / split / "labels" / f"{path.stem}.png" for path in images]
    if labels:
        existing_folder(root / split / "labels")
    return make_dataset(
        label_space,
        "camvid",
        root / split / "images",
        [path.stem for path in images],
        images,
        label_paths if labels else None,
    )


def folder(
    root: str | Path,
    *,
    label_space: str,
    images: str = "images",
    labels_dir: str = "labels",
    image_suffix: str = "",
    label_suffix: str = ".png",
    coding: str = "train_ids",
    labels: bool = True,
) -> Dataset:
    """Any two folders whose files have the same names; subfolders are searched.

    The label of <images>/a/b<image_suffix> is <labels_dir>/a/b<label_suffix>.

    Args:
      root: folder that contains both.
      label_space: classes of the labels.
      images: folder of images below `root`; "." for `root` itself.
      labels_dir: folder of labels below `root`.
      image_suffix: how image names end, such as "_rgb.png"; "" for every PNG and JPEG.
      label_suffix: what replaces that in the label's name.
      coding: "train_ids" when the labels hold train ids, "label_ids" when they hold the
        raw ids of the label space's dataset.
      labels: whether to read labels.

    Raises:
      UserError: a folder or a label is missing, or there are no images.
    """
    root = Path(root)
    top = existing_folder(root / images)
    names, paths, label_paths = [], [], []
    for path in _images_in(top, recursive=True):
        if not path.name.endswith(image_suffix):
            continue
        relative = path.relative_to(top).as_posix()
        # Two images may differ in the suffix alone; then both would claim one label.
        name = relative.removesuffix(image_suffix or path.suffix)
        names.append(name)
        paths.append(path)
        label_paths.append(root / labels_dir / f"{name}{label_suffix}")
    if labels:
        existing_folder(root / labels_dir)
    return make_dataset(
        label_space,
        coding,
        top / f"*{image_suffix}",
        names,
        paths,
        label_paths if labels else None,
    )


def manifest(
    root: str | Path,
    *,
    label_space: str,
    coding: str = "train_ids",
    labels: bool = True,
) -> Dataset:
    """A list of images in a file of JSON lines: {"image", "label"?, "weight"?}.

    Paths are relative to the manifest's folder.  Either every line has a "label" (when
    labels are read) and a "weight", or none has.

    Args:
      root: the manifest file.
      label_space: classes of the labels.
      coding: "train_ids" or "label_ids", see `folder`.
      labels: whether to read labels.

    Raises:
      UserError: the file is missing or empty, a line is wrong, or a file is missing.
    """
    path = Path(root)
    if not path.is_file():
        raise UserError(
            f"manifest {path} does not exist: give the path of a file with one JSON "
            'object {"image": ..., "label": ...} per line.'
        )
    rows = _manifest_rows(path)
    with_weight = [row for row in rows if "weight" in row]
    if with_weight and len(with_weight) != len(rows):
        raise UserError(
            f'manifest {path} has a "weight" on {len(with_weight)} of {len(rows)} '
            "lines: give it on every line or on none."
        )
    names = [row["image"] for row in rows]
    images = [path.parent / row["image"] for row in rows]
    _require(images, path, "image")
    label_paths = None
    if labels:
        unlabelled = [row["image"] for row in rows if "label" not in row]
        if unlabelled:
            raise UserError(
                f'manifest {path} has no "label" on {len(unlabelled)} of {len(rows)} '
                f"lines, the first for {unlabelled[0]}: add it."
            )
        label_paths = [path.parent / row["label"] for row in rows]
    weights = tuple(float(row["weight"]) for row in with_weight)
    dataset = make_dataset(label_space, coding, path, names, images, label_paths)
    return dataclasses.replace(dataset, weights=weights)


SOURCES: dict[str, Callable[..., Dataset]] = {
    "cityscapes": cityscapes,
    "crosscity": crosscity,
    "camvid": camvid,
    "folder": folder,
    "manifest": manifest,
}


def _manifest_rows(path: Path) -> list[dict]:
    rows = []
    allowed = {"image": str, "label": str, "weight": (int, float)}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"line {number} of manifest {path} is not JSON ({error.msg}): write "
                'one object {"image": ..., "label": ...} per line.'
            ) from error
        if not isinstance(row, dict) or "image" not in row:
            raise UserError(
                f'line {number} of manifest {path} has no "image": write one object '
                '{"image": ..., "label": ...} per line.'
            )
        for key, value in row.items():
            check_one_of(
                f"key in line {number} of manifest {path}", key, tuple(allowed)
            )
            if not isinstance(value, allowed[key]) or isinstance(value, bool):
                kind = "number" if key == "weight" else "path in quotes"
                raise UserError(
                    f'"{key}" in line {number} of manifest {path} is {value!r}: '
                    f"give a {kind}."
                )
        rows.append(row)
    return rows


def _choose(parent: Path, kind: str, name: str) -> Path:
    """The folder `name` of `parent`."""
    present = sorted(p.name for p in existing_folder(parent).iterdir() if p.is_dir())
    if not present:
        raise UserError(
            f"folder {parent} is empty: unpack the dataset into it or set its root to "
            "where it is."
        )
    check_one_of(f"{kind} of {parent}", name, present)
    return parent / name


def _images_in(path: Path, recursive: bool = False) -> list[Path]:
    found = path.rglob("*") if recursive else path.iterdir()
    return sorted(
        p
        for p in found
        if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")
    )


def _require(paths: list[Path], where: Path, kind: str) -> None:
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(paths)} {kind}s named by {where} do not exist, "
            f"the first is {missing[0]}: paths are relative to the manifest's folder."
        )
