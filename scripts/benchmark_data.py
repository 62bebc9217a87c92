"""`benchmark.py data`: reading original images against reading prepared ones.

A Cityscapes-like folder of 1024 x 2048 PNG images with labels is written to a temporary
folder, from photographs (--images) or from minicity's drawings with a camera's noise,
and prepared as PNG and as JPEG at the size of MaxSquare's recipe, 512 x 1024, bicubic.
Then the pipeline of a training run (decode, resize, mirror, batch) reads each of the
three in turn, in blocks; a ratio is that of two blocks of one round.  CPU time is that
of all threads of the process.

It also times the parts of one original image, and follows the memory of the process
over --samples prepared samples.
"""

import argparse
import gc
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from measuring import machine, record

from uda_jax.data import minicity
from uda_jax.data.dataset import Dataset
from uda_jax.data.geometry import maxsquare, split_fixed
from uda_jax.data.ops import apply
from uda_jax.data.pipeline import train_iterator
from uda_jax.data.prepare import prepare
from uda_jax.data.prepared import find_prepared
from uda_jax.data.resizing import resize_image, resize_label
from uda_jax.data.sources import cityscapes
from uda_jax.errors import UserError
from uda_jax.photos import find_photos, read_photo

FULL, REDUCED = (1024, 2048), (512, 1024)
BATCH = 2


def write_originals(root: Path, images: str, count: int) -> None:
    """Writes `count` images and labels."""
    scenes = [minicity.draw("source", 0, index) for index in range(min(count, 8))]
    photos = [image for image, _ in scenes]
    if images:
        photos = [read_photo(path) for path in find_photos(images)[:count]]
    rng = np.random.default_rng(0)
    for number in range(count):
        photo = cv2.resize(
            photos[number % len(photos)], FULL[::-1], interpolation=cv2.INTER_CUBIC
        )
        noise = rng.normal(0, 2.0, photo.shape)
        photo = np.clip(photo + noise, 0, 255).astype(np.uint8)
        label = scenes[number % len(scenes)][1]
        label = cv2.resize(label, FULL[::-1], interpolation=cv2.INTER_NEAREST)
        name = f"town/town_{number:06d}_000019"
        image_path = root / f"leftImg8bit/train/{name}_leftImg8bit.png"
        label_path = root / f"gtFine/train/{name}_gtFine_labelIds.png"
        for path, pixels in ((image_path, photo[..., ::-1]), (label_path, label)):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not cv2.imwrite(str(path), pixels):
                raise UserError(f"{path} cannot be written: make room for it.")


def parts(dataset: Dataset, rounds: int) -> dict[str, float]:
    """CPU ms of what reading and reducing one original example consists of."""
    image, label = dataset.store.image(0), dataset.raw_label(0)
    work: dict[str, Callable[[], Any]] = {
        "decode image": lambda: dataset.store.image(0),
        "decode label": lambda: dataset.raw_label(0),
        "resize image": lambda: resize_image(image, REDUCED, "pillow_bicubic"),
        "resize label": lambda: resize_label(label, REDUCED, "pillow_bicubic"),
    }
    return {
        name: statistics.median(_cpu_ms(call, rounds)) for name, call in work.items()
    }


def _cpu_ms(call: Callable[[], Any], rounds: int) -> list[float]:
    times = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        times.append(1000 * (time.process_time() - start))
    return times


def read_blocks(
    contestants: dict[str, tuple[Dataset, tuple]], threads: int, rounds: int, steps: int
) -> dict[str, list[tuple[float, float]]]:
    """(wall, CPU) ms for an image, per round and contestant, taking turns."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    names = list(contestants)
    for number in range(rounds):
        turn = number % len(names)  # nobody always comes first
        for name in names[turn:] + names[:turn]:
            dataset, ops = contestants[name]
            with _batches(dataset, ops, threads, number) as batches:
                next(batches)  # opens files, starts threads
                wall, cpu = time.perf_counter(), time.process_time()
                for _ in range(steps):
                    next(batches)
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            images = steps * BATCH
            times[name].append((1000 * wall / images, 1000 * cpu / images))
    return times


def _batches(dataset: Dataset, ops: tuple, threads: int, seed: int):
    return train_iterator(
        dataset, None, source_ops=ops, batch_size=BATCH, seed=seed, threads=threads
    )


def memory(dataset: Dataset, ops: tuple, samples: int) -> list[tuple[int, float]]:
    """(samples read, resident MiB) ten times over `samples`."""
    seen = []
    with _batches(dataset, ops, 2, 0) as batches:
        for step in range(1, samples // BATCH + 1):
            next(batches)
            if step * BATCH % max(samples // 10, BATCH) == 0:
                gc.collect()
                seen.append((step * BATCH, _resident_mib()))
    return seen


def _resident_mib() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20
    except OSError:  # no Linux: the largest so far
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _megabytes(folder: Path) -> float:
    files = (path for path in folder.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files) / 1e6


def table(rows: list[dict]) -> str:
    """Markdown."""
    lines = [
        "| data | threads | images per second | CPU per image | originals' CPU / its "
        "| MB per example |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['data']} | {row['threads']} | {row['images_per_second']:.0f} "
            f"| {row['cpu_ms']:.1f} ms | {row['ratio']:.1f} "
            f"({row['ratio_min']:.1f} to {row['ratio_max']:.1f}) "
            f"| {row['megabytes']:.2f} |"
        )
    return "\n".join(lines)


def summarise(times: dict, threads: int, sizes: dict[str, float]) -> list[dict]:
    """A row for each contestant; ratios of CPU time are of the same round."""
    original = [cpu for _, cpu in times["original PNG"]]
    rows = []
    for name, pairs in times.items():
        ratios = [a / b for a, (_, b) in zip(original, pairs, strict=True)]
        rows.append(
            {
                "data": name,
                "threads": threads,
                "megabytes": sizes[name],
                "images_per_second": 1000 / statistics.median(w for w, _ in pairs),
                "cpu_ms": statistics.median(cpu for _, cpu in pairs),
                "ratio": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
                "rounds_ms": pairs,
            }
        )
    return rows


def data(arguments: argparse.Namespace) -> None:
    """The command `data`."""
    least = {"count": 1, "rounds": 1, "steps": 1, "samples": BATCH}
    for name, number in least.items():
        if getattr(arguments, name) < number:
            raise UserError(f"--{name} must be {number} or more.")
    ops = maxsquare(size=REDUCED)
    fixed, rest = split_fixed(ops)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_originals(root / "data", arguments.images, arguments.count)
        dataset = cityscapes(root / "data", label_space="cityscapes19")
        contestants = {"original PNG": (dataset, ops)}
        sizes = {"original PNG": _megabytes(root / "data") / arguments.count}
        for format in ("png", "jpeg"):
            prepare(dataset, fixed, root / format, format=format)
            found, reason = find_prepared(dataset, fixed, root / format)
            if found is None:
                raise UserError(f"the {format} set cannot be read: {reason}")
            name = {"png": "prepared PNG", "jpeg": "prepared JPEG"}[format]
            contestants[name] = (found, rest)
            sizes[name] = _megabytes(Path(found.store.folder)) / arguments.count
        item = [
            apply(x[1], x[0][0], np.random.default_rng(0)) for x in contestants.values()
        ]
        if not np.array_equal(item[0]["image"], item[1]["image"]):
            raise UserError("prepared PNG images differ from the originals: report it.")
        rows = []
        for threads in (0, 2):
            times = read_blocks(contestants, threads, arguments.rounds, arguments.steps)
            rows += summarise(times, threads, sizes)
        one = parts(dataset, 5 * arguments.rounds)
        flat = memory(*contestants["prepared JPEG"], arguments.samples)
    text = "\n\n".join(
        [
            f"{arguments.count} examples, batch {BATCH}, {arguments.rounds} rounds of "
            f"{arguments.steps} batches.",
            table(rows),
            "CPU of one original image: "
            + ", ".join(f"{name} {ms:.1f} ms" for name, ms in one.items())
            + ".",
            "Resident memory while reading prepared samples: "
            + ", ".join(f"{mib:.0f} MiB after {n:,}" for n, mib in flat)
            + ".",
        ]
    )
    if arguments.dry:
        print(text)
        return
    everything = {"read": rows, "parts_ms": one, "memory_mib": flat}
    record("data", text, everything, machine("grain", "array-record", "pillow"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--images", default="", help="folder of photographs to use")
    parser.add_argument("--count", type=int, default=40, help="images to write")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="batches in a block")
    parser.add_argument("--samples", type=int, default=10_000, help="for the memory")
    parser.add_argument("--dry", action="store_true", help="print only")
