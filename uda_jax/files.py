"""Files that are whole or absent, never half-written."""

import os
from pathlib import Path


def write_atomically(path: str | os.PathLike, data: bytes | str) -> Path:
    """Writes `data` to `path` through a temporary file in the same folder.

    A reader, or a run that was killed, sees the old file or the new one.  Missing
    folders are made; text is UTF-8.

    Returns:
      The path written.
    """
    path = Path(path)
    if isinstance(data, str):
        data = data.encode("utf-8")
    temporary = path.parent / f".{path.name}.{os.urandom(4).hex()}"
    try:
        stream = open(temporary, "xb")  # noqa: SIM115 (closed below)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = open(temporary, "xb")  # noqa: SIM115
    try:
        with stream:
            stream.write(data)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path


def relative(path: Path, folder: Path) -> str:
    """The path as seen from the folder, through links on both sides."""
    ends = (os.path.realpath(path), os.path.realpath(folder))
    return Path(os.path.relpath(*ends)).as_posix()
