"""Sixteen digits that change when a dataset's files do.

What was computed from a dataset, such as its statistics or its prepared form, carries
the fingerprint of its input: it is used again only where that fits.
"""

import hashlib
import os

from uda_jax.data.dataset import Dataset, Files
from uda_jax.errors import UserError


def fingerprint(dataset: Dataset, *, labels_only: bool = False) -> str:
    """First 16 hex digits of the SHA-256 of what the dataset is made of.

    That is the names in their order, the size and the modification time (whole seconds)
    of every image and label file, and how labels are stored.  The folder is not a part
    of it: a dataset may be moved, or copied with its times (`cp -p`, `rsync -t`).  Nor
    is the label space: files hold raw ids.  No file is opened.

    A prepared dataset has the fingerprint of the files that it was made from.

    Args:
      dataset: images and labels.
      labels_only: of the names and the labels alone, for what follows from these.  Then
        a prepared dataset's differs from that of its files.

    Raises:
      UserError: a file is missing.
    """
    store = dataset.store
    if isinstance(store, Files):
        images = () if labels_only else store.images
        parts = ["files", store.label_format if store.labels else ""]
        parts += [_size_and_time(path) for path in (*images, *store.labels)]
    elif labels_only:
        parts = ["prepared", store.fingerprint]
    else:
        return store.fingerprint
    return digits(*parts, *dataset.names)


def digits(*parts: str) -> str:
    """First 16 hex digits of the SHA-256 of some texts."""
    text = "\0".join(parts).encode("utf-8", "surrogateescape")
    return hashlib.sha256(text).hexdigest()[:16]


def _size_and_time(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError as error:
        raise UserError(
            f"file {path} cannot be found ({error.strerror}): restore it or remove it "
            "from the dataset."
        ) from error
    # Whole seconds: what every file system and copying program keeps.
    return f"{status.st_size} {int(status.st_mtime)}"
