"""Files that are whole or absent, never half-written."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: str | os.PathLike, data: bytes | str) -> Path:
    """Writes `data` to `path` through a temporary file in the same folder.

    A reader, or a run that was killed, sees the old file or the new one.  Missing
    folders are made; text is UTF-8.

    Returns:
      The path written.
    """
    if isinstance(data, str):
        data = data.encode("utf-8")
    with writing_atomically(path) as stream:
        stream.write(data)
    return Path(path)


@contextlib.contextmanager
def writing_atomically(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A stream to what becomes `path` when the block ends without an error."""
    path = Path(path)
    temporary = path.parent / f".{path.name}.{os.urandom(4).hex()}"
    try:
        stream = open(temporary, "xb")  # noqa: SIM115 (closed below)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = open(temporary, "xb")  # noqa: SIM115
    try:
        with stream:
            yield stream
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def relative(path: Path, folder: Path) -> str:
    """The path as seen from the folder, through links on both sides."""
    ends = (os.path.realpath(path), os.path.realpath(folder))
    return Path(os.path.relpath(*ends)).as_posix()
