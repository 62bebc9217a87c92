"""What a person who labels images gets, and how the labels come back.

A round with active.labels="person" fills WORKDIR/rounds/<n>/annotate:

    images/<name>        the selected images, copied
    predicted/<name>.png what the network says, to be edited: 8-bit ids with a palette,
                         so that painting programs show colours and keep the ids
    labelme/<name>.json  the same as polygons, for LabelMe
    cvat.zip             the same, for CVAT ("Segmentation mask 1.1")
    classes.txt          id, name and colour of every class

Finished labels go to WORKDIR/rounds/<n>/finished/<name>, in any of these forms: .png
with ids (255: not labelled), .png in the classes' colours as CVAT exports them (black:
not labelled, where no class is black), or LabelMe's .json.
"""

import io
import json
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from PIL import Image

from uda_jax.data.dataset import Dataset
from uda_jax.data.images import read_raw_label
from uda_jax.errors import UserError
from uda_jax.files import relative, write_atomically
from uda_jax.labels import IGNORE, LabelSpace
from uda_jax.predict import Predictor
from uda_jax.ranking import image_paths
from uda_jax.visualize import colorize, png

_READY = "classes.txt"  # written last
_SMALLEST = 20  # pixels of a polygon
_CORNERS = 1.0  # pixels that a polygon may leave out
_ENDINGS = (".png", ".PNG", ".json")
_BACKGROUND = "background"  # CVAT's name of what is not labelled


class LabelsWanted(UserError):
    """The run waits for a person."""


def ask(
    folder: Path, chosen: Dataset, names: Sequence[str], predictor: Predictor
) -> None:
    """Writes what a person needs; nothing if it is there.

    Args:
      folder: of the round.
      chosen: the images that were selected.
      names: labels/<name>.png of each.
      predictor: the network so far.
    """
    out = folder / "annotate"
    if (out / _READY).exists():
        return
    space, masks = chosen.label_space, {}
    for i, path in enumerate(image_paths(chosen)):
        ids = predictor(chosen[i]["image"]).ids
        inside = _inside(names[i])
        (folder / "finished" / inside).parent.mkdir(parents=True, exist_ok=True)
        image = out / "images" / inside.with_suffix(path.suffix)
        image.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, image)
        predicted = out / "predicted" / inside
        write_atomically(predicted, png(ids, colors=space.colors))
        polygons = out / "labelme" / inside.with_suffix(".json")
        polygons.parent.mkdir(parents=True, exist_ok=True)
        shapes = _shapes(ids, space, relative(image, polygons.parent))
        write_atomically(polygons, json.dumps(shapes, indent=1) + "\n")
        masks[inside.with_suffix("").as_posix()] = ids
    write_atomically(out / "cvat.zip", _cvat(masks, space))
    table = ["id  class  red green blue"]
    for i, (name, color) in enumerate(zip(space.classes, space.colors, strict=True)):
        table.append(f"{i}  {name}  {' '.join(map(str, color))}")
    table.append(f"{IGNORE}  not labelled")
    write_atomically(out / _READY, "\n".join(table) + "\n")


def collect(
    folder: Path, chosen: Dataset, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """The finished labels, checked: {labels/<name>.png: uint8 [H, W] train ids}.

    Raises:
      LabelsWanted: some are missing or cannot be used; says which and what to do.
    """
    done, missing, wrong = {}, [], []
    for i, name in enumerate(names):
        stem = folder / "finished" / _inside(name).with_suffix("")
        found = [p for p in map(lambda e: _with(stem, e), _ENDINGS) if p.exists()]
        if not found:
            missing.append(stem.relative_to(folder / "finished").as_posix())
            continue
        try:
            if len(found) > 1:
                raise UserError(f"{stem} is there in two forms: delete one")
            size = chosen[i]["image"].shape[:2]
            done[name] = _finished(found[0], size, chosen.label_space)
        except UserError as error:
            wrong.append(str(error))
    if missing or wrong:
        parts = []
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            parts.append(
                f"{len(missing)} of {len(names)} labels are missing "
                f"({', '.join(missing[:3])}{more})"
            )
        parts += wrong[:3]
        raise LabelsWanted(
            f"round {folder.name} waits for a person: {'; '.join(parts)}.  Label "
            f"{folder}/annotate/images, beginning with annotate/predicted, annotate/"
            f"labelme or annotate/cvat.zip, save into {folder}/finished, and repeat "
            "the command."
        )
    return done


def _finished(path: Path, size: tuple[int, int], space: LabelSpace) -> np.ndarray:
    if path.suffix == ".json":
        return _of_polygons(path, size, space)
    try:
        with Image.open(path) as image:
            image.load()
            ids = np.array(image) if image.mode == "P" else None
            # A program that writes a palette anew may count its colours otherwise.
            by_color = image.mode in ("RGB", "RGBA") or (
                ids is not None and not _same_palette(image, ids, space)
            )
            pixels = np.array(image.convert("RGB")) if by_color else None
    except (OSError, SyntaxError) as error:
        raise UserError(f"{path} cannot be read as an image ({error})") from error
    label = _of_colors(path, pixels, space) if by_color else read_raw_label(path)
    if label.shape != size:
        raise UserError(
            f"{path} is {label.shape[0]} x {label.shape[1]} and its image {size[0]} x "
            f"{size[1]} (height x width)"
        )
    unknown = np.setdiff1d(label, [*range(space.num_classes), IGNORE])
    if len(unknown):
        raise UserError(
            f"{path} has the id {unknown[0]}, and there are 0 to "
            f"{space.num_classes - 1} and {IGNORE} (see classes.txt)"
        )
    return label


def _same_palette(image: Image.Image, ids: np.ndarray, space: LabelSpace) -> bool:
    """Whether the classes in it have the colours that they had when it was written."""
    of_class = ids < space.num_classes
    painted = np.array(image.convert("RGB"))[of_class]
    return bool((painted == space.colors[ids[of_class]]).all())


def _of_colors(path: Path, pixels: np.ndarray, space: LabelSpace) -> np.ndarray:
    if len({tuple(color) for color in space.colors.tolist()}) < space.num_classes:
        raise UserError(
            f"{path} has colours, of which two classes share one: save ids instead"
        )
    label = np.full(pixels.shape[:2], IGNORE, np.uint8)
    known = (pixels == 0).all(-1)
    for i, color in enumerate(space.colors):
        mine = (pixels == color).all(-1)
        label[mine], known = i, known | mine
    if not known.all():
        row, column = np.argwhere(~known)[0]
        raise UserError(
            f"{path} has the colour {tuple(map(int, pixels[row, column]))} at row "
            f"{row}, column {column}, which is of no class (see classes.txt)"
        )
    return label


def _of_polygons(path: Path, size: tuple[int, int], space: LabelSpace) -> np.ndarray:
    """LabelMe's polygons, later ones over earlier ones."""
    label = np.full(size, IGNORE, np.uint8)
    try:
        content = json.loads(path.read_text("utf-8"))
        own_size = (content["imageHeight"], content["imageWidth"])
        shapes = [
            (shape["label"], shape.get("shape_type", "polygon"), shape["points"])
            for shape in content["shapes"]
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no file of LabelMe ({error!r})") from error
    if own_size != size:
        raise UserError(f"{path} is of an image of {own_size}, and its own is {size}")
    for name, kind, points in shapes:
        if name not in space.classes:
            raise UserError(
                f'{path} has the class "{name}", and there are '
                f"{', '.join(space.classes)}"
            )
        if kind != "polygon":
            raise UserError(f"{path} has a {kind}: draw polygons, or save a PNG")
        try:
            corners = np.array(points, float)
        except (ValueError, TypeError):
            corners = np.zeros(0)
        sound = corners.ndim == 2 and corners.shape[1] == 2 and len(corners) > 2
        if not sound or not (np.abs(corners) <= 4 * max(size)).all():
            raise UserError(
                f'{path} has a polygon of "{name}" that is none: it needs three or '
                "more points (x, y) about the image"
            )
        corners = np.round(corners).astype(np.int32)
        cv2.fillPoly(label, [corners], space.classes.index(name))
    return label


def _shapes(ids: np.ndarray, space: LabelSpace, image: str) -> dict:
    """LabelMe's form of a label map, large regions first, so that holes are filled."""
    shapes = []
    for i, name in enumerate(space.classes):
        contours, _ = cv2.findContours(
            (ids == i).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
        )
        for contour in contours:
            area = cv2.contourArea(contour)
            points = cv2.approxPolyDP(contour, _CORNERS, True)[:, 0]
            if area < _SMALLEST or len(points) < 3:
                continue
            shapes.append(
                (area, {"label": name, "points": points.astype(float).tolist(),
                        "group_id": None, "shape_type": "polygon", "flags": {}})
            )  # fmt: skip
    shapes.sort(key=lambda pair: -pair[0])
    return {
        "version": "5.4.1",
        "flags": {},
        "shapes": [shape for _, shape in shapes],
        "imagePath": image,
        "imageData": None,
        "imageHeight": int(ids.shape[0]),
        "imageWidth": int(ids.shape[1]),
    }


def _cvat(masks: dict[str, np.ndarray], space: LabelSpace) -> bytes:
    """CVAT's "Segmentation mask 1.1": Pascal VOC's folders and a table of colours."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        rows = [] if _BACKGROUND in space.classes else [f"{_BACKGROUND}:0,0,0::"]
        for name, color in zip(space.classes, space.colors, strict=True):
            rows.append(f"{name}:{','.join(map(str, color))}::")
        archive.writestr("labelmap.txt", "\n".join(rows) + "\n")
        listed = "".join(f"{name}\n" for name in masks)
        archive.writestr("ImageSets/Segmentation/default.txt", listed)
        for name, ids in masks.items():
            picture = png(colorize(ids, space.colors))
            archive.writestr(f"SegmentationClass/{name}.png", picture)
    return stream.getvalue()


def _inside(name: str) -> PurePosixPath:
    """<name>.png of labels/<name>.png."""
    return PurePosixPath(name).relative_to("labels")


def _with(stem: Path, ending: str) -> Path:
    return stem.parent / f"{stem.name}{ending}"
