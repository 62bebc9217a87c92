"""Photographs of a user's own: one file, or the files of a folder."""

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from uda_jax.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def read_photo(path: str | os.PathLike) -> np.ndarray:
    """uint8 [H, W, 3] RGB of an image file, upright as its EXIF orientation says.

    Raises:
      UserError: the file is missing or cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: give an image or a folder.") from None
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(
            f"{path} cannot be read as an image ({error}): give one of the formats "
            f"{', '.join(IMAGE_SUFFIXES)}."
        ) from error


def find_photos(path: str | os.PathLike) -> list[Path]:
    """The image file `path`, or the image files of the folder `path`, sorted.

    Raises:
      UserError: nothing there, or two files whose results would have one name.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.exists():
            raise UserError(f"{path} does not exist: give an image or a folder.")
        return [path]
    photos = sorted(
        p
        for p in path.iterdir()
        if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")
    )
    if not photos:
        raise UserError(
            f"{path} holds no image: give a folder with files that end in "
            f"{', '.join(IMAGE_SUFFIXES)}."
        )
    first: dict[str, Path] = {}
    for photo in photos:
        other = first.setdefault(photo.stem, photo)
        if other != photo:
            raise UserError(
                f"{other} and {photo} would both be written as {photo.stem}_ids.png: "
                "rename one of them."
            )
    return photos
