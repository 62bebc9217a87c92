"""Examples that are encoded and put aside, one file after the other, until all are.

Whatever stops a preparation, the files that are there are whole, and the next one makes
only those that are missing.
"""

import contextlib
import fcntl
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from uda_jax.data.dataset import Dataset
from uda_jax.data.images import id_histogram
from uda_jax.data.ops import apply
from uda_jax.data.statistics import Progress
from uda_jax.errors import UserError
from uda_jax.files import write_atomically

# ms to decode 512 x 1024 pixels: as libpng compresses by itself 14, quickly and with
# the filter "up" 8, not compressed at all 1.5 and, as ArrayRecord then compresses it, 3
# more to read, for 1.6 times the room of the second.  A label: 0.4.
_ENCODERS = {
    "png": (
        *(cv2.IMWRITE_PNG_COMPRESSION, 0),
        *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE),
    ),
    "jpeg": (cv2.IMWRITE_JPEG_QUALITY, 95),
    "label": (
        *(cv2.IMWRITE_PNG_COMPRESSION, 3),
        *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE),
    ),
}
_SUFFIXES = {"png": ".png", "jpeg": ".jpg", "label": ".label.png", "counts": ".npy"}


@contextlib.contextmanager
def alone(staging: Path) -> Iterator[None]:
    """Keeps a second process out, until this one ends in whatever way.

    The file that is locked stays behind, beside `staging`: a process that opened it
    before it was removed would lock what no other sees.
    """
    with open(staging.with_name(f"{staging.name}.lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another process is preparing the same data in {staging}: wait for it."
            ) from error
        yield


def staged(staging: Path, index: int, kind: str) -> Path:
    """The file of one example: its image ("png" or "jpeg"), "label" or "counts"."""
    return staging / f"{index:06d}{_SUFFIXES[kind]}"


def encode_all(
    dataset: Dataset,
    fixed_ops: Sequence,
    format: str,
    staging: Path,
    threads: int,
    progress: Progress | None,
) -> None:
    """Puts every example that is not there yet aside, each file whole or not at all.

    The image is written last: where it is, its example is done.

    Raises:
      UserError: what decoding raises.
      OSError: `staging` cannot be written.
    """

    def encode(index: int) -> None:
        last = staged(staging, index, format)
        if last.exists():
            return
        element = {"image": dataset.store.image(index)}
        if dataset.has_labels:
            raw = dataset.raw_label(index)
            if raw.shape != element["image"].shape[:2] and not dataset.sizes_may_differ:
                dataset[index]  # says what is wrong
            element["label"] = raw
        element = apply(fixed_ops, element, np.random.default_rng(0))
        files = {}
        if dataset.has_labels:
            counts = io.BytesIO()
            np.save(counts, id_histogram(raw))
            files["counts"] = counts.getvalue()
            files["label"] = _encoded("label", element["label"])
        pixels = cv2.cvtColor(element["image"], cv2.COLOR_RGB2BGR)
        files[format] = _encoded(format, pixels)
        for kind, data in files.items():
            write_atomically(staged(staging, index, kind), data)

    count = len(dataset)
    # Threads, because decoding, resizing, encoding and writing release Python's lock.
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for done, _ in enumerate(pool.map(encode, range(count)), 1):
            if progress:
                progress(done, count)


def _encoded(kind: str, pixels: np.ndarray) -> bytes:
    suffix = Path(f"x{_SUFFIXES[kind]}").suffix
    return cv2.imencode(suffix, pixels, _ENCODERS[kind])[1].tobytes()
