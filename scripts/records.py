"""What generated tables were made of, kept as JSON beside the document.

A table so grows without the runs of its older rows, which nobody keeps for ever.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uda_jax.errors import UserError
from uda_jax.files import write_atomically


def read_record(path: Path) -> dict[str, Any]:
    """Name -> entry; nothing where none was written yet.

    Raises:
      UserError: the file is no record.
    """
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{path} is no record of a table ({error}): restore it, or delete it and "
            "give all rows as workdirs."
        ) from error


def add_to_record(path: Path, entries: Mapping[str, Any]) -> None:
    """Writes entries over those of the same names, a line each; the others stay."""
    rows = [
        f"{json.dumps(name)}: {json.dumps(entry, separators=(',', ':'))}"
        for name, entry in {**read_record(path), **entries}.items()
    ]
    write_atomically(path, "{" + ",\n".join(rows) + "}\n")


def entry_of(path: Path, name: str, kind: str) -> Any:
    """The entry of that name.

    Args:
      path: the record.
      name: of the entry.
      kind: what messages call it: "row", "curve".

    Raises:
      UserError: there is none, or see `read_record`.
    """
    record = read_record(path)
    if name not in record:
        known = ", ".join(f'"{k}"' for k in record) or "nothing"
        raise UserError(
            f'no {kind} "{name}" is kept in {path}, which has {known}: give its runs, '
            f'"{name}=WORKDIR,...".'
        )
    return record[name]
