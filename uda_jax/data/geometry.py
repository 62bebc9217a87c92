"""The host part of each published recipe: how images are resized, cropped and mirrored.

A geometry is a tuple of ops (`uda_jax.data.ops`) after which every image, and its
label, has one size.  `GEOMETRIES` maps the names that configs use to the factories.
What the recipes do to colours, and blur, runs on the device: `uda_jax.augment`.
"""

from collections.abc import Callable

import grain

from uda_jax.data.dataset import check_one_of
from uda_jax.data.ops import (
    Frozen,
    HorizontalFlip,
    Pad,
    RandomCrop,
    RandomLongSide,
    RandomScale,
    Resize,
    ResizeKeepingAspect,
    VariedCrop,
)
from uda_jax.data.resizing import FILTERS
from uda_jax.errors import UserError

Ops = tuple[grain.transforms.Transformation, ...]

_BLACK = (0, 0, 0)
# DAFormer fills up with 0 after the normalisation: ImageNet's mean, rounded.
_MEAN_COLOR = (124, 116, 104)


def tufl(
    *,
    crop_size: tuple[int, int],
    resize: tuple[int, int] = (),
    scales: tuple[float, ...] = (0.75, 1.0, 1.25, 1.5),
    flip_probability: float = 0.5,
    filter: str = "pillow_bilinear",
    frozen: bool = False,
) -> Ops:
    """[Resize], HorizontalFlip, [RandomScale], RandomCrop.

    Source: TUFL (Yan et al., T-ITS 2023), the released program's source and weak target
    views.

    Args:
      crop_size: (height, width) of what comes out.
      resize: (height, width) that images are brought to first; () leaves them.
      scales: factors to choose from; (1.0,) for none.
      flip_probability: chance to be mirrored.
      filter: key of `uda_jax.data.resizing.FILTERS`.
      frozen: draw all three once for the whole run instead of once per example, as the
        released program does for its target images.

    Raises:
      UserError: a size is not two positive integers, a scale is not positive, the
        probability is not in [0, 1], or the filter is unknown.
    """
    crop_size = _size("crop_size", crop_size)
    _check_filter(filter)
    if not scales or any(scale <= 0 for scale in scales):
        raise UserError(
            f"scales={scales} must be positive numbers: (1.0,) for no change."
        )
    fixed = (Resize(_size("resize", resize), filter),) if resize else ()
    drawn = (
        _flip(flip_probability),
        *((RandomScale(tuple(scales), filter),) if tuple(scales) != (1.0,) else ()),
        RandomCrop(crop_size, filter),
    )
    return fixed + (tuple(map(Frozen, drawn)) if frozen else drawn)


def maxsquare(
    *,
    size: tuple[int, int],
    flip_probability: float = 0.5,
    filter: str = "pillow_bicubic",
) -> Ops:
    """Resize, HorizontalFlip.

    Source: MaxSquare (Chen et al., ICCV 2019).  The original mirrors first.  Images
    come out the same, bit for bit, and so do labels, unless their old width over their
    new one, reduced, has an even numerator, such as 2048 / 1024: there the centre of an
    output pixel falls between two input pixels, the nearest rule takes the right one,
    and mirroring first makes it the left one (2.6 % of the pixels of CamVid's labels
    halved to 180 x 240, all at edges of classes).  This order is the one whose first
    half can be prepared once.

    Args:
      size: (height, width) of what comes out.
      flip_probability: chance to be mirrored.
      filter: key of `uda_jax.data.resizing.FILTERS`.

    Raises:
      UserError: `size` is not two positive integers, the probability is not in [0, 1],
        or the filter is unknown.
    """
    return *advent(size=size, filter=filter), _flip(flip_probability)


def advent(*, size: tuple[int, int], filter: str = "pillow_bicubic") -> Ops:
    """Resize alone.

    Source: ADVENT (Vu et al., CVPR 2019), and IntraDA (Pan et al., CVPR 2020) after it.

    Args:
      size: (height, width) of what comes out.
      filter: key of `uda_jax.data.resizing.FILTERS`.

    Raises:
      UserError: `size` is not two positive integers, or the filter is unknown.
    """
    _check_filter(filter)
    return (Resize(_size("size", size), filter),)


def ss_ada(
    *,
    crop_size: tuple[int, int],
    ratios: tuple[float, float] = (0.5, 2.0),
    flip_probability: float = 0.5,
    filter: str = "pillow_bilinear",
) -> Ops:
    """RandomLongSide, Pad, RandomCrop, HorizontalFlip; adds "valid".

    Source: SS-ADA (Yan et al.), and UniMatch (Yang et al., CVPR 2023) before it.  Small
    images are filled up with black at the right and at the bottom, their labels with
    `IGNORE`; "valid" is 0 there, where the original writes 254 into the mask of its
    unlabelled images.

    Args:
      crop_size: (height, width) of what comes out.
      ratios: least and largest factor of the longer side.
      flip_probability: chance to be mirrored.
      filter: key of `uda_jax.data.resizing.FILTERS`.

    Raises:
      UserError: `crop_size` is not two positive integers, `ratios` are not 0 < least <=
        largest, the probability is not in [0, 1], or the filter is unknown.
    """
    crop_size = _size("crop_size", crop_size)
    _check_filter(filter)
    if len(ratios) != 2 or not 0 < ratios[0] <= ratios[1]:
        raise UserError(
            f"ratios={tuple(ratios)} must be the least and the largest factor, both "
            "positive: (1.0, 1.0) for no change."
        )
    return (
        RandomLongSide(tuple(ratios), filter),
        Pad(crop_size, _BLACK, adds_valid=True),
        RandomCrop(crop_size, filter),
        _flip(flip_probability),
    )


def daformer(
    *,
    resize: tuple[int, int],
    crop_size: tuple[int, int],
    cat_max_ratio: float = 1.0,
    flip_probability: float = 0.5,
    filter: str = "opencv_bilinear",
) -> Ops:
    """ResizeKeepingAspect, VariedCrop, HorizontalFlip, Pad.

    Source: DAFormer (Hoyer et al., CVPR 2022); EBDA, HRDA and MIC do the same.  Images
    smaller than the crop are filled up with the mean colour, labels with `IGNORE`.  A
    label of another size than its image is brought to the image's before the crop; the
    original cuts both at the same pixels and fills up what the label lacks.

    Args:
      resize: bound of the resized image; its aspect is kept.
      crop_size: (height, width) of what comes out.
      cat_max_ratio: share of a labelled crop that one class may have; 1.0 for any.
      flip_probability: chance to be mirrored.
      filter: key of `uda_jax.data.resizing.FILTERS`.

    Raises:
      UserError: a size is not two positive integers, the ratio is not in (0, 1], the
        probability is not in [0, 1], or the filter is unknown.
    """
    crop_size = _size("crop_size", crop_size)
    _check_filter(filter)
    if not 0 < cat_max_ratio <= 1:
        raise UserError(
            f"cat_max_ratio={cat_max_ratio} is not in (0, 1]: 0.75 redraws crops that "
            "one class fills by three quarters, 1.0 takes every crop."
        )
    return (
        ResizeKeepingAspect(_size("resize", resize), filter),
        VariedCrop(crop_size, cat_max_ratio),
        _flip(flip_probability),
        Pad(crop_size, _MEAN_COLOR),
    )


GEOMETRIES: dict[str, Callable[..., Ops]] = {
    "tufl": tufl,
    "maxsquare": maxsquare,
    "advent": advent,
    "ss_ada": ss_ada,
    "daformer": daformer,
}


def split_fixed(ops: Ops) -> tuple[Ops, Ops]:
    """(the leading ops that draw nothing, the others).

    What the first part makes of an image never changes, so it can be made once and
    stored: `uda_jax.data.prepare`.
    """
    count = 0
    while count < len(ops) and isinstance(ops[count], grain.transforms.Map):
        count += 1
    return tuple(ops[:count]), tuple(ops[count:])


def _flip(probability: float) -> HorizontalFlip:
    if not 0 <= probability <= 1:
        raise UserError(
            f"flip_probability={probability} is not in [0, 1]: 0.5 mirrors every "
            "second image, 0 none."
        )
    return HorizontalFlip(probability)


def _size(name: str, size) -> tuple[int, int]:
    if len(size) != 2 or not all(type(n) is int and n > 0 for n in size):
        raise UserError(
            f"{name}={tuple(size)} must be two positive integers (height, width)."
        )
    return tuple(size)


def _check_filter(name: str) -> None:
    check_one_of("filter", name, tuple(FILTERS))
