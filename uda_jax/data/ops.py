"""Host-side geometry: small grain transforms on {"image", "label"?, "valid"?, ...}.

Each takes image uint8 [H, W, 3] and, where there are any, label uint8 [h, w] and valid
uint8 [H, W], and moves all alike.  Ops that resize send all to one size; the mirror
takes each as it is; ops that crop or pad first bring a label of another size to its
image's.  Random ops get grain's generator, which is seeded by the example's place in
the stream.  Colour, blur, warps and normalisation run on the device, not here.

`uda_jax.data.geometry` puts the ops together into the published recipes.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import cv2
import grain
import numpy as np

from uda_jax.data.images import id_histogram
from uda_jax.data.resizing import resize, resize_image, resize_label
from uda_jax.labels import IGNORE

Element = dict[str, Any]

_MOVED = {"image", "label", "valid"}


@dataclasses.dataclass(frozen=True)
class Resize(grain.transforms.Map):
    """Resizes to `size` = (height, width); `filter`: key of `resizing.FILTERS`."""

    size: tuple[int, int]
    filter: str

    def map(self, element: Element) -> Element:
        return resize(element, self.size, self.filter)


@dataclasses.dataclass(frozen=True)
class ResizeKeepingAspect(grain.transforms.Map):
    """Resizes to the largest size of the same aspect that fits into `bound`.

    With L and S the longer and the shorter side of `bound`, in either order, and

        f = min(L / max(H, W), S / min(H, W))

    a side n becomes int(f * n + 0.5).  A label of another size than its image gets its
    own f and may come out in another size too.  Source: mmcv, as DAFormer uses it.
    """

    bound: tuple[int, int]
    filter: str

    def map(self, element: Element) -> Element:
        result = dict(element)
        for key in element.keys() & _MOVED:
            change = resize_image if key == "image" else resize_label
            size = self.fitted(element[key].shape[:2])
            result[key] = change(element[key], size, self.filter)
        return result

    def fitted(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) that an image of `size` = (height, width) gets."""
        factor = min(max(self.bound) / max(size), min(self.bound) / min(size))
        return int(size[0] * factor + 0.5), int(size[1] * factor + 0.5)


@dataclasses.dataclass(frozen=True)
class RandomScale(grain.transforms.RandomMap):
    """Resizes to (int(H * s), int(W * s)), s one of `scales`, each equally likely."""

    scales: tuple[float, ...]
    filter: str

    def random_map(self, element: Element, rng: np.random.Generator) -> Element:
        scale = self.scales[rng.integers(len(self.scales))]
        height, width = element["image"].shape[:2]
        return resize(element, (int(height * scale), int(width * scale)), self.filter)


@dataclasses.dataclass(frozen=True)
class RandomLongSide(grain.transforms.RandomMap):
    """Resizes so that the longer side L becomes any of int(a * L) ... int(b * L).

    (a, b) = `ratios`; every whole number is equally likely.  The shorter side S becomes
    int(S * new / L + 0.5).
    """

    ratios: tuple[float, float]
    filter: str

    def random_map(self, element: Element, rng: np.random.Generator) -> Element:
        sides = element["image"].shape[:2]
        longer = max(sides)
        low, high = (int(longer * ratio) for ratio in self.ratios)
        new = int(rng.integers(low, high, endpoint=True))
        # For the longer side this is `new` itself.
        height, width = (int(side * new / longer + 0.5) for side in sides)
        return resize(element, (height, width), self.filter)


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
    f = max(height / H, width / W) to (int(f * H + 1), int(f * W + 1)), so that nothing
    is left to fill.  TUFL's f is width / W if W < height, else height / H: a landscape
    image goes by its height alone, and what its width still lacks is black there.  They
    differ in published runs: CrossCity's 647 x 1280 at scale 0.75, that is 485 x 960,
    becomes 641 x 1267 and a black strip there, 647 x 1281 here.
    """

    size: tuple[int, int]
    filter: str

    def random_map(self, element: Element, rng: np.random.Generator) -> Element:
        h, w = element["image"].shape[:2]
        factor = max(self.size[0] / h, self.size[1] / w)
        if factor > 1:
            h, w = int(factor * h + 1), int(factor * w + 1)
        element = resize(element, (h, w), self.filter)
        return _cut(element, _window((h, w), self.size, rng))


@dataclasses.dataclass(frozen=True)
class VariedCrop(grain.transforms.RandomMap):
    """Cuts a window of (height, width) out that more than one class shares.

    Every position is equally likely.  With a label and `cat_max_ratio` < 1 a window is
    drawn anew, up to ten times, until more than one class is in it and the largest has
    less than this share of the pixels that are not ignored; the last is taken as it is.
    An image smaller than the window is cut to what there is of it.  Source: mmseg, as
    DAFormer uses it (Hoyer et al., CVPR 2022).
    """

    size: tuple[int, int]
    cat_max_ratio: float

    def random_map(self, element: Element, rng: np.random.Generator) -> Element:
        element = _aligned(element)
        shape = element["image"].shape[:2]
        window = _window(shape, self.size, rng)
        if "label" in element and self.cat_max_ratio < 1:
            for _ in range(10):
                if self._is_varied(element["label"][window]):
                    break
                window = _window(shape, self.size, rng)
        return _cut(element, window)

    def _is_varied(self, label: np.ndarray) -> bool:
        counts = id_histogram(label)[:IGNORE]
        several = np.count_nonzero(counts) > 1
        return several and counts.max() / counts.sum() < self.cat_max_ratio


@dataclasses.dataclass(frozen=True)
class Pad(grain.transforms.Map):
    """Fills up to (height, width) at the bottom and at the right.

    Images with `color` (RGB), labels with `IGNORE`.  With `adds_valid` the element gets
    "valid": uint8 [H, W], 1 where the image was and 0 where it was filled up, also
    where nothing had to be.
    """

    size: tuple[int, int]
    color: tuple[int, int, int]
    adds_valid: bool = False

    def map(self, element: Element) -> Element:
        element = _aligned(element)
        h, w = element["image"].shape[:2]
        if self.adds_valid:
            element["valid"] = np.ones((h, w), np.uint8)
        below, right = max(self.size[0] - h, 0), max(self.size[1] - w, 0)
        if below or right:
            fills = {"image": self.color, "label": IGNORE, "valid": 0}
            for key in fills.keys() & element.keys():
                element[key] = cv2.copyMakeBorder(
                    element[key],
                    *(0, below, 0, right),
                    borderType=cv2.BORDER_CONSTANT,
                    value=fills[key],
                )
        return element


@dataclasses.dataclass(frozen=True)
class Frozen(grain.transforms.RandomMap):
    """Draws `transform` once per run: the same numbers for every example.

    The released TUFL draws the flip, scale and crop of its target images when the
    dataset is made, so that all images of a run share them.  For faithful reproduction
    only.  The training pipeline replaces `seed` by one that follows from the run's.
    """

    transform: grain.transforms.RandomMap
    seed: int = 0

    def random_map(self, element: Element, rng: np.random.Generator) -> Element:
        del rng
        return self.transform.random_map(element, np.random.default_rng(self.seed))


def apply(ops: Sequence, element: Element, rng: np.random.Generator) -> Element:
    """The element after all ops, in order; random ones draw from `rng`."""
    for op in ops:
        if isinstance(op, grain.transforms.RandomMap):
            element = op.random_map(element, rng)
        else:
            element = op.map(element)
    return element


def _aligned(element: Element) -> Element:
    """A copy of the element whose label has the image's size, by the nearest pixel."""
    return resize(element, element["image"].shape[:2], "area")


def _window(shape, size, rng) -> tuple[slice, slice]:
    """A window of `size`, or of what there is, at a random place of `shape`."""
    height, width = min(size[0], shape[0]), min(size[1], shape[1])
    top = rng.integers(shape[0] - height + 1)
    left = rng.integers(shape[1] - width + 1)
    return slice(top, top + height), slice(left, left + width)


def _cut(element: Element, window: tuple[slice, slice]) -> Element:
    # A copy, so that the whole image can be freed.
    return _change(element, lambda x: x[window].copy())


def _change(element: Element, function) -> Element:
    return {**element, **{k: function(element[k]) for k in element.keys() & _MOVED}}
