"""What the benchmarks share: the machine, and where their numbers are kept."""

import json
import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

from markers import replace_block

from uda_jax.files import write_atomically

DOCUMENT = Path(__file__).parent.parent / "docs" / "performance.md"


def machine(*packages: str) -> dict[str, Any]:
    """What the numbers depend on, with the versions of these packages."""
    try:
        text = Path("/proc/cpuinfo").read_text()
        processor = re.search(r"model name\s*: (.*)", text)[1]
    except (OSError, TypeError):
        processor = platform.machine()
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def record(command: str, text: str, rows: Any, about: dict[str, Any]) -> None:
    """Puts `text` between the command's markers, and `rows` into performance.json."""
    versions = ", ".join(f"{k} {v}" for k, v in list(about.items())[3:])
    head = f"{about['processor']}, {about['cores']} cores; {versions}; {text}"
    replace_block(DOCUMENT, command, head)
    path = DOCUMENT.with_suffix(".json")
    numbers = json.loads(path.read_text())
    numbers[command] = {"machine": about, "rows": rows}
    write_atomically(path, json.dumps(numbers, indent=1) + "\n")
