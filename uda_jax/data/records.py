"""A store over tensorflow-datasets in ArrayRecord files; needs no tensorflow."""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from uda_jax.errors import UserError

CLASS_COUNTS = "class_counts.npz"


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
    """

    folder: str
    split: str
    keys: tuple[str, str]
    indices: tuple[int, ...]
    has_labels: bool
    fingerprint: str

    @property
    def name(self) -> str:
        """<data set>/<configuration>, the folder's place below data/prepared."""
        return set_name(Path(self.folder))

    @property
    def raw_counts(self) -> np.ndarray | None:
        """int64 [N, 256] pixels of each raw id at full resolution; None if unknown.

        Raises:
          UserError: the file is damaged.
        """
        path = Path(self.folder) / CLASS_COUNTS
        if not self.has_labels or not path.exists():
            return None
        try:
            with np.load(path) as file:
                return file["raw_counts"][list(self.indices)]
        except Exception as error:  # zip, zlib and numpy: a dozen kinds
            raise UserError(
                f"{path} is damaged: delete {self.folder} and prepare the data again."
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
            record = open_split(self.folder, self.split)[self.indices[index]]
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


def count_records(folder: str | Path) -> int:
    """Records in all ArrayRecord files of a folder, as the files themselves say.

    Raises:
      UserError: a file is cut off or unreadable.
    """
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    files = sorted(map(str, Path(folder).glob("*.array_record-*")))
    try:
        return len(ArrayRecordDataSource(files)) if files else 0
    except Exception as error:  # array_record has no errors of its own
        raise UserError(
            f"the records in {folder} are damaged or cut off: delete that folder and "
            "prepare the data again."
        ) from error


def digits(*parts: str) -> str:
    """First 16 hex digits of the SHA-256 of some texts."""
    text = "\0".join(parts).encode("utf-8", "surrogateescape")
    return hashlib.sha256(text).hexdigest()[:16]
