"""Small images and labels, and what their readers' messages must be like."""

import re
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from uda_jax.errors import UserError


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array)
    return path


def image(height=4, width=6, value=(30, 20, 10)):
    """BGR, as OpenCV writes it; (10, 20, 30) in RGB."""
    return np.full((height, width, 3), value, np.uint8)


def ids(value=7, height=4, width=6):
    return np.full((height, width), value, np.uint8)


def write_palette(path, label):
    """As GTA5's labels: colours whose indices are the ids."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(label, mode="P")
    picture.putpalette([v for i in range(256) for v in (255 - i, i, 7)])
    picture.save(path)


def write_small_gray(path, label, depth, palette=False):
    """A gray (or palette) PNG with fewer than 8 bits per pixel; OpenCV writes none."""

    def chunk(kind, content):
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + _crc(checked)

    path.parent.mkdir(parents=True, exist_ok=True)
    bits = np.unpackbits(label[..., None], axis=2)[..., -depth:]
    rows = np.packbits(bits.reshape(len(label), -1), axis=1)
    height, width = label.shape
    header = struct.pack(">IIBBBBB", width, height, depth, 3 * palette, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + (chunk(b"PLTE", bytes(range(3 * 2**depth))) if palette else b"")
        + chunk(b"IDAT", zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes()))
        + chunk(b"IEND", b"")
    )
    return path


def _crc(content):
    return struct.pack(">I", zlib.crc32(content))


def write_synthia(path, label, instance=3):
    """As SYNTHIA's labels: 16 bits, class in the first channel, instance in the 2nd."""
    pixels = np.zeros((*label.shape, 3), np.uint16)
    pixels[..., 2], pixels[..., 1] = label, instance  # OpenCV writes B, G, R
    return write(path, pixels)


def values(dataset):
    """The first pixel of every label."""
    return [int(dataset[i]["label"][0, 0]) for i in range(len(dataset))]


def refused(call, *parts):
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    for part in parts:
        assert part in message
    assert "\n" not in message and message.endswith(".")
    assert not re.search(r"\.\s+[A-Z]", message), "more than one sentence"
    return message
