"""Scores that are read off confusion matrices, and their bootstrap intervals.

A confusion matrix holds pixel counts, `confusion[label, prediction]`.  It is counted
per image on the device (confusion.py) and summed in 64-bit integers on the host.
All scores are fractions in [0, 1]; tables show percent.
"""

from collections.abc import Sequence

import numpy as np


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, NaN where the denominator is 0, as float64."""
    out = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    np.divide(numerator, denominator, out=out, where=np.asarray(denominator) > 0)
    return out


def iou_per_class(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union: diag / (row + column - diag).

    Args:
      confusion: [..., C, C] pixel counts.

    Returns:
      [..., C] float64 in [0, 1]; NaN for a class without labels and predictions.
    """
    confusion = np.asarray(confusion)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    union = confusion.sum(-1) + confusion.sum(-2) - hits
    return _ratio(hits, union)


def miou(
    confusion: np.ndarray,
    classes: Sequence[int] | None = None,
    *,
    strict: bool = False,
) -> float | np.ndarray:
    """Mean of the IoU over `classes` (all by default).

    Denominator: the number of those classes that are labelled or predicted at least
    once; NaN if there are none.  With `strict` it is the number of classes and one
    class without any pixel makes the mean NaN, as in the released evaluation of TUFL.
    The confusion stays complete: with a subset, pixels of the other classes still
    count as misses and false alarms of the classes of the subset.

    Args:
      confusion: [..., C, C] pixel counts.
      classes: train ids to average over.
      strict: see above.

    Returns:
      [...] float64; a float for one matrix.
    """
    iou = iou_per_class(confusion)
    if classes is not None:
        iou = iou[..., list(classes)]
    if strict:
        return iou.mean(-1)[()]
    present = ~np.isnan(iou)
    return _ratio(np.where(present, iou, 0).sum(-1), present.sum(-1))[()]


def pixel_accuracy(confusion: np.ndarray) -> float | np.ndarray:
    """Correct pixels over labelled pixels (all classes); NaN without any."""
    confusion = np.asarray(confusion)
    hits = np.trace(confusion, axis1=-2, axis2=-1)
    return _ratio(hits, confusion.sum((-2, -1)))[()]


def mean_accuracy(
    confusion: np.ndarray, classes: Sequence[int] | None = None
) -> float | np.ndarray:
    """Mean over the labelled classes (of `classes`) of correct over labelled pixels."""
    confusion = np.asarray(confusion)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    recall = _ratio(hits, confusion.sum(-1))
    if classes is not None:
        recall = recall[..., list(classes)]
    present = ~np.isnan(recall)
    return _ratio(np.where(present, recall, 0).sum(-1), present.sum(-1))[()]


def bootstrap_interval(
    confusions: np.ndarray,
    classes: Sequence[int] | None = None,
    *,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of the mIoU over images drawn with replacement.

    It tells how far the score depends on which images are in the set, not how far it
    depends on the randomness of training.

    Args:
      confusions: [N, C, C] pixel counts per image.
      classes: train ids to average over; all by default.
      samples: number of bootstrap samples.
      seed: the same seed draws the same images.
      level: share of the samples inside the interval.

    Returns:
      (low, high), fractions.
    """
    scores = _bootstrap_miou(confusions, classes, samples, seed)
    return _percentiles(scores, level)


def bootstrap_difference(
    before: np.ndarray,
    after: np.ndarray,
    classes: Sequence[int] | None = None,
    *,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Paired percentile interval of mIoU(after) - mIoU(before) on the same images.

    Every sample draws the same images for both runs, so that what makes an image hard
    for both cancels.

    Args:
      before, after: [N, C, C] pixel counts per image, in the same order of images.
      classes, samples, seed, level: as in `bootstrap_interval`.

    Returns:
      (low, high), differences of fractions.
    """
    if np.shape(before) != np.shape(after):
        shapes = f"{np.shape(before)} and {np.shape(after)}"
        raise ValueError(f"a paired bootstrap needs the same images, not {shapes}.")
    scores = [_bootstrap_miou(c, classes, samples, seed) for c in (before, after)]
    return _percentiles(scores[1] - scores[0], level)


def _bootstrap_miou(confusions, classes, samples, seed):
    confusions = np.asarray(confusions)
    n = len(confusions)
    if n == 0:
        raise ValueError("a bootstrap needs at least one image.")
    rng = np.random.default_rng(seed)
    # How often each image is drawn; sums of integers below 2^53 are exact in float64.
    counts = rng.multinomial(n, np.full(n, 1 / n), size=samples).astype(np.float64)
    sums = counts @ confusions.reshape(n, -1).astype(np.float64)
    return miou(sums.reshape(samples, *confusions.shape[1:]), classes)


def _percentiles(scores, level):
    tail = (1 - level) / 2
    low, high = np.nanquantile(scores, [tail, 1 - tail])
    return float(low), float(high)
