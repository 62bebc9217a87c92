"""What a run tells while it runs: a live line, TensorBoard, metrics.jsonl, panels.

clu's metric writers do the writing.  clu reaches TensorBoard through tensorflow; where
that is absent a writer on tensorboardX stands in, and everything else stays clu's.
"""

import importlib.util
import json
import resource
import sys
import time
import types
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from uda_jax.errors import UserError
from uda_jax.files import write_atomically
from uda_jax.parallel import is_main


class _Sink:
    """clu's MetricWriter interface; what a sink does not keep, it lets pass."""

    def write_scalars(self, step, scalars):
        pass

    def write_images(self, step, images):
        pass

    def write_texts(self, step, texts):
        pass

    def write_histograms(self, step, arrays, num_buckets=None):
        pass

    def write_summaries(self, step, values, metadata=None):
        pass

    def write_videos(self, step, videos):
        pass

    def write_audios(self, step, audios, *, sample_rate):
        pass

    def write_hparams(self, hparams):
        pass

    def flush(self):
        pass

    def close(self):
        pass


class TensorboardWriter(_Sink):
    """Scalars, images, texts and histograms as TensorBoard event files."""

    def __init__(self, logdir: str):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(logdir)

    def write_scalars(self, step, scalars):
        for key, value in scalars.items():
            self._writer.add_scalar(key, float(value), step)

    def write_images(self, step, images):
        for key, value in images.items():
            value = np.asarray(value)
            form = "NHWC" if value.ndim == 4 else "HWC"
            self._writer.add_images(key, value, step, dataformats=form)

    def write_texts(self, step, texts):
        for key, value in texts.items():
            self._writer.add_text(key, value, step)

    def write_histograms(self, step, arrays, num_buckets=None):
        for key, value in arrays.items():
            self._writer.add_histogram(key, np.asarray(value), step)

    def flush(self):
        self._writer.flush()

    def close(self):
        self._writer.close()


if importlib.util.find_spec("tensorflow") is None:
    _name = "clu.metric_writers.summary_writer"
    _stand_in = types.ModuleType(_name)
    _stand_in.SummaryWriter = TensorboardWriter
    sys.modules.setdefault(_name, _stand_in)

from clu import metric_writers  # noqa: E402 (after the stand-in)


class JsonlWriter(_Sink):
    """One JSON object a line: {"step": 20, "loss/total": 1.25, ...}."""

    def __init__(self, path: Path):
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (kept open)

    def write_scalars(self, step, scalars):
        row = {"step": int(step)} | {k: float(v) for k, v in scalars.items()}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def close(self):
        self._file.close()


def make_writer(workdir: Path, *, start_step: int) -> metric_writers.MetricWriter:
    """clu's asynchronous writer to workdir/metrics.jsonl and workdir/tensorboard.

    Of several processes one writes; the others get a writer to nowhere.

    Rows of metrics.jsonl past `start_step` were written by a run that was killed after
    its last checkpoint.  They are dropped: those steps are about to be done again.
    """
    if not is_main():
        return metric_writers.MultiWriter([])
    path = workdir / "metrics.jsonl"
    kept = [row for row in read_history(workdir) if row["step"] <= start_step]
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept))
    sinks = [
        metric_writers.SummaryWriter(str(workdir / "tensorboard")),
        JsonlWriter(path),
    ]
    return metric_writers.AsyncMultiWriter(sinks)


class MetricLog:
    """Metrics of the steps since the last log, still on the device."""

    def __init__(self):
        self._rows, self._names = [], []

    def add(self, metrics: dict, names: dict) -> None:
        self._rows.append(metrics)
        self._names.append(names)

    def flush(self, last_step: int) -> dict[str, float]:
        """Means over the steps since the last flush.

        Raises:
          UserError: a metric of one of them is not finite.
        """
        rows = jax.device_get(self._rows)
        names, self._rows, self._names = self._names, [], []
        for index, row in enumerate(rows):
            bad = [k for k, v in row.items() if not np.isfinite(v)]
            if bad:
                step = last_step - len(rows) + 1 + index
                terms = ", ".join(
                    f"{k}={float(v):.4g}"
                    for k, v in row.items()
                    if k in bad or k.startswith("loss/")
                )
                images = "; ".join(
                    f"{d}: {', '.join(n)}" for d, n in names[index].items()
                )
                raise UserError(
                    f"step {step} is not finite ({terms}) on the images {images}: "
                    "lower optimizer.learning_rate or look at these images; the last "
                    "checkpoint is from before."
                )
        return {k: float(np.mean([row[k] for row in rows])) for k in rows[0]}


def read_history(workdir: Path) -> list[dict]:
    """Rows of metrics.jsonl; a last line cut by a kill is left out."""
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


class Live:
    """The live line: step, losses, images per second, time left, memory.

    On a terminal one line is redrawn; elsewhere (a file, CI) each log is a line.
    """

    def __init__(self, steps: int, start_step: int, images_per_step: int):
        self.console = Console(highlight=False, soft_wrap=True, quiet=not is_main())
        self._steps, self._images = steps, images_per_step
        self._clock = (time.monotonic(), start_step)
        self._bar = None
        if self.console.is_terminal:
            columns = (BarColumn(bar_width=20), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=self.console, transient=True)
            self._task = self._bar.add_task("compiling ...", total=steps)
            self._bar.update(self._task, completed=start_step)
            self._bar.start()

    def say(self, text: str) -> None:
        """A line of its own, above the live one."""
        self.console.print(text, markup=False)

    def restart_clock(self, step: int) -> None:
        """Leaves compilation, evaluation and other pauses out of the speed."""
        self._clock = (time.monotonic(), step)

    def update(self, step: int, metrics: Mapping[str, float]) -> float:
        """Shows the state after `step`; gives images per second since the last time."""
        now, (before, last) = time.monotonic(), self._clock
        self._clock = (now, step)
        per_step = (now - before) / max(step - last, 1)
        speed = self._images / max(per_step, 1e-9)
        shown = "  ".join(
            f"{name.removeprefix('loss/')} {value:.4g}"
            for name, value in metrics.items()
            if name.startswith(("loss/", "pseudo/"))
        )
        text = (
            f"step {step}/{self._steps}  {shown}  {speed:.1f} images/s  "
            f"{_duration((self._steps - step) * per_step)} left  {memory_gib():.1f} GiB"
        )
        if self._bar:
            self._bar.update(self._task, completed=step, description=text)
        else:
            self.say(text)
        return speed

    def close(self) -> None:
        if self._bar:
            self._bar.stop()


def memory_gib() -> float:
    """Peak memory: of the first device where it tells, else of this process."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
