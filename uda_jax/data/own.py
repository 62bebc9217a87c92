"""A user's own data: two folders, or a list of files."""

import dataclasses
import json
import math
from pathlib import Path

from uda_jax.data.dataset import (
    Dataset,
    check_one_of,
    existing_folder,
    make_dataset,
)
from uda_jax.data.list_files import read_lines
from uda_jax.data.listing import images_in
from uda_jax.errors import UserError
from uda_jax.labels import LabelSpace, get_label_space

# Of a folder of `uda_jax.ranking`: written first, and last.
FACTS, SCORES = "ranking.json", "scores.csv"


def folder(
    root: str | Path,
    *,
    label_space: str | LabelSpace,
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
      label_suffix: what replaces that in the label's name; its format may also be in
        capitals (.PNG).
      coding: "train_ids" when the labels hold train ids, "label_ids" when they hold the
        raw ids of the label space's dataset.
      labels: whether to read labels.

    Raises:
      UserError: a folder or a label is missing, there are no images, or, without
        `image_suffix`, some are neither PNG nor JPEG.
    """
    root = Path(root)
    top = existing_folder(root / images)
    names, paths, label_paths = [], [], []
    for path in images_in(top, image_suffix, recursive=True):
        relative = path.relative_to(top).as_posix()
        # Two images may differ in the suffix alone; then both would claim one label.
        name = relative.removesuffix(image_suffix or path.suffix)
        names.append(name)
        paths.append(path)
        label_paths.append(root / labels_dir / f"{name}{label_suffix}")
    if labels:
        existing_folder(root / labels_dir)
        label_paths = [_or_in_capitals(path) for path in label_paths]
    return make_dataset(
        label_space,
        coding,
        top / f"*{image_suffix}",
        names,
        paths,
        label_paths if labels else None,
    )


def _or_in_capitals(path: Path) -> Path:
    """`path`, or <stem>.PNG where that exists instead, as for images."""
    capitals = path.with_suffix(path.suffix.upper())
    return capitals if capitals.is_file() and not path.is_file() else path


def manifest(
    root: str | Path,
    *,
    label_space: str | LabelSpace,
    coding: str = "train_ids",
    labels: bool = True,
) -> Dataset:
    """A list of images in a file of JSON lines: {"image", "label"?, "weight"?}.

    Paths are relative to the manifest's folder.  Either every line has a "label" (when
    labels are read) and a "weight", or none has.  The first line may be {"about": {...}}
    instead, as `python -m uda_jax.rank` writes it: its "classes" must then be those of
    `label_space` where labels are read, and labels may have another size than their
    image.

    Args:
      root: the manifest file.
      label_space: classes of the labels.
      coding: "train_ids" or "label_ids", see `folder`.
      labels: whether to read labels.

    Raises:
      UserError: the file is missing or empty, a line is wrong, a file is missing, or
        the labels are of other classes.
    """
    path = Path(root)
    about, rows = _manifest_rows(path)
    if labels and about is not None:
        _check_classes(path, about, get_label_space(label_space))
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
    dataset = make_dataset(
        label_space, coding, path, names, images, label_paths,
        sizes_may_differ=about is not None,
    )  # fmt: skip
    return dataclasses.replace(dataset, weights=weights)


def _check_classes(path: Path, about: dict, space: LabelSpace) -> None:
    """Raises a UserError where a manifest's pseudo-labels are of another space."""
    classes = about.get("classes")
    if classes is not None and tuple(classes) != space.classes:
        raise UserError(
            f"manifest {path} has labels of label space "
            f'"{about.get("label_space")}" ({len(classes)} classes), and the config\'s '
            f'is "{space.name}" ({space.num_classes}): take labels of the same classes.'
        )


def _manifest_rows(path: Path) -> tuple[dict | None, list[dict]]:
    """What the first line says about the others, or None, and the others."""
    about, rows = None, []
    ranked = (path.parent / FACTS).is_file()
    if ranked and not (path.parent / SCORES).is_file():
        raise UserError(
            f"manifest {path} is of a ranking that is not finished: repeat its command, "
            "python -m uda_jax.rank, to its end."
        )
    if ranked and not path.is_file():
        raise UserError(
            f"the ranking in {path.parent} has no part {path.name}: divide its images "
            "with another --easy_fraction, or choose a stage that needs no such part."
        )
    allowed = {"image": str, "label": str, "weight": (int, float)}
    example = 'JSON object {"image": ..., "label": ...}'
    for number, line in read_lines(path, "manifest", example):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"line {number} of manifest {path} is not JSON ({error.msg}): write "
                'one object {"image": ..., "label": ...} per line.'
            ) from error
        if not rows and about is None and isinstance(row, dict) and "about" in row:
            about = row["about"]
            if list(row) != ["about"] or not isinstance(about, dict):
                raise UserError(
                    f'line {number} of manifest {path} has an "about" that is not alone '
                    'on its line: write {"about": {...}}, or leave it out.'
                )
            continue
        if not isinstance(row, dict) or "image" not in row:
            raise UserError(
                f'line {number} of manifest {path} has no "image": write one object '
                '{"image": ..., "label": ...} per line.'
            )
        for key, value in row.items():
            check_one_of(
                f"key in line {number} of manifest {path}", key, tuple(allowed)
            )
            good = isinstance(value, allowed[key]) and not isinstance(value, bool)
            # JSON has no NaN, but Python's reader takes it.
            if not good or (key == "weight" and not math.isfinite(value)):
                kind = "number" if key == "weight" else "path in quotes"
                raise UserError(
                    f'"{key}" in line {number} of manifest {path} is {value!r}: '
                    f"give a {kind}."
                )
        rows.append(row)
    return about, rows


def _require(paths: list[Path], where: Path, kind: str) -> None:
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(paths)} {kind}s named by {where} do not exist, "
            f"the first is {missing[0]}: paths are relative to the manifest's folder."
        )
