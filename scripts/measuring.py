"""What the benchmarks share: the machine, and where their numbers are kept."""

import json
import os
import platform
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from markers import replace_block

from uda_jax.errors import UserError
from uda_jax.files import write_atomically

DOCUMENT = Path(__file__).parent.parent / "docs" / "performance.md"
NUMBERS = DOCUMENT.with_suffix(".json")


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


def parse_size(size: str) -> tuple[int, int]:
    """ "128x256" -> (128, 256)."""
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", size):
        raise UserError(f'--size is "{size}": give HEIGHTxWIDTH, such as 128x256.')
    height, width = size.split("x")
    return int(height), int(width)


def take_turns(names: list[str], rounds: int, block: Callable[[str], Any]) -> dict:
    """What block(name) gave, [rounds] for each name; nobody always comes first."""
    results: dict[str, list] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            results[name].append(block(name))
    return results


def record(command: str, text: str, rows: Any, about: dict[str, Any]) -> None:
    """Puts `text` between the command's markers, and `rows` into performance.json."""
    versions = ", ".join(f"{k} {v}" for k, v in list(about.items())[3:])
    head = f"{about['processor']}, {about['cores']} cores; {versions}; {text}"
    replace_block(DOCUMENT, command, head)
    numbers = json.loads(NUMBERS.read_text())
    numbers[command] = {"machine": about, "rows": rows}
    write_atomically(NUMBERS, json.dumps(numbers, indent=1) + "\n")


def recorded(command: str) -> dict[str, Any] | None:
    """What `record` kept last: "machine" and "rows"."""
    return json.loads(NUMBERS.read_text()).get(command)
