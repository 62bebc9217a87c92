"""Samplings that draw a class first, then an image and a crop that show it.

`uda_jax.data.sampling` has the others, and the table of all.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any

import grain
import numpy as np

from uda_jax.data.dataset import Dataset
from uda_jax.data.geometry import split_fixed
from uda_jax.data.ops import Frozen, RandomCrop, VariedCrop, apply
from uda_jax.data.resizing import resize
from uda_jax.data.statistics import ClassCounts
from uda_jax.errors import UserError

Ops = Sequence[grain.transforms.Transformation]
Sampling = Callable[[Dataset, Ops, int], grain.MapDataset]
Counts = Callable[[], ClassCounts]

# How often rare-class sampling draws a crop with too little of the class anew; as
# DAFormer.
_REDRAWS = 10
# How many crops of an image, and images, long-tail sampling tries to find a class;
# then how many crops of an image about a pixel of it, as a random scale may lose it.
_CROPS, _IMAGES, _PLACED = 50, 20, 10


def rare_class(
    counts: Counts,
    *,
    temperature: float = 0.01,
    min_pixels: int = 3000,
    min_crop_ratio: float = 0.5,
) -> Sampling:
    """Rare-class sampling: a class first, the rarer the likelier, then an image of it.

    A class c is drawn with the probability of `rare_class_probabilities`, then an image
    among those whose full-resolution label has more than `min_pixels` pixels of c, each
    equally likely.  While its crop has no more than `min_pixels` * `min_crop_ratio`
    pixels of c, the same image is augmented anew, up to ten times; the last crop is
    taken as it is.  The image is decoded, and resized, once.

    The two numbers belong to different sizes: `min_pixels` to the labels as they are
    stored, `min_pixels` * `min_crop_ratio` to the crops.  So the ratio grows with the
    pixels that an object has in a crop: 0.5 for GTA5 at 1280 x 720, 2.0 at twice that
    height and width (HRDA, MIC); 0 takes every first crop.

    Source: DAFormer (Hoyer et al., CVPR 2022), section 3.3 and the released program.

    Args:
      counts: gives the pixels of each class in each label of the dataset.
      temperature: T; `float("inf")` draws all classes that occur alike.
      min_pixels: that an image needs of a class, at full resolution.
      min_crop_ratio: of `min_pixels`, that a crop needs.

    Raises:
      UserError: a number is out of range; when the stream is made, the counts are not
        of this dataset, or a class occurs but no image has enough pixels of it.
    """
    if not temperature > 0:
        raise UserError(
            f"temperature={temperature} of rare-class sampling must be positive: 0.01 "
            'is the published one, float("inf") draws all classes alike.'
        )
    if min_pixels < 0 or not 0 <= min_crop_ratio < np.inf:
        raise UserError(
            f"min_pixels={min_pixels} and min_crop_ratio={min_crop_ratio} of "
            "rare-class sampling must not be negative: 3000 and 0.5 are the published "
            "ones."
        )
    asks = f"rare-class sampling asks for more than min_pixels={min_pixels}"

    def stream(dataset: Dataset, ops: Ops, seed: int) -> grain.MapDataset:
        known = _counted(counts, dataset, "rare-class sampling")
        classes, probabilities = rare_class_probabilities(known.totals, temperature)
        draw = _RareClassDraw(
            dataset,
            *split_fixed(tuple(ops)),
            classes=tuple(int(c) for c in classes),
            images=_images_with(known, classes, min_pixels + 1, asks),
            probabilities=probabilities,
            min_crop_pixels=min_pixels * min_crop_ratio,
            redraws=_REDRAWS if min_crop_ratio else 0,
        )
        return positions(seed).random_map(draw)

    return stream


def long_tail(
    counts: Counts, *, classes: tuple[str, ...] = (), min_pixels: int = 1
) -> Sampling:
    """Crops that are known to hold a class, every class equally often: for pasting.

    With K classes, the positions n * K to n * K + K - 1 of the stream belong to a
    random order of them.  For its class a position draws an image among those whose
    full-resolution label has at least `min_pixels` pixels of it, each equally likely,
    and augments it until a crop holds the class, up to 50 times; then another image,
    up to 20.  An image is decoded, and resized, once.  Where none of these crops holds
    the class, the window is placed about a random pixel of it, in the first image that
    still shows it at this size.  Elements get "class": int32 [], the train id.

    Source: long-tail pasting of TUFL (Yan et al., T-ITS 2023).  The original draws
    classes by the current thresholds, or uniformly, takes an image of each, tries up to
    1000 crops of it and pastes a crop that may lack the class.  Its crops are neither
    mirrored nor scaled; here they get the source's geometry.  The thresholds live on
    the device, so that the choice among the classes is made there, from a bank of the
    latest crop of each (`uda_jax.mixing.long_tail`) which this stream keeps fresh.

    Args:
      counts: gives the pixels of each class in each label of the dataset.
      classes: names of the label space; () for all that occur.
      min_pixels: that an image needs of a class, at full resolution.

    Raises:
      UserError: `min_pixels` is below 1 or a class is named twice; when the stream is
        made, the counts are not of this dataset, a name is not in its label space, or
        no image has enough pixels of a class; when an element is made, its class is
        lost in all images as they are resized.
    """
    if min_pixels < 1:
        raise UserError(
            f"min_pixels={min_pixels} of long-tail sampling is too small: give 1 for "
            "all images that have the class, or more."
        )
    if len(set(classes)) < len(classes):
        raise UserError(
            f"classes={classes} of long-tail sampling names one twice: name each once."
        )
    asks = f"long-tail sampling asks for at least min_pixels={min_pixels}"

    def stream(dataset: Dataset, ops: Ops, seed: int) -> grain.MapDataset:
        known = _counted(counts, dataset, "long-tail sampling")
        chosen = dataset.label_space.train_ids(classes)
        chosen = chosen or tuple(np.flatnonzero(known.totals).tolist())
        if not chosen:
            raise _all_ignored("long-tail sampling")
        draw = _LongTailDraw(
            dataset,
            *split_fixed(tuple(ops)),
            classes=chosen,
            images=_images_with(known, chosen, min_pixels, asks),
            seed=seed,
        )
        return positions(seed).random_map(draw)

    return stream


def rare_class_probabilities(
    totals: np.ndarray, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """P(c) = softmax((1 - f_c) / T) over the classes that occur.

    f_c = pixels of c / pixels of all classes; ignored pixels are no class.

    Args:
      totals: int [C] pixels of each class in the dataset.
      temperature: T > 0, may be infinite.

    Returns:
      (int64 [K] train ids of the classes that occur, the rarest first; float64 [K]
      their probabilities, with the sum 1).

    Raises:
      UserError: no class occurs.
    """
    order = np.argsort(totals, kind="stable")
    order = order[totals[order] > 0]
    if not order.size:
        raise _all_ignored("rare-class sampling")
    scores = (1 - totals[order] / totals.sum()) / temperature
    weights = np.exp(scores - scores.max())
    return order, weights / weights.sum()


def positions(seed: int) -> grain.MapDataset:
    """0, 1, 2, ...: what random numbers are keyed by."""
    return grain.MapDataset.range(sys.maxsize).seed(seed)


@dataclasses.dataclass(frozen=True, eq=False)
class _ClassDraw(grain.transforms.RandomMap):
    """What both draws know: how to make a crop, and the images of each class."""

    dataset: Dataset
    fixed_ops: Ops
    crop_ops: Ops
    _: dataclasses.KW_ONLY
    classes: tuple[int, ...]
    images: tuple[np.ndarray, ...]

    def whole(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        return apply(self.fixed_ops, self.dataset[int(index)], rng)

    def crop(self, whole: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        return apply(self.crop_ops, whole, rng)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _RareClassDraw(_ClassDraw):
    """Any position -> an augmented example that shows the class drawn."""

    probabilities: np.ndarray
    min_crop_pixels: float
    redraws: int

    def random_map(self, element: int, rng: np.random.Generator) -> dict[str, Any]:
        drawn = rng.choice(len(self.classes), p=self.probabilities)
        index = self.images[drawn][rng.integers(len(self.images[drawn]))]
        whole = self.whole(index, rng)
        crop = self.crop(whole, rng)
        for _ in range(self.redraws):
            pixels = np.count_nonzero(crop["label"] == self.classes[drawn])
            if pixels > self.min_crop_pixels:
                break
            crop = self.crop(whole, rng)
        return crop


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _LongTailDraw(_ClassDraw):
    """A position -> an augmented example that shows the position's class."""

    seed: int

    def random_map(self, element: int, rng: np.random.Generator) -> dict[str, Any]:
        turn, place = divmod(element, len(self.classes))
        order = np.random.default_rng((self.seed, turn)).permutation(len(self.classes))
        train_id, images = self.classes[order[place]], self.images[order[place]]
        for index in rng.choice(images, min(len(images), _IMAGES), replace=False):
            whole = self.whole(index, rng)
            if train_id not in whole["label"]:
                continue  # it vanished when the image was resized
            for _ in range(_CROPS):
                crop = self.crop(whole, rng)
                if train_id in crop["label"]:
                    return {**crop, "class": np.int32(train_id)}
        for index in rng.permutation(images):
            whole = self.whole(index, rng)
            for _ in range(_PLACED * (train_id in whole["label"])):
                crop = _about(self.crop_ops, whole, train_id, rng)
                if train_id in crop["label"]:
                    return {**crop, "class": np.int32(train_id)}
        space = self.dataset.label_space
        raise UserError(
            f'class "{space.classes[train_id]}" is lost in all {len(images)} images '
            "that have it when they are resized: leave it out of the classes of this "
            "long-tail sampling or choose a larger size, in a new --workdir (with "
            "continue_from it goes on from this one)."
        )


def _about(
    ops: Ops, element: dict[str, Any], train_id: int, rng: np.random.Generator
) -> dict[str, Any]:
    """`apply`, but windows are cut about a random pixel of a class."""
    for op in ops:
        inner = op.transform if isinstance(op, Frozen) else op
        if isinstance(inner, RandomCrop | VariedCrop):
            # Frozen or not: a window that is the same in all images misses the class.
            element, op = _reach(inner, element, train_id, rng), inner
        element = apply((op,), element, rng)
    return element


def _reach(
    crop: RandomCrop | VariedCrop,
    element: dict[str, Any],
    train_id: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """The part of an image where every window of the crop holds one pixel."""
    height, width = element["image"].shape[:2]
    factor = max(crop.size[0] / height, crop.size[1] / width)
    if isinstance(crop, RandomCrop) and factor > 1:
        # As the crop does first; of a part it would enlarge another size.
        height, width = int(factor * height + 1), int(factor * width + 1)
    # Also brings a label of another size to the image's.
    element = resize(element, (height, width), getattr(crop, "filter", "area"))
    rows, columns = np.nonzero(element["label"] == train_id)
    if not rows.size:
        return element
    chosen = rng.integers(rows.size)
    part = tuple(
        slice(max(place - length + 1, 0), place + length)
        for place, length in zip(
            (rows[chosen], columns[chosen]), crop.size, strict=True
        )
    )
    moved = element.keys() & {"image", "label", "valid"}
    return {**element, **{key: element[key][part] for key in moved}}


def _counted(counts: Counts, dataset: Dataset, sampling: str) -> ClassCounts:
    known = counts()
    if known.names != dataset.names or not dataset.has_labels:
        raise UserError(
            f"{sampling} got class counts of other examples than the dataset's "
            "labelled ones: count the dataset that is sampled."
        )
    return known


def _images_with(
    known: ClassCounts, classes: Sequence[int], least: int, asks: str
) -> tuple[np.ndarray, ...]:
    """Of each class the indices of the images with at least `least` pixels of it.

    Raises:
      UserError: which names all classes without one.
    """
    images = tuple(np.flatnonzero(known.counts[:, c] >= least) for c in classes)
    most = {
        known.label_space.classes[c]: int(known.counts[:, c].max())
        for c, indices in zip(classes, images, strict=True)
        if not indices.size
    }
    if most:
        told = ", ".join(f'class "{k}" has at most {n}' for k, n in most.items())
        absent = " and ".join(f'"{k}"' for k, n in most.items() if not n)
        remedies = [f"leave {absent} out"] if absent else []
        remedies += ["choose a smaller min_pixels"] if any(most.values()) else []
        raise UserError(
            f"{told} pixels in a label, but {asks}: {' and '.join(remedies)}."
        )
    return images


def _all_ignored(sampling: str) -> UserError:
    return UserError(
        f"{sampling} needs labels, but all their pixels are ignored: check the "
        "dataset's label space and coding."
    )
