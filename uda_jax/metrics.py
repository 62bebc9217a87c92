"""The report that keeps an evaluation's counts, and every score that follows."""

import dataclasses
import functools
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rich.box
import rich.console
import rich.table

from uda_jax.errors import UserError
from uda_jax.files import write_atomically
from uda_jax.scores import (
    bootstrap_difference,
    bootstrap_interval,
    iou_per_class,
    mean_accuracy,
    miou,
    pixel_accuracy,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
    """What an evaluation counted, and every score that follows from the counts.

    Attributes:
      confusion: [C, C] int64 pixel counts, label x prediction, over all images.
      class_names: C names.
      classes: train ids that the mean goes over (a benchmark's subset of C).
      num_images: number of images counted.
      provenance: how it was obtained: network, step, checkpoint, benchmark, mode,
        size, window, stride, scales, flip..., and in words "protocol"; JSON values.
      confusions: [N, C, C] int64 per image, for the bootstrap, or None.
      image_names: N names, in the order of `confusions`.
      also: train ids of further means that the field reports beside it, by name.
    """

    confusion: np.ndarray
    class_names: tuple[str, ...]
    classes: tuple[int, ...]
    num_images: int
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    confusions: np.ndarray | None = None
    image_names: tuple[str, ...] = ()
    also: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

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
    def miou_also(self) -> dict[str, float]:
        """Mean IoU over the classes of each further mean that occur."""
        return {k: float(miou(self.confusion, v)) for k, v in self.also.items()}

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

    @property
    def protocol(self) -> str:
        """How images were looked at and labels counted; "" where nobody said it."""
        return self.provenance.get("protocol", "")

    def gain_interval(self, before: "Report") -> tuple[float, float] | None:
        """Paired 95 % bootstrap interval of `miou` minus `before`'s.

        None where `unlike` has something to say, for fewer than two images, or without
        the counts per image of both.
        """
        both = (before.confusions, self.confusions)
        if self.unlike(before) or any(c is None or len(c) < 2 for c in both):
            return None
        return bootstrap_difference(*both, self.classes)

    def unlike(self, other: "Report") -> str:
        """What keeps two scores from being compared like with like; "" if nothing.

        One phrase on `other`: it counts other classes, is of other images, or was
        scored by another protocol.
        """
        of_classes = lambda r: [r.class_names[c] for c in r.classes]
        if of_classes(self) != of_classes(other):
            return "counts other classes"
        known = self.image_names and other.image_names
        if known and self.image_names != other.image_names:
            return "is of other images"
        if self.protocol != other.protocol:
            return f"was scored otherwise ({other.protocol or 'not recorded how'})"
        return ""

    def to_json(self) -> dict[str, Any]:
        """Returns the scores, the provenance and the counts as JSON values."""
        number = lambda x: None if np.isnan(x) else float(x)
        return {
            "miou": number(self.miou),
            "miou_strict": number(self.miou_strict),
            "miou_also": {k: number(v) for k, v in self.miou_also.items()},
            "miou_interval_95": self.interval and list(self.interval),
            "pixel_accuracy": number(self.pixel_accuracy),
            "mean_accuracy": number(self.mean_accuracy),
            "iou_per_class": {k: number(v) for k, v in self.iou_per_class.items()},
            "absent_classes": list(self.absent),
            **self.counts(),
        }

    def counts(self) -> dict[str, Any]:
        """What the scores of `to_json` follow from, as JSON values."""
        return {
            "num_images": self.num_images,
            "provenance": dict(self.provenance),
            "class_names": list(self.class_names),
            "classes": list(self.classes),
            "also": {k: list(v) for k, v in self.also.items()},
            "confusion": np.asarray(self.confusion).tolist(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Report":
        """The inverse of `to_json` and `counts`, without the counts per image."""
        return cls(
            confusion=np.asarray(values["confusion"], np.int64),
            class_names=tuple(values["class_names"]),
            classes=tuple(values["classes"]),
            num_images=values["num_images"],
            also={k: tuple(v) for k, v in values["also"].items()},
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

        With a `baseline` two more columns show its numbers and the gain; below it says
        where the two cannot be compared like with like.
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
        old = baseline.miou_also if baseline else {}
        for name, value in self.miou_also.items():
            add(f"mIoU ({name})", value, old.get(name, np.nan))
        for key in ("pixel_accuracy", "mean_accuracy"):
            before = getattr(baseline, key) if baseline else np.nan
            add(key.replace("_", " "), getattr(self, key), before)
        # Names of classes are a user's own: "crop [wet]" is no markup.
        console = rich.console.Console(
            file=io.StringIO(), width=88, markup=False, emoji=False
        )
        console.print(table)
        lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
        lines.append(f"{self.num_images} images.")
        if self.interval:
            low, high = (100 * x for x in self.interval)
            lines[-1] += (
                f"  95 % interval of the mIoU over images: {low:.1f}-{high:.1f}."
            )
        if self.protocol:
            lines.append(f"Protocol: {self.protocol}.")
        if baseline and (gain := self.gain_interval(baseline)):
            low, high = (100 * x for x in gain)
            lines.append(f"95 % interval of the gain: {low:+.1f} to {high:+.1f}.")
        if baseline and (why := self.unlike(baseline)):
            lines.append(f"Not like with like: before {why}.")
        if self.absent:
            names = ", ".join(self.absent)
            lines.append(
                f"Neither labelled nor predicted, so not in the mean: {names}."
            )
        return "\n".join(lines).strip("\n")


def _images_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}_images.npz")
