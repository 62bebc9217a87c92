"""Files that are whole or absent, never half-written."""

import os
import tempfile
from pathlib import Path

# Read once: there is no way to look at it without setting it, for all threads.
_MASK = os.umask(0)
os.umask(_MASK)


def write_atomically(path: str | os.PathLike, data: bytes | str) -> Path:
    """Writes `data` to `path` through a temporary file in the same folder.

    A reader, or a run that was killed, sees the old file or the new one.  Missing
    folders are made; text is UTF-8.

    Returns:
      The path written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, str):
        data = data.encode("utf-8")
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        # mkstemp makes files that only their owner can read.
        os.chmod(temporary, 0o666 & ~_MASK)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path


def relative(path: Path, folder: Path) -> str:
    """The path as seen from the folder, through links on both sides."""
    ends = (os.path.realpath(path), os.path.realpath(folder))
    return Path(os.path.relpath(*ends)).as_posix()
