"""The forms in which a person's labels go out and come back: PNG, LabelMe, CVAT."""

import json
import zipfile
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image

from uda_jax.data.images import read_raw_label
from uda_jax.errors import UserError
from uda_jax.labels import IGNORE, LabelSpace
from uda_jax.visualize import colorize, png

_SMALLEST = 20  # pixels of a polygon
_CORNERS = 1.0  # pixels that a polygon may leave out
_BACKGROUND = "background"  # CVAT's name of what is not labelled


def read_finished(path: Path, size: tuple[int, int], space: LabelSpace) -> np.ndarray:
    """A label that a person made: uint8 [H, W] train ids and `IGNORE`.

    Args:
      path: .png of ids, with or without a palette, or of colours; or LabelMe's .json.
      size: (height, width) of its image.
      space: its classes.

    Raises:
      UserError: it cannot be read or has another size, id, colour, class or shape.
    """
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


def polygons(ids: np.ndarray, space: LabelSpace, image: str) -> dict:
    """LabelMe's form of a label map, large regions first, so that holes are filled.

    Args:
      ids: uint8 [H, W] train ids.
      space: its classes.
      image: the image's path as seen from the file's folder.
    """
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


class Cvat:
    """CVAT's "Segmentation mask 1.1": Pascal VOC's folders and a table of colours."""

    def __init__(self, stream: BinaryIO, space: LabelSpace):
        self._archive = zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED)
        self._space, self._names = space, []
        rows = [] if _BACKGROUND in space.classes else [f"{_BACKGROUND}:0,0,0::"]
        for name, color in zip(space.classes, space.colors, strict=True):
            rows.append(f"{name}:{','.join(map(str, color))}::")
        self._archive.writestr("labelmap.txt", "\n".join(rows) + "\n")

    def add(self, name: str, ids: np.ndarray) -> None:
        """A label map, uint8 [H, W], of the image of that name without its suffix."""
        picture = png(colorize(ids, self._space.colors))
        self._archive.writestr(f"SegmentationClass/{name}.png", picture)
        self._names.append(name)

    def close(self) -> None:
        """Writes the list of the images; the stream stays open."""
        listed = "".join(f"{name}\n" for name in self._names)
        self._archive.writestr("ImageSets/Segmentation/default.txt", listed)
        self._archive.close()
