"""Resizes images and label maps, each as one of the published programs does.

The programs resize with Pillow, whose filters grow with the factor and so average when
an image shrinks, or with OpenCV, whose bilinear filter always looks at four pixels.
Halving a photograph, the two differ by several grey levels.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

Size = tuple[int, int]


class Filter(NamedTuple):
    """How a program resizes: (pixels, (height, width)) -> pixels, of the same dtype.

    Attributes:
      image: for uint8 [H, W, 3].
      label: for uint8 [H, W] ids; one input pixel for each output pixel.
    """

    image: Callable[[np.ndarray, Size], np.ndarray]
    label: Callable[[np.ndarray, Size], np.ndarray]


def _opencv(pixels: np.ndarray, size: Size, interpolation: int) -> np.ndarray:
    return cv2.resize(pixels, size[::-1], interpolation=interpolation)


def _pillow(pixels: np.ndarray, size: Size, resample: Image.Resampling) -> np.ndarray:
    return np.array(Image.fromarray(pixels).resize(size[::-1], resample))


def _area(pixels: np.ndarray, size: Size) -> np.ndarray:
    shrinks = size[0] <= pixels.shape[0] and size[1] <= pixels.shape[1]
    return _opencv(pixels, size, cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


_PILLOW_NEAREST = partial(_pillow, resample=Image.Resampling.NEAREST)

# Images: "area" is bilinear where a side grows and the average over each output
# pixel's area where both shrink.  Labels: pixel i is the old floor((i + 0.5) * n_in /
# n_out), the nearest to its centre; of "opencv_bilinear" floor(i * n_in / n_out).
FILTERS: dict[str, Filter] = {
    "area": Filter(_area, partial(_opencv, interpolation=cv2.INTER_NEAREST_EXACT)),
    "pillow_bicubic": Filter(
        partial(_pillow, resample=Image.Resampling.BICUBIC), _PILLOW_NEAREST
    ),
    "pillow_bilinear": Filter(
        partial(_pillow, resample=Image.Resampling.BILINEAR), _PILLOW_NEAREST
    ),
    "opencv_bilinear": Filter(
        partial(_opencv, interpolation=cv2.INTER_LINEAR),
        partial(_opencv, interpolation=cv2.INTER_NEAREST),
    ),
}


def resize_image(image: np.ndarray, size: Size, how: str) -> np.ndarray:
    """uint8 [H, W, 3] at size = (height, width); itself where it has that size.

    Args:
      how: key of `FILTERS`.
    """
    return image if image.shape[:2] == size else FILTERS[how].image(image, size)


def resize_label(label: np.ndarray, size: Size, how: str) -> np.ndarray:
    """uint8 [H, W] ids at size = (height, width); itself where it has that size.

    Args:
      how: key of `FILTERS`.
    """
    return label if label.shape == size else FILTERS[how].label(label, size)


def resize(element: dict[str, Any], size: Size, how: str) -> dict[str, Any]:
    """The element with its image, label and valid at (height, width).

    Each goes there from its own size, so that a label that had another size than its
    image has the same size afterwards.

    Args:
      element: {"image": uint8 [H, W, 3], "label"?: uint8 [h, w], "valid"?: uint8
        [H, W], ...}; other keys pass.
      how: key of `FILTERS`; "valid" is resized as labels are.
    """
    result = {**element, "image": resize_image(element["image"], size, how)}
    for key in ("label", "valid"):
        if key in element:
            result[key] = resize_label(element[key], size, how)
    return result
