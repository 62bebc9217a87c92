"""Decodes images and label maps, and says in one sentence what is wrong with a file."""

import io
import re
from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from uda_jax.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")

_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_JPEG_START = b"\xff\xd8"
# Bytes 255 that are data are followed by 0 or a restart marker; others fill gaps.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
_END_OF_IMAGE, _NO_LENGTH = 0xD9, (0x01, 0xD8)


def read_image(path: str | Path) -> np.ndarray:
    """Decodes a PNG or JPEG file.

    Pixels are taken as they are stored: an EXIF orientation is not applied, so that
    they lie where the label's pixels lie.

    Returns:
      [H, W, 3] uint8, RGB.

    Raises:
      UserError: the file is missing, cut off, no image, or not RGB with 8 bits.
        Grayscale images and images with transparency are refused rather than
        converted, because there is more than one way to do it.
    """
    pixels = cv2.imdecode(_read(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise _unreadable(path)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise UserError(
            f"image {path} has {_describe(pixels)}: images must be RGB with 8 bits "
            "per channel, so convert it first."
        )
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def read_raw_label(path: str | Path, label_format: str = "ids") -> np.ndarray:
    """Decodes a PNG of raw label ids.

    Args:
      path: the file.
      label_format: key of `LABEL_FORMATS`.

    Returns:
      [H, W] uint8 raw ids.

    Raises:
      UserError: the file is missing, cut off, no PNG, or not of this format.
    """
    data = _read(path)
    if not data[:8].tobytes().startswith(_PNG_START):
        raise UserError(
            f"label {path} is not a PNG file: lossy formats change label ids, so save "
            "labels as 8-bit PNG with one channel."
        )
    return LABEL_FORMATS[label_format](path, data)


def _ids(path: str | Path, data: np.ndarray) -> np.ndarray:
    """8 bits, one channel: gray, or a palette, whose indices are the ids."""
    try:
        with Image.open(io.BytesIO(data)) as header:
            mode = header.mode
            # OpenCV would return a palette's colours instead of its indices.
            raw = np.array(header) if mode == "P" else None
    except (OSError, SyntaxError, ValueError) as error:
        raise _unreadable(path) from error
    if mode not in ("L", "P"):
        raise UserError(
            f"label {path} is stored as {_MODES.get(mode, mode)} instead of ids: "
            "labels must be 8-bit PNG with one channel of class ids, so convert it "
            "first."
        )
    # Pillow has read the header, but keeps the depth to itself.
    if mode == "L" and (depth := int(data[24])) < 8:
        raise UserError(
            f"label {path} is {depth}-bit gray, which decoders stretch to 0-255 (id 1 "
            f"becomes {255 // (2**depth - 1)}), so that its ids are uncertain: save "
            "the ids themselves as 8-bit PNG with one channel."
        )
    if raw is None:
        raw = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if raw is None or raw.ndim != 2:
        raise _unreadable(path)
    return raw


def _synthia(path: str | Path, data: np.ndarray) -> np.ndarray:
    """16 bits, three channels: class, instance, 0; Pillow would make the ids 0."""
    pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise _unreadable(path)
    if pixels.ndim != 3 or pixels.dtype != np.uint16:
        raise UserError(
            f"label {path} has {_describe(pixels)} instead of SYNTHIA's 3 channels of "
            "16 bits: give the files of GT/LABELS as they were downloaded."
        )
    raw = pixels[..., 2]  # OpenCV's order is blue, green, red
    if raw.max(initial=0) > 255:
        raise UserError(
            f"label {path} holds the class {raw.max()}, but SYNTHIA's are 0 to 22: "
            "give the files of GT/LABELS as they were downloaded."
        )
    return raw.astype(np.uint8)


# How ids are stored in a PNG file.
LABEL_FORMATS = {"ids": _ids, "synthia": _synthia}


def id_histogram(raw: np.ndarray) -> np.ndarray:
    """int64 [256] pixels of each raw id in a label, uint8 [H, W].

    Eight times as fast as numpy's bincount, and without its lock.
    """
    # OpenCV counts in float32, which is exact up to 2^24 pixels.
    strips = np.array_split(raw, 1 + raw.size // 2**23)
    counts = [cv2.calcHist([s], [0], None, [256], [0, 256]).ravel() for s in strips]
    return np.sum(counts, axis=0, dtype=np.int64)


def check_ids(raw: np.ndarray, known: Collection[int], path: str | Path) -> None:
    """Raises UserError where a raw label holds an id that is not `known`.

    Args:
      raw: [H, W] uint8.
      known: raw ids.
      path: of the label, for the message.
    """
    unknown = [int(i) for i in np.flatnonzero(id_histogram(raw)) if int(i) not in known]
    if unknown:
        raise UserError(
            f"label {path} contains the ids {_shorten(unknown)}, which the label table "
            f"does not know (known: {_ranges(known)}): correct the file or choose "
            "the label space and coding that it was made for."
        )


_MODES = {
    "RGB": "colours (3 channels)",
    "RGBA": "colours (4 channels)",
    "LA": "gray with transparency (2 channels)",
    "1": "a 1-bit image",
    "I": "16-bit numbers",
    "I;16": "16-bit numbers",
    "I;16B": "16-bit numbers",
}


def _read(path: str | Path) -> np.ndarray:
    """The file's bytes, known to be a whole PNG or JPEG file."""
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UserError(
            f"file {path} cannot be opened ({error.strerror or error}): restore it or "
            "remove it from the dataset."
        ) from error
    start = data[:8].tobytes()
    # Decoders return the part of a cut-off file that there is, the rest gray or black.
    if start.startswith(_PNG_START):
        whole = data[-8:].tobytes() == _PNG_END or _has_end_of_png(data)
    elif start.startswith(_JPEG_START):
        whole = _has_end_of_jpeg(data)
    else:
        raise UserError(
            f"file {path} is neither a PNG nor a JPEG image: replace it or remove it "
            "from the dataset."
        )
    if not whole:
        raise _unreadable(path)
    return data


def _has_end_of_png(data: np.ndarray) -> bool:
    """Whether a PNG file goes as far as its end; other data may lie behind it."""
    place = len(_PNG_START)
    while place < data.size and data[place + 4 : place + 12].tobytes() != _PNG_END:
        place += 12 + int.from_bytes(data[place : place + 4].tobytes(), "big")
    return place < data.size


def _has_end_of_jpeg(data: np.ndarray) -> bool:
    """Whether a JPEG file goes as far as its own end marker.

    Phones write data behind it, and cameras a thumbnail in front, in a segment, with an
    end marker of its own; so the markers are followed from the start.
    """
    found = _JPEG_MARKER.search(data)
    while found and found[1][0] != _END_OF_IMAGE:
        place = found.end()
        if found[1][0] not in _NO_LENGTH:
            place += int.from_bytes(data[place : place + 2].tobytes(), "big")
        found = _JPEG_MARKER.search(data, place)
    return found is not None


def _unreadable(path: str | Path) -> UserError:
    return UserError(
        f"file {path} cannot be decoded, it is damaged or cut off: copy it again or "
        "remove it from the dataset."
    )


def _describe(pixels: np.ndarray) -> str:
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    plural = "channel" if channels == 1 else "channels"
    return f"{channels} {plural} of {8 * pixels.dtype.itemsize} bits"


def _shorten(ids: list[int]) -> str:
    return ", ".join(map(str, ids[:8])) + (" ..." if len(ids) > 8 else "")


def _ranges(ids: Collection[int]) -> str:
    """'0-33, 255' for the keys of `ids`."""
    parts, rest = [], sorted(ids)
    while rest:
        end = 0
        while end + 1 < len(rest) and rest[end + 1] == rest[end] + 1:
            end += 1
        parts.append(f"{rest[0]}-{rest[end]}" if end else str(rest[0]))
        rest = rest[end + 1 :]
    return ", ".join(parts)
