"""Pixels of each class in each label: the base of rare-class sampling and of weights.

Counting reads every label once, at full resolution.  What is kept on disk are counts of
raw ids, so that one file serves every label space.
"""

import dataclasses
import io
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from uda_jax.data.dataset import Dataset
from uda_jax.data.fingerprint import fingerprint
from uda_jax.data.images import check_ids, id_histogram
from uda_jax.errors import UserError
from uda_jax.files import write_atomically
from uda_jax.labels import IGNORE, LabelSpace

Progress = Callable[[int, int], None]

_RAW_IDS = 256


@dataclasses.dataclass(frozen=True, eq=False)
class ClassCounts:
    """How many pixels of each class each label has, at full resolution.

    Attributes:
      names: [N] of the examples, as the dataset's.
      counts: int64 [N, C] pixels; ignored pixels are in no column.
      label_space: the C classes.
    """

    names: tuple[str, ...]
    counts: np.ndarray
    label_space: LabelSpace

    def __post_init__(self):
        shape = (len(self.names), self.label_space.num_classes)
        if self.counts.shape != shape or self.counts.dtype != np.int64:
            raise ValueError(f"counts must be int64 {shape}, not {self.counts.shape}")

    @property
    def totals(self) -> np.ndarray:
        """int64 [C]: pixels of each class in all labels."""
        return self.counts.sum(0)

    @property
    def frequencies(self) -> np.ndarray:
        """float64 [C]: f_c = pixels of c / pixels of all C classes; all 0 for none."""
        totals = self.totals
        return totals / max(totals.sum(), 1)


def class_counts(
    dataset: Dataset,
    folder: str | Path | None,
    *,
    threads: int = 8,
    progress: Progress | None = None,
) -> ClassCounts:
    """Counts the pixels of each class in each label of a dataset.

    The first call reads all labels and writes <folder>/statistics/<fingerprint>.npz;
    later calls read that file, as long as no label has changed (see
    `uda_jax.data.fingerprint`).  A file that is damaged or does not belong to these
    labels is made anew.  A prepared dataset brings the counts of its originals along.

    Args:
      dataset: opened with labels.
      folder: where the counts are kept; None keeps none.
      threads: that read labels.
      progress: called with (labels counted, labels in all) after each.

    Raises:
      UserError: the dataset has no labels, one cannot be read or holds an id that is
        not in the dataset's coding, or the folder cannot be written.
    """
    if not dataset.has_labels:
        raise UserError(
            "class statistics were asked of a dataset that was opened without labels: "
            "only labelled data can be counted."
        )
    raw = getattr(dataset.store, "raw_counts", None)
    if raw is None:
        raw = _cached(dataset, folder, threads, progress)
    elif raw.shape != (len(dataset), _RAW_IDS):
        raise UserError(
            f"the prepared dataset has class statistics of {len(raw)} labels for "
            f"{len(dataset)} examples: prepare it anew."
        )
    unknown = [raw_id for raw_id in range(_RAW_IDS) if raw_id not in dataset.coding]
    for index in np.flatnonzero(raw[:, unknown].any(1)):
        _check(dataset, index, raw[index])
    counts = np.zeros((len(dataset), dataset.label_space.num_classes), np.int64)
    for raw_id, train_id in dataset.id_table.items():
        if train_id != IGNORE:
            counts[:, train_id] += raw[:, raw_id]
    return ClassCounts(dataset.names, counts, dataset.label_space)


def _cached(
    dataset: Dataset, folder: str | Path | None, threads: int, progress: Progress | None
) -> np.ndarray:
    """int64 [N, 256] pixels of each raw id, from the file or from the labels."""
    if folder is None:
        return _count(dataset, threads, progress)
    digits = fingerprint(dataset, labels_only=True)
    path = Path(folder) / "statistics" / f"{digits}.npz"
    raw = _load(path, digits, len(dataset))
    if raw is None:
        raw = _count(dataset, threads, progress)
        stream = io.BytesIO()
        np.savez_compressed(stream, fingerprint=digits, raw_counts=raw)
        try:
            write_atomically(path, stream.getvalue())
        except OSError as error:
            raise UserError(
                f"class statistics cannot be written to {path} ({error.strerror}): "
                "give a folder that can be written and has room."
            ) from error
    return raw


def _load(path: Path, digits: str, length: int) -> np.ndarray | None:
    """The counts in the file; None where it is absent, damaged or of other labels."""
    try:
        with np.load(path) as file:
            fits = str(file["fingerprint"]) == digits
            raw = file["raw_counts"]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error):
        return None
    good = raw.dtype == np.int64 and raw.shape == (length, _RAW_IDS)
    return raw if fits and good else None


def _count(dataset: Dataset, threads: int, progress: Progress | None) -> np.ndarray:
    def count(index: int) -> np.ndarray:
        counts = id_histogram(dataset.store.raw_label(index))
        # Here too, so that a wrong coding does not show only after the last label.
        _check(dataset, index, counts)
        return counts

    result = np.zeros((len(dataset), _RAW_IDS), np.int64)
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for i, counts in enumerate(pool.map(count, range(len(dataset)))):
            result[i] = counts
            if progress:
                progress(i + 1, len(dataset))
    return result


def _check(dataset: Dataset, index: int, counts: np.ndarray) -> None:
    present = np.flatnonzero(counts).astype(np.uint8)
    check_ids(present, dataset.coding, dataset.store.where(index)[1])
