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
from uda_jax.errors import UserError
from uda_jax.files import write_atomically
from uda_jax.labelling import Seen, look_at
from uda_jax.labels import LabelSpace
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
      confidence: threshold of `look_at`.
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
        threshold=confidence,
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
    """Writes an image's pseudo-label twice, each whole or not at all.

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
    files = {
        output / label: without_palette(painted),
        output / label.replace("labels", "colors", 1): painted,
    }
    for path, data in files.items():
        write_atomically(path, data)
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
