"""Which example comes next: one endless, random-access stream per domain.

A sampling is a function (dataset, ops, seed) -> grain.MapDataset whose element i is the
i-th augmented example of a run.  It follows from (seed, i) alone: a run may start
anywhere, and any number of threads, workers and hosts see the same stream.  `SAMPLINGS`
maps the names that configs use to the factories.
"""

import dataclasses
import random
import sys
from collections.abc import Callable, Sequence
from typing import Any

import grain
import numpy as np

from uda_jax.data.dataset import Dataset
from uda_jax.data.geometry import split_fixed
from uda_jax.data.ops import apply
from uda_jax.data.statistics import ClassCounts
from uda_jax.errors import UserError

Ops = Sequence[grain.transforms.Transformation]
Sampling = Callable[[Dataset, Ops, int], grain.MapDataset]
Counts = Callable[[], ClassCounts]

# How often a crop with too little of the class is drawn anew; as DAFormer.
_REDRAWS = 10


def epochs(counts: Counts | None = None) -> Sampling:
    """Every example once per epoch, in an order drawn anew for each epoch."""
    del counts

    def stream(dataset: Dataset, ops: Ops, seed: int) -> grain.MapDataset:
        shuffled = grain.MapDataset.source(dataset).seed(seed).shuffle().repeat()
        return _augmented(shuffled, ops)

    return stream


def uniform(counts: Counts | None = None) -> Sampling:
    """Every example drawn from all, each equally likely, whatever came before.

    For both domains this gives DAFormer's pairs without rare-class sampling, and its
    target with it.  The original shuffles all pairs of a source and a target image, so
    that a pair cannot come twice before each has come once, which no run lives to see.
    """
    del counts

    def stream(dataset: Dataset, ops: Ops, seed: int) -> grain.MapDataset:
        return _augmented(_positions(seed).random_map(_UniformDraw(dataset)), ops)

    return stream


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

    def stream(dataset: Dataset, ops: Ops, seed: int) -> grain.MapDataset:
        known = counts()
        if known.names != dataset.names or not dataset.has_labels:
            raise UserError(
                "rare-class sampling got class counts of other examples than the "
                "dataset's labelled ones: count the dataset that is sampled."
            )
        classes, probabilities = rare_class_probabilities(known.totals, temperature)
        fixed_ops, crop_ops = split_fixed(tuple(ops))
        draw = _RareClassDraw(
            dataset=dataset,
            fixed_ops=fixed_ops,
            crop_ops=crop_ops,
            classes=tuple(int(c) for c in classes),
            probabilities=probabilities,
            images=tuple(_images_with(known, c, min_pixels) for c in classes),
            min_crop_pixels=min_pixels * min_crop_ratio,
            redraws=_REDRAWS if min_crop_ratio else 0,
        )
        return _positions(seed).random_map(draw)

    return stream


SAMPLINGS: dict[str, Callable[..., Sampling]] = {
    "epochs": epochs,
    "uniform": uniform,
    "rare_class": rare_class,
}


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
        raise UserError(
            "rare-class sampling needs labels, but all their pixels are ignored: check "
            "the dataset's label space and coding."
        )
    scores = (1 - totals[order] / totals.sum()) / temperature
    weights = np.exp(scores - scores.max())
    return order, weights / weights.sum()


def split_labelled(
    names: Sequence[str], ratio: float, seed: int = 0
) -> tuple[list[str], list[str]]:
    """Chooses the examples whose labels may be used, as SS-ADA.

    Python's `random` with `seed` shuffles the sorted names and then samples
    k = int(N * ratio + 0.5) of them.  With the seed 0, and the ratios .5, .25, .125,
    .0625, .05, .022 and .01, these are the published splits of the 140 parking images.
    Its Cityscapes splits come from elsewhere: read their lists.

    Args:
      names: [N], unique, in any order.
      ratio: share of labelled examples, in (0, 1].
      seed: of the choice.

    Returns:
      ([k] labelled names as they were sampled, [N - k] the others as they were
      shuffled).

    Raises:
      UserError: the ratio is not in (0, 1] or leaves no example.
    """
    count = int(len(names) * ratio + 0.5) if 0 < ratio <= 1 else 0
    if not count:
        raise UserError(
            f"ratio={ratio} of {len(names)} examples cannot be labelled: choose one in "
            "(0, 1] that gives at least one example."
        )
    generator = random.Random(seed)
    shuffled = sorted(names)
    generator.shuffle(shuffled)
    labelled = generator.sample(shuffled, count)
    chosen = set(labelled)
    return labelled, [name for name in shuffled if name not in chosen]


@dataclasses.dataclass(frozen=True, eq=False)
class _UniformDraw(grain.transforms.RandomMap):
    """Any position -> an example."""

    dataset: Dataset

    def random_map(self, element: int, rng: np.random.Generator) -> dict[str, Any]:
        return self.dataset[int(rng.integers(len(self.dataset)))]


@dataclasses.dataclass(frozen=True, eq=False)
class _RareClassDraw(grain.transforms.RandomMap):
    """Any position -> an augmented example that shows the class drawn."""

    dataset: Dataset
    fixed_ops: Ops
    crop_ops: Ops
    classes: tuple[int, ...]
    probabilities: np.ndarray
    images: tuple[np.ndarray, ...]
    min_crop_pixels: float
    redraws: int

    def random_map(self, element: int, rng: np.random.Generator) -> dict[str, Any]:
        drawn = rng.choice(len(self.classes), p=self.probabilities)
        index = self.images[drawn][rng.integers(len(self.images[drawn]))]
        whole = apply(self.fixed_ops, self.dataset[int(index)], rng)
        crop = apply(self.crop_ops, whole, rng)
        for _ in range(self.redraws):
            pixels = np.count_nonzero(crop["label"] == self.classes[drawn])
            if pixels > self.min_crop_pixels:
                break
            crop = apply(self.crop_ops, whole, rng)
        return crop


def _images_with(known: ClassCounts, train_id: int, min_pixels: int) -> np.ndarray:
    """Indices of the images with more than `min_pixels` pixels of a class."""
    pixels = known.counts[:, train_id]
    indices = np.flatnonzero(pixels > min_pixels)
    if not indices.size:
        raise UserError(
            f'class "{known.label_space.classes[train_id]}" has at most {pixels.max()} '
            f"pixels in a label, but rare-class sampling asks for more than min_pixels="
            f"{min_pixels}: choose a smaller min_pixels."
        )
    return indices


def _positions(seed: int) -> grain.MapDataset:
    """0, 1, 2, ...: what random numbers are keyed by."""
    return grain.MapDataset.range(sys.maxsize).seed(seed)


@dataclasses.dataclass(frozen=True)
class _Fixed(grain.transforms.Map):
    """The ops that draw nothing."""

    ops: Ops

    def map(self, element: dict[str, Any]) -> dict[str, Any]:
        return apply(self.ops, element, None)


def _augmented(stream: grain.MapDataset, ops: Ops) -> grain.MapDataset:
    fixed, rest = split_fixed(tuple(ops))
    # One map whether there are fixed ops or not: grain's seeds follow from the chain's
    # length, and prepared data, which has them behind it, must give the same batches.
    stream = stream.map(_Fixed(fixed))
    for op in rest:
        is_random = isinstance(op, grain.transforms.RandomMap)
        stream = stream.random_map(op) if is_random else stream.map(op)
    return stream
