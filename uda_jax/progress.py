"""How far a long command is: a bar on a terminal, else now and then a line."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

_SECONDS = 5  # between lines


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Gives the function to be called with (done, count) after each of the examples."""
    if sys.stdout.isatty():
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(TextColumn(what), *columns, transient=True) as bar:
            task = bar.add_task(what)
            yield lambda done, count: bar.update(task, completed=done, total=count)
        return
    last = time.monotonic()

    def line(done: int, count: int) -> None:
        nonlocal last
        if done == count or time.monotonic() - last >= _SECONDS:
            last = time.monotonic()
            print(f"{what}: {done:,} of {count:,} examples", flush=True)

    yield line
