"""What a check finds out about a data set: sizes, classes, files that are broken."""

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import cv2
import numpy as np

from uda_jax.data.dataset import Dataset, Size, size_text
from uda_jax.data.expected import Expected, expected
from uda_jax.data.images import check_ids, id_histogram
from uda_jax.errors import UserError
from uda_jax.labels import IGNORE
from uda_jax.visualize import colorize

_THUMBNAIL_WIDTH = 320


class Thumbnail(NamedTuple):
    """An example in small: uint8 [h, w, 3]; the label in colours, None without one."""

    name: str
    image: np.ndarray
    label: np.ndarray | None


@dataclasses.dataclass
class SetReport:
    """What was found in one data set.

    Attributes:
      role: "source", "target", "test", "validation", or the reader's name.
      row: its reader, root and options.
      dataset: the examples.
      unlabelled: those of them whose label is missing.
      expected: the published number of them, if it is known.
      checked: examples that were decoded.
      image_sizes, label_sizes: {(height, width): how many}.
      pixels: int64 [C], pixels of each class, over all labels.
      images: int64 [C], labels that show the class.
      ignored: pixels of no class.
      problems: a sentence each; any of them means that the data set is not well.
      thumbnails: some examples, evenly spaced.
    """

    role: str
    row: Mapping[str, Any]
    dataset: Dataset
    unlabelled: Collection[int] = ()
    expected: Expected | None = None
    checked: int = 0
    image_sizes: collections.Counter = dataclasses.field(
        default_factory=collections.Counter
    )
    label_sizes: collections.Counter = dataclasses.field(
        default_factory=collections.Counter
    )
    pixels: np.ndarray = dataclasses.field(init=False)
    images: np.ndarray = dataclasses.field(init=False)
    ignored: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)
    thumbnails: list[Thumbnail] = dataclasses.field(default_factory=list)

    def __post_init__(self):
        self.expected = expected(self.row)
        self.pixels = np.zeros(len(self.classes), np.int64)
        self.images = np.zeros(len(self.classes), np.int64)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.dataset.label_space.classes

    @property
    def colors(self) -> np.ndarray:
        """[C, 3] uint8."""
        return self.dataset.label_space.colors

    @property
    def shares(self) -> np.ndarray:
        """[C], each class's part of the pixels that have a class; NaN without any."""
        total = self.pixels.sum()
        return self.pixels / total if total else np.full(len(self.pixels), np.nan)

    @property
    def ignored_share(self) -> float:
        """Part of all pixels of the labels; NaN without labels."""
        total = self.ignored + int(self.pixels.sum())
        return self.ignored / total if total else float("nan")

    @property
    def absent(self) -> list[str]:
        """Classes without any pixel, where there are labels."""
        if not self.label_sizes:
            return []
        return [
            n for n, count in zip(self.classes, self.pixels, strict=True) if not count
        ]

    def to_json(self) -> dict[str, Any]:
        known = self.expected
        rows = zip(self.classes, self.pixels, self.shares, self.images, strict=True)
        return {
            "row": dict(self.row),
            "examples": len(self.dataset),
            "expected": list(known.counts) if known else None,
            "expected_from": known.origin if known else None,
            "checked": self.checked,
            "labels": self.dataset.has_labels,
            "image_sizes": _sizes(self.image_sizes),
            "label_sizes": _sizes(self.label_sizes),
            "classes": [
                {
                    "name": name,
                    "pixels": int(pixels),
                    "share": None if np.isnan(share) else float(share),
                    "images": int(images),
                }
                for name, pixels, share, images in rows
                if self.dataset.has_labels
            ],
            "absent": self.absent,
            "ignored_pixels": self.ignored,
            "problems": self.problems,
        }


def walk(
    report: SetReport,
    indices: Sequence[int],
    *,
    thumbnails: int,
    threads: int,
    advance: Callable[[], None],
) -> None:
    """Decodes the examples `indices` in parallel and adds what it finds to `report`.

    Nothing is kept of an example but its numbers, and `thumbnails` small pictures.

    Args:
      report: changed in place.
      indices: of the data set.
      thumbnails: how many to keep, evenly spaced over `indices`.
      threads: that decode.
      advance: called after each example.
    """
    shown = set(evenly(indices, thumbnails))
    # Closed, so that Ctrl-C anywhere cancels what has not been decoded yet.
    with contextlib.closing(_looks(report, indices, shown, threads)) as looks:
        for seen in looks:
            _add(report, seen)
            advance()
    if report.label_sizes and not report.pixels.any():
        report.problems.append(
            f"no label holds a class of {report.dataset.label_space.name}: the label "
            "files are of another coding, or empty."
        )


def _add(report: SetReport, seen: "_Seen") -> None:
    report.checked += 1
    report.problems += seen.problems
    if seen.image_size:
        report.image_sizes[seen.image_size] += 1
    if seen.counts is not None:
        report.label_sizes[seen.label_size] += 1
        counts = seen.counts[: len(report.classes)]
        report.pixels += counts
        report.images += counts > 0
        report.ignored += int(seen.counts[IGNORE])
    if seen.thumbnail:
        report.thumbnails.append(seen.thumbnail)


def evenly(items: Sequence[int], count: int) -> list[int]:
    """At most `count` of the items, evenly spaced."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


class _Seen(NamedTuple):
    image_size: Size | None
    label_size: Size | None
    counts: np.ndarray | None  # int64 [256] pixels of each train id
    problems: list[str]
    thumbnail: Thumbnail | None


def _looks(report, indices, shown, threads) -> Iterator[_Seen]:
    look = lambda i: _look(report.dataset, i, i in shown, report.unlabelled)
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(look, indices)


def _look(
    dataset: Dataset, index: int, shown: bool, unlabelled: Collection[int]
) -> _Seen:
    problems: list[str] = []
    image_file, label_file = dataset.store.where(index)
    image = _decoded(dataset.store.image, index, image_file, problems)
    raw = label = counts = None
    if dataset.has_labels and index not in unlabelled:
        raw = _decoded(dataset.store.raw_label, index, label_file, problems)
    if raw is not None:
        look_up = lambda _: _train_ids(dataset, raw, label_file)
        label = _decoded(look_up, index, label_file, problems)
    if label is not None:
        counts = id_histogram(label)
    image_size = None if image is None else image.shape[:2]
    # Unknown ids do not hide a wrong size.
    label_size = None if raw is None else raw.shape
    decoded = image_size and label_size
    if decoded and image_size != label_size and not dataset.sizes_may_differ:
        problems.append(str(dataset.wrong_size(index, image_size, label_size)))
    thumbnail = None
    if shown and image is not None:
        colors = dataset.label_space.colors
        thumbnail = _thumbnail(dataset.names[index], image, label, colors)
    return _Seen(image_size, label_size, counts, problems, thumbnail)


def _train_ids(dataset: Dataset, raw: np.ndarray, file: str) -> np.ndarray:
    check_ids(raw, dataset.coding, file)
    return dataset.train_ids(raw)


def _decoded(decode, index, file, problems) -> np.ndarray | None:
    try:
        return decode(index)
    except UserError as error:
        problems.append(str(error))
    except Exception as error:  # a decoder may raise anything over a broken file
        kind = type(error).__name__
        problems.append(f"file {file} cannot be decoded ({kind}: {error}): replace it.")
    return None


def _thumbnail(name, image, label, colors) -> Thumbnail:
    width = min(_THUMBNAIL_WIDTH, image.shape[1])
    size = width, max(1, round(image.shape[0] * width / image.shape[1]))
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    if label is not None:
        label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST_EXACT)
        label = colorize(label, colors)
    return Thumbnail(name, image, label)


def _sizes(counts: collections.Counter) -> dict[str, int]:
    return {size_text(size): count for size, count in counts.most_common()}
