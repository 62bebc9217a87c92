"""The scores that are read off confusion matrices, and the report that keeps them.

A confusion matrix holds pixel counts, `confusion[label, prediction]`.  It is counted
per image on the device (confusion.py) and summed in 64-bit integers on the host.
All scores are fractions in [0, 1]; tables show percent.
"""

import dataclasses
import functools
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich.box
import rich.console
import rich.table

from uda_jax.errors import UserError
from uda_jax.files import write_atomically


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


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
    """What an evaluation counted, and every score that follows from the counts.

    Attributes:
      confusion: [C, C] int64 pixel counts, label x prediction, over all images.
      class_names: C names.
      classes: train ids that the mean goes over (a benchmark's subset of C).
      num_images: number of images counted.
      provenance: how it was obtained: network, step, checkpoint, benchmark, mode,
        size, window, stride, scales, flip...; JSON values.
      confusions: [N, C, C] int64 per image, for the bootstrap, or None.
      image_names: N names, in the order of `confusions`.
    """

    confusion: np.ndarray
    class_names: tuple[str, ...]
    classes: tuple[int, ...]
    num_images: int
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    confusions: np.ndarray | None = None
    image_names: tuple[str, ...] = ()

    @property
    def iou(self) -> np.ndarray:
        """[C] IoU of every class, NaN where a class occurs nowhere."""
        return iou_per_class(self.confusion)

    @property
    def iou_per_class(self) -> dict[str, float]:
        """IoU by name of the evaluated classes; NaN where a class occurs nowhere."""
        iou = self.iou
        return {self.class_names[c]: float(iou[c]) for c in self.classes}

    @property
    def miou(self) -> float:
        """Mean IoU over the evaluated classes that occur: the headline number."""
        return float(miou(self.confusion, self.classes))

    @property
    def miou_strict(self) -> float:
        """Mean IoU over all evaluated classes: NaN when one occurs nowhere."""
        return float(miou(self.confusion, self.classes, strict=True))

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of evaluated classes that are neither labelled nor predicted."""
        return tuple(k for k, v in self.iou_per_class.items() if np.isnan(v))

    @property
    def pixel_accuracy(self) -> float:
        return float(pixel_accuracy(self.confusion))

    @property
    def mean_accuracy(self) -> float:
        return float(mean_accuracy(self.confusion, self.classes))

    @functools.cached_property
    def interval(self) -> tuple[float, float] | None:
        """95 % bootstrap interval of `miou` over images; None for fewer than two."""
        if self.confusions is None or len(self.confusions) < 2:
            return None
        return bootstrap_interval(self.confusions, self.classes)

    def to_json(self) -> dict[str, Any]:
        """Returns the scores, the provenance and the counts as JSON values."""
        number = lambda x: None if np.isnan(x) else float(x)
        return {
            "miou": number(self.miou),
            "miou_strict": number(self.miou_strict),
            "miou_interval_95": self.interval and list(self.interval),
            "pixel_accuracy": number(self.pixel_accuracy),
            "mean_accuracy": number(self.mean_accuracy),
            "iou_per_class": {k: number(v) for k, v in self.iou_per_class.items()},
            "absent_classes": list(self.absent),
            "num_images": self.num_images,
            "provenance": dict(self.provenance),
            "class_names": list(self.class_names),
            "classes": list(self.classes),
            "confusion": np.asarray(self.confusion).tolist(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Report":
        """The inverse of `to_json`, without the counts per image."""
        return cls(
            confusion=np.asarray(values["confusion"], np.int64),
            class_names=tuple(values["class_names"]),
            classes=tuple(values["classes"]),
            num_images=values["num_images"],
            provenance=values["provenance"],
        )

    def save(self, path: str | os.PathLike) -> Path:
        """Writes `path` (JSON) and beside it, when known, `<stem>_images.npz`.

        Both are written atomically; the second holds the counts per image, from which
        two runs can be compared later by `bootstrap_difference`.
        """
        path = Path(path)
        if self.confusions is not None:
            stream = io.BytesIO()
            np.savez_compressed(
                stream, confusions=self.confusions, image_names=list(self.image_names)
            )
            write_atomically(_images_path(path), stream.getvalue())
        text = json.dumps(self.to_json(), indent=1)
        return write_atomically(path, text + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Report":
        """Reads what `save` wrote.

        Raises:
          UserError: the file is missing or is no report.
        """
        path = Path(path)
        try:
            report = cls.from_json(json.loads(path.read_text()))
        except FileNotFoundError:
            raise UserError(
                f"{path} does not exist; evaluate the run first to write it."
            ) from None
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path} is not a report of an evaluation ({error}); evaluate the run "
                "again to write it anew."
            ) from error
        if not _images_path(path).exists():
            return report
        with np.load(_images_path(path)) as images:
            return dataclasses.replace(
                report,
                confusions=images["confusions"],
                image_names=tuple(images["image_names"].tolist()),
            )

    def table(self, baseline: "Report | None" = None) -> str:
        """Returns IoU per class and the means, in percent, as text to print.

        With a `baseline` two more columns show its numbers and the gain.
        """
        show = lambda x: "-" if np.isnan(x) else f"{100 * x:.1f}"
        gain = lambda x: "-" if np.isnan(x) else f"{100 * x:+.1f}"
        table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("IoU in %")
        heads = ["before", "after", "gain"] if baseline else ["IoU"]
        for head in heads:
            table.add_column(head, justify="right")

        def add(name, value, before, **style):
            cells = [show(value)]
            if baseline:
                cells = [show(before), *cells, gain(value - before)]
            table.add_row(name, *cells, **style)

        old = baseline.iou_per_class if baseline else {}
        names = list(self.iou_per_class)
        for name, value in self.iou_per_class.items():
            last = name == names[-1]
            add(name, value, old.get(name, np.nan), end_section=last)
        mean = f"mIoU ({len(names) - len(self.absent)} classes)"
        add(mean, self.miou, baseline.miou if baseline else np.nan)
        for key in ("pixel_accuracy", "mean_accuracy"):
            before = getattr(baseline, key) if baseline else np.nan
            add(key.replace("_", " "), getattr(self, key), before)
        console = rich.console.Console(file=io.StringIO(), width=88)
        console.print(table)
        lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
        lines.append(f"{self.num_images} images.")
        if self.interval:
            low, high = (100 * x for x in self.interval)
            lines[-1] += (
                f"  95 % interval of the mIoU over images: {low:.1f}-{high:.1f}."
            )
        if self.absent:
            names = ", ".join(self.absent)
            lines.append(
                f"Neither labelled nor predicted, so not in the mean: {names}."
            )
        return "\n".join(lines).strip("\n")


def _images_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}_images.npz")
