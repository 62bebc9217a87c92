"""Host-side geometry: small grain transforms on {"image", "label"?, ...}.

Each takes image uint8 [H, W, 3] and, where there is one, label uint8 [H, W], and moves
both alike.  Random ones get grain's generator, which is seeded by the example's place
in the stream.  Colour, blur, warps and normalisation run on the device, not here.

Source: the source and weak target views of TUFL (Yan et al., T-ITS 2023; the released
program's transforms): flip, scale, crop.
"""

import dataclasses
from typing import Any

import cv2
import grain
import numpy as np

from uda_jax.errors import UserError

Element = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Resize(grain.transforms.Map):
    """Resizes to (height, width): see `resize`."""

    size: tuple[int, int]

    def map(self, element: Element) -> Element:
        return resize(element, self.size)


@dataclasses.dataclass(frozen=True)
class RandomScale(grain.transforms.RandomMap):
    """Resizes to (int(H * s), int(W * s)), s one of `scales`, each equally likely."""

    scales: tuple[float, ...]

    def random_map(self, element: Element, rng: np.random.Generator) -> Element:
        scale = self.scales[rng.integers(len(self.scales))]
        height, width = element["image"].shape[:2]
        return resize(element, (int(height * scale), int(width * scale)))


@dataclasses.dataclass(frozen=True)
class HorizontalFlip(grain.transforms.RandomMap):
    """Mirrors left and right with this probability."""

    probability: float

    def random_map(self, element: Element, rng: np.random.Generator) -> Element:
        if rng.random() >= self.probability:
            return element
        return _change(element, lambda x: np.ascontiguousarray(x[:, ::-1]))


@dataclasses.dataclass(frozen=True)
class RandomCrop(grain.transforms.RandomMap):
    """Cuts a window of (height, width) out, every position equally likely.

    An image smaller than the window in height or width is first enlarged by
    f = max(height / H, width / W) to (int(f * H + 1), int(f * W + 1)).  Where one side
    is too small this is TUFL's rule; where both are, TUFL looks at the width alone and
    fills what is still missing with black, which never happens here.
    """

    size: tuple[int, int]

    def random_map(self, element: Element, rng: np.random.Generator) -> Element:
        height, width = self.size
        h, w = element["image"].shape[:2]
        if h < height or w < width:
            factor = max(height / h, width / w)
            h, w = int(factor * h + 1), int(factor * w + 1)
            element = resize(element, (h, w))
        top = rng.integers(h - height + 1)
        left = rng.integers(w - width + 1)
        window = (slice(top, top + height), slice(left, left + width))
        # A copy, so that the whole image can be freed.
        return _change(element, lambda x: x[window].copy())


@dataclasses.dataclass(frozen=True)
class Frozen(grain.transforms.RandomMap):
    """Draws `transform` once per run: the same numbers for every example.

    The released TUFL draws the flip, scale and crop of its target images when the
    dataset is made, so that all images of a run share them.  For faithful reproduction
    only.
    """

    transform: grain.transforms.RandomMap
    seed: int

    def random_map(self, element: Element, rng: np.random.Generator) -> Element:
        del rng
        return self.transform.random_map(element, np.random.default_rng(self.seed))


def resize(element: Element, size: tuple[int, int]) -> Element:
    """Image and label at (height, width), pixel centres aligned.

    Images: bilinear when a side grows, area average when both shrink (the published
    programs use Pillow's bilinear, which also averages when it shrinks, over a wider
    window).  Labels: the pixel nearest to the centre, as Pillow's.
    """
    height, width = size
    h, w = element["image"].shape[:2]
    if (h, w) == (height, width):
        return element
    shrinks = height <= h and width <= w
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    result = dict(element)
    result["image"] = cv2.resize(element["image"], (width, height), interpolation=how)
    if "label" in element:
        result["label"] = cv2.resize(
            element["label"], (width, height), interpolation=cv2.INTER_NEAREST_EXACT
        )
    return result


def geometry(
    *,
    crop_size: tuple[int, int],
    resize: tuple[int, int] = (),
    scales: tuple[float, ...] = (1.0,),
    flip_probability: float = 0.5,
) -> tuple[grain.transforms.Transformation, ...]:
    """Resize, flip, scale, crop: the order of TUFL.

    Args:
      crop_size: (height, width) of what comes out.
      resize: (height, width) that images are brought to first; () leaves them.
      scales: factors to choose from.
      flip_probability: chance to be mirrored.

    Raises:
      UserError: a size is not two positive integers, a scale is not positive, or the
        probability is not in [0, 1].
    """
    _check_size("crop_size", crop_size)
    if resize:
        _check_size("resize", resize)
    if not scales or any(scale <= 0 for scale in scales):
        raise UserError(
            f"scales={scales} must be positive numbers: (1.0,) for no change."
        )
    if not 0 <= flip_probability <= 1:
        raise UserError(
            f"flip_probability={flip_probability} is not in [0, 1]: 0.5 mirrors every "
            "second image, 0 none."
        )
    return (
        *((Resize(tuple(resize)),) if resize else ()),
        HorizontalFlip(flip_probability),
        *((RandomScale(tuple(scales)),) if tuple(scales) != (1.0,) else ()),
        RandomCrop(tuple(crop_size)),
    )


def _check_size(name: str, size) -> None:
    good = len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)
    if not good:
        raise UserError(
            f"{name}={tuple(size)} must be two positive integers (height, width)."
        )


def _change(element: Element, function) -> Element:
    changed = {k: function(element[k]) for k in ("image", "label") if k in element}
    return {**element, **changed}
