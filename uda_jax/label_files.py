"""Pseudo-labels of images as files, and a record of those that are done."""

import collections
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from uda_jax import parallel
from uda_jax.data.dataset import Dataset
from uda_jax.data.images import read_raw_label
from uda_jax.errors import UserError
from uda_jax.files import write_atomically
from uda_jax.labelling import (
    Seen,
    look_at,
    pseudo_labels,
    pseudo_labels_and_certainty,
)
from uda_jax.labels import IGNORE, LabelSpace
from uda_jax.progress import progress
from uda_jax.visualize import png, without_palette

_WRITERS = 2  # threads that write pseudo-labels
_WAITING = 16  # images that may wait for them


class Row(NamedTuple):
    """What is known of an image that is done: a line of progress_*.jsonl.

    Attributes:
      name: in the dataset.
      label: path of its pseudo-label in the folder.
      entropy, confidence: see `Seen`.
      labelled: share of its pixels with a pseudo-label.
      present: train ids of the classes that it shows.
    """

    name: str
    label: str
    entropy: float
    confidence: float
    labelled: float
    present: tuple[int, ...]


def label_images(
    forward: Callable[[jax.Array], jax.Array],
    images: Dataset,
    labels: Sequence[str],
    todo: Sequence[int],
    output: Path,
    *,
    confidence: float,
    certainty: bool = False,
    batch_size: int,
    **options: Any,
) -> None:
    """Looks at this process's share of images and writes what the network says.

    Args:
      forward: as for `look_at`.
      images: the dataset.
      labels: where in the folder their pseudo-labels go.
      todo: indices of the images that are not done yet.
      output: the folder.
      confidence: threshold of `labelling.pseudo_labels`.
      certainty: keep it, for `surest_of_classes`.
      batch_size, **options: of the evaluation; see `look_at`.
    """
    process, processes = jax.process_index(), jax.process_count()
    mine = todo[process::processes]
    if not mine:
        return
    # Of this process alone: nothing is exchanged, so no process waits for another.
    devices = jax.local_devices()
    mesh = Mesh(np.array(devices), (parallel.AXIS,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    seen = look_at(
        jax.device_put(forward, everywhere),
        images,
        mine,
        num_classes=images.label_space.num_classes,
        tell=pseudo_labels_and_certainty if certainty else pseudo_labels,
        given=confidence,
        batch_size=-(-batch_size // len(devices)) * len(devices),
        sharding=NamedSharding(mesh, PartitionSpec(parallel.AXIS)),
        **options,
    )
    log = Progress(output, process)
    try:
        shown = progress("ranking") if parallel.is_main() else nullcontext(_silent)
        with ThreadPoolExecutor(_WRITERS) as pool, shown as tell:
            waiting, written = collections.deque(), 0
            for index, one in seen:
                name, label = images.names[index], labels[index]
                space = images.label_space
                future = pool.submit(save_image, output, name, label, one, space)
                waiting.append(future)
                if len(waiting) > _WAITING:
                    log.add(waiting.popleft().result())
                    written += 1
                    tell(written, len(mine))
            for future in waiting:
                log.add(future.result())
            tell(len(mine), len(mine))
    finally:
        log.close()


def _silent(done: int, count: int) -> None:
    """Of several processes one speaks, of its own share."""


def read_progress(output: Path) -> dict[str, Row]:
    """Name -> row of the images that are done and whose pseudo-label is there.

    A last line that a kill cut short is left out.
    """
    rows = {}
    for path in sorted(output.glob("progress_*.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            try:
                values = json.loads(line)
                row = Row(**{**values, "present": tuple(values["present"])})
            except (ValueError, TypeError, KeyError):
                continue
            rows[row.name] = row
    return {k: row for k, row in rows.items() if (output / row.label).is_file()}


def save_image(
    output: Path, name: str, label: str, seen: Seen, space: LabelSpace
) -> Row:
    """Writes an image's pseudo-label as ids and in colours, and its certainty if known.

    Each file is there whole or not at all, the label's ids last.

    Raises:
      UserError: the network's probabilities are not finite.
    """
    if not np.isfinite(seen.entropy):
        raise UserError(
            f"the network's probabilities of image {name} are not finite: its training "
            "diverged, so rank with another checkpoint or run."
        )
    # Labels shrink well at any level; a higher one takes longer than small networks.
    painted = png(seen.label, colors=space.colors, compress_level=1)
    files = {"colors": painted}
    if seen.certainty is not None:
        files["certainty"] = png(seen.certainty, compress_level=1)
    files["labels"] = without_palette(painted)
    for folder, data in files.items():
        write_atomically(output / _beside(label, folder), data)
    return Row(
        name=name,
        label=label,
        entropy=float(seen.entropy),
        confidence=float(seen.confidence),
        labelled=float(np.mean(seen.label < space.num_classes)),
        present=tuple(int(c) for c in np.flatnonzero(seen.present)),
    )


class Progress:
    """Appends lines to this process's progress file.

    A line that a kill cut short ends where the next one begins.
    """

    def __init__(self, output: Path, process: int):
        path = output / f"progress_{process}.jsonl"
        cut = path.exists() and not path.read_bytes().endswith(b"\n")
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (kept open)
        if cut:
            self._file.write("\n")

    def add(self, row: Row) -> None:
        self._file.write(json.dumps(row._asdict()) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def surest_of_classes(
    output: Path, rows: Sequence[Row], share: float, space: LabelSpace
) -> list[Row]:
    """Labels of the surest pixels of each class alone, in surest/<name>.png.

    Class-balanced self-training (Zou et al., ECCV 2018): with one threshold for all
    classes the rare ones, of which networks are never sure, would vanish.

    Args:
      output: folder of labels with their certainty.
      rows: the images.
      share: of the labelled pixels of a class, over all images, the least that keep
        their label, in (0, 1]; as many as have one certainty are kept or lost together.
      space: of the labels.

    Returns:
      The rows with their new labels.

    Raises:
      UserError: a file that cannot be read.
    """
    classes = space.num_classes
    counts = np.zeros((classes, 256), np.int64)
    read = lambda label, folder: read_raw_label(output / _beside(label, folder))
    both = lambda row: (read(row.label, "labels"), read(row.label, "certainty"))
    for row in rows:
        label, certainty = both(row)
        at = 256 * label.astype(int) + certainty
        counts += np.bincount(at[label < classes], minlength=counts.size).reshape(
            counts.shape
        )
    above = counts[:, ::-1].cumsum(1)[:, ::-1]  # pixels that are at least so certain
    enough = above >= share * counts.sum(1, keepdims=True)
    least = np.full(256, 255)
    least[:classes] = enough.sum(1) - 1  # the highest certainty that leaves enough
    result = []
    for row in rows:
        label, certainty = both(row)
        label = np.where(certainty >= least[label], label, IGNORE).astype(np.uint8)
        path = _beside(row.label, "surest")
        write_atomically(output / path, png(label, compress_level=1))
        labelled = float(np.mean(label < classes))
        result.append(row._replace(label=path, labelled=labelled))
    return result


def _beside(label: str, folder: str) -> str:
    """Another file of the image whose pseudo-label is labels/<name>.png."""
    return label.replace("labels", folder, 1)
