"""A store over tensorflow-datasets in ArrayRecord files; needs no tensorflow."""

import dataclasses
import functools
import hashlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from uda_jax.data.fingerprint import digits
from uda_jax.errors import UserError
from uda_jax.files import write_atomically

CLASS_COUNTS = "class_counts.npz"
# Names, sizes and digests of a set's other files.
_CONTENTS = "files.json"
_SHARDS = "*.array_record-*"


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """A store (`uda_jax.data.dataset.Store`) over one split of a folder.

    Picklable, and safe to read from threads; each process opens the files when it first
    reads.

    Attributes:
      folder: with dataset_info.json.
      split: of the set.
      keys: names of the features that hold image and label.
      indices: records of the split, in order.
      has_labels: whether labels are handed out.
      fingerprint: of what the set was made from; of a part of it, the part's own.
      has_counts: whether the folder holds `raw_counts`.
    """

    folder: str
    split: str
    keys: tuple[str, str]
    indices: tuple[int, ...]
    has_labels: bool
    fingerprint: str
    has_counts: bool

    @property
    def name(self) -> str:
        """<data set>/<configuration>, the folder's place below data/prepared."""
        return set_name(Path(self.folder))

    @property
    def raw_counts(self) -> np.ndarray | None:
        """int64 [N, 256] pixels of each raw id at full resolution; None if unknown.

        Raises:
          UserError: the file is damaged or gone.
        """
        if not (self.has_labels and self.has_counts):
            return None
        path = Path(self.folder) / CLASS_COUNTS
        try:
            with np.load(path) as file:
                return file["raw_counts"][list(self.indices)]
        except Exception as error:  # zip, zlib and numpy: a dozen kinds
            raise UserError(
                f"{path} is damaged or gone: delete {self.folder} and prepare the data "
                "again."
            ) from error

    def image(self, index: int) -> np.ndarray:
        image = self._decode(index, 0)
        if image.ndim != 3 or image.shape[2] != 3:
            raise self._damaged(index)
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    def raw_label(self, index: int) -> np.ndarray:
        label = self._decode(index, 1)
        if label.ndim != 2:
            raise self._damaged(index)
        return label

    def where(self, index: int) -> tuple[str, str]:
        record = f"in record {self.indices[index]} of {self.folder}"
        return record, record

    def select(self, indices: Sequence[int]) -> "Records":
        chosen = tuple(self.indices[i] for i in indices)
        if chosen == self.indices:
            return self
        own = digits(self.fingerprint, *map(str, indices))
        return dataclasses.replace(self, indices=chosen, fingerprint=own)

    def _decode(self, index: int, which: int) -> np.ndarray:
        try:
            record = _record(self.folder, self.split, self.indices[index])
            data = np.frombuffer(record[self.keys[which]], np.uint8)
            pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        except Exception as error:  # array_record has no errors of its own
            raise self._damaged(index) from error
        if pixels is None or pixels.dtype != np.uint8:
            raise self._damaged(index)
        return pixels

    def _damaged(self, index: int) -> UserError:
        return UserError(
            f"record {self.indices[index]} of {self.folder} is damaged or gone: delete "
            "that folder and prepare the data again."
        )


# The record that each thread read last: its image is asked for first, then its label,
# and undoing the record's compression takes longer than decoding either.
_last = threading.local()


def _record(folder: str, split: str, number: int) -> dict:
    place = (folder, split, number)
    if getattr(_last, "place", None) != place:
        _last.record = open_split(folder, split)[number]
        _last.place = place
    return _last.record


def set_name(folder: Path) -> str:
    """See `Records.name`."""
    return "/".join(folder.parts[-3:-1])


@functools.lru_cache(maxsize=32)
def open_split(folder: str, split: str) -> Sequence[dict]:
    """The records of a split, images as their encoded bytes.

    Opened once per process, because opening takes longer than reading.
    """
    # Imported late: it takes half a second that runs without such data need not pay.
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    images = {
        key: tfds.decode.SkipDecoding()
        for key, feature in builder.info.features.items()
        if isinstance(feature, tfds.features.Image)
    }
    return builder.as_data_source(split, decoders=images)


def seal(folder: Path) -> None:
    """Writes down which files make the set in `folder`, as the last of them.

    A copy that stopped halfway lacks this file, or a file that it names.
    """
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    shards = {path.name for path in folder.glob(_SHARDS)}
    # Gigabytes; array_record has checksums of its own.
    small = {name: _digest(folder / name) for name in sorted(sizes.keys() - shards)}
    contents = {"sizes": dict(sorted(sizes.items())), "sha256": small}
    write_atomically(folder / _CONTENTS, json.dumps(contents, indent=1) + "\n")


def check_whole(folder: Path, count: int) -> None:
    """Compares a set of `count` examples with what `seal` wrote down.

    Raises:
      UserError: a file is missing or another one.
    """
    try:
        contents = json.loads((folder / _CONTENTS).read_text("utf-8"))
        sizes, digests = contents["sizes"].items(), contents["sha256"].items()
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _not_whole(folder, f"{_CONTENTS} is missing or damaged") from error
    for name, size in sizes:
        try:
            there = (folder / name).stat().st_size
        except OSError as error:
            raise _not_whole(folder, f"{name} is missing") from error
        if there != size:
            what = f"{name} has {there} bytes instead of {size}"
            raise _not_whole(folder, what)
    for name, digest in digests:
        try:
            damaged = _digest(folder / name) != digest
        except OSError as error:
            raise _not_whole(folder, f"{name} cannot be read") from error
        if damaged:
            raise _not_whole(folder, f"{name} is damaged")
    # Not by a pattern in the folder: copying programs leave files of like names.
    shards = [name for name, _ in sizes if Path(name).match(_SHARDS)]
    if (records := _count_records(folder, shards)) != count:
        raise _not_whole(folder, f"it holds {records:,} of its {count:,} examples")


def _not_whole(folder: Path, what: str) -> UserError:
    return UserError(
        f"{folder} is not whole ({what}): delete it and prepare the data again."
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _count_records(folder: Path, shards: Sequence[str]) -> int:
    """Records in some ArrayRecord files, as the files themselves say."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    files = sorted(str(folder / name) for name in shards)
    try:
        return len(ArrayRecordDataSource(files)) if files else 0
    except Exception as error:  # array_record has no errors of its own
        raise _not_whole(folder, "its records are damaged") from error
