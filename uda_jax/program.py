"""How every command of the library starts and ends, and what several take."""

import ctypes
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from uda_jax.errors import UserError

DEBUG_FLAG = "--debug"
# Of --checkpoint: the last step's, the best one of those that were evaluated, and the
# mean teacher of the last step.
CHECKPOINTS = ("latest", "best", "teacher")


def run(main: Callable[[], None]) -> None:
    """Runs `main` and turns the user's mistakes into one sentence and exit code 2.

    With `--debug` on the command line the traceback is shown instead.
    """
    keep_freed_memory()
    use_compilation_cache()
    try:
        main()
    except UserError as error:
        if DEBUG_FLAG in sys.argv:
            raise
        print(f"uda_jax: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        if DEBUG_FLAG in sys.argv:
            raise
        print("uda_jax: stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def command() -> str:
    """How this process was called, in words that work in any checkout."""
    path = Path(sys.argv[0])
    start = [path.name]
    if path.parent.name == "uda_jax":  # python -m uda_jax.main
        start = ["python", "-m", f"uda_jax.{path.stem}"]
    return shlex.join([*start, *sys.argv[1:]])


def use_compilation_cache() -> None:
    """Keeps compiled programs in the folder that UDA_JAX_CACHE names, if it is set."""
    folder = os.environ.get("UDA_JAX_CACHE")
    if folder:
        import jax  # only here: --help is quick without it

        jax.config.update("jax_compilation_cache_dir", str(Path(folder).resolve()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Processes started inside never see Ctrl-C: the parent ends them, silently."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may, and only it gets Ctrl-C
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def keep_freed_memory() -> None:
    """Asks glibc to keep freed buffers instead of returning them to the kernel.

    XLA's CPU backend allocates every large temporary afresh in every step; when the
    pages were given back, each step faults them in again, which costs more than some
    convolutions.  Four tunables, the same as the environment variables
    MALLOC_MMAP_MAX_, MALLOC_TRIM_THRESHOLD_, MALLOC_TOP_PAD_ and MALLOC_ARENA_MAX;
    anyone who has set one of those is left alone, and so is a system without glibc.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8  # malloc.h
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 64 * 2**20)
    mallopt(arena_max, 1)
