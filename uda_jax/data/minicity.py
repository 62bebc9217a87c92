"""minicity: the built-in benchmark, two drawn cities with pixel-exact labels.

The *source* looks like a clean game, the *target* like photographs of another city
(`minicity_style.py` holds every number of the difference).  Labels are Cityscapes' raw
ids of the 13 CrossCity classes; poles (17) are ignored.  Everything follows from (seed,
city, index), so that the same call writes the same bytes on any number of workers.

    python -m uda_jax.data.minicity --root data/minicity
"""

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from uda_jax.data.minicity_building import draw_building
from uda_jax.data.minicity_draw import Canvas, vary
from uda_jax.data.minicity_furniture import (
    draw_garden,
    draw_hedge,
    draw_lamp,
    draw_light,
    draw_sign,
    draw_tree,
)
from uda_jax.data.minicity_ground import (
    draw_ground,
    draw_shadow,
    draw_sky,
    draw_skyline,
)
from uda_jax.data.minicity_people import draw_person, draw_two_wheeler
from uda_jax.data.minicity_photo import photograph
from uda_jax.data.minicity_scene import Scene, compose
from uda_jax.data.minicity_style import CITIES, City
from uda_jax.data.minicity_vehicles import draw_vehicle
from uda_jax.errors import UserError
from uda_jax.program import interrupts_ignored
from uda_jax.progress import progress

VERSION = 5  # raise it whenever a drawing changes

_TOWNS = ("aldenburg", "brightwater", "norhaven", "pixelstadt", "sunfield")
_VAL_TOWN = "meridia"
_VEHICLES = ("hatch", "sedan", "van", "bus")
# Half width and half length of contact shadows, metres.
_FOOTPRINT = {
    "hatch": (0.92, 2.05), "sedan": (0.95, 2.4), "van": (1.0, 2.35), "bus": (1.32, 5.3),
    "person": (0.3, 0.22), "bicycle": (0.16, 0.85), "cyclist": (0.2, 0.85),
    "motorcycle": (0.25, 0.95), "motorcyclist": (0.28, 0.95), "tree": (1.2, 1.2),
    "light": (0.15, 0.15), "sign": (0.12, 0.12), "lamp": (0.14, 0.14),
}  # fmt: skip
_DRAW = {
    "tree": draw_tree, "hedge": draw_hedge, "garden": draw_garden, "light": draw_light,
    "sign": draw_sign, "lamp": draw_lamp, "person": draw_person,
    **dict.fromkeys(_VEHICLES, draw_vehicle),
    **dict.fromkeys(("bicycle", "cyclist"), draw_two_wheeler),
    **dict.fromkeys(("motorcycle", "motorcyclist"), draw_two_wheeler),
}  # fmt: skip


def draw(city: str, seed: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws one picture.

    Args:
      city: "source" or "target".
      seed: of the whole set.
      index: of the picture; the same three give the same bytes.

    Returns:
      image uint8 [256,512,3] RGB, label uint8 [256,512] of Cityscapes' raw ids.

    Raises:
      UserError: there is no such city.
    """
    if city not in CITIES:
        raise UserError(f'minicity has no city "{city}"; use one of {sorted(CITIES)}.')
    numbers = CITIES[city]
    rng = np.random.default_rng([seed, numbers.stream, index])
    image, label = draw_scene(numbers, compose(numbers, rng), rng)
    return photograph(image, numbers, rng), label


def draw_scene(
    city: City, scene: Scene, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draws a scene far to near, before the photographic effects; as `draw`."""
    pick = int(rng.integers(len(city.sky_top)))
    horizon = vary(rng, city.sky_horizon[pick % len(city.sky_horizon)], 4)
    top = vary(rng, city.sky_top[pick], 4)
    canvas = Canvas(scene.camera, city, rng.uniform(*city.haze), horizon)
    draw_sky(canvas, scene, top, horizon, rng)
    draw_ground(canvas, scene, rng)
    for thing in scene.things:
        if thing.kind in _FOOTPRINT:
            draw_shadow(canvas, thing, *_FOOTPRINT[thing.kind])
    draw_skyline(canvas, scene, rng)
    for thing in scene.things:
        if thing.kind == "building":
            draw_building(canvas, scene, thing, rng)
        else:
            _DRAW[thing.kind](canvas, thing, rng)
    return canvas.finish()


@dataclass(frozen=True)
class _Job:
    city: str
    seed: int
    index: int
    image: str
    label: str


def _jobs(seed, source, source_val, target, test) -> list[_Job]:
    """Every picture with its paths relative to the root."""
    jobs = []
    for i in range(source + source_val):
        split = "train" if i < source else "val"
        town = _TOWNS[i % len(_TOWNS)] if split == "train" else _VAL_TOWN
        stem = f"{town}_{i:06d}_000019"
        jobs.append(
            _Job(
                "source", seed, i,
                f"source/leftImg8bit/{split}/{town}/{stem}_leftImg8bit.png",
                f"source/gtFine/{split}/{town}/{stem}_gtFine_labelIds.png",
            )
        )  # fmt: skip
    for i in range(target + test):
        split = "Train" if i < target else "Test"
        stem = f"minicity_{i:06d}"
        jobs.append(
            _Job(
                "target", seed, i,
                f"target/Minicity/Images/{split}/{stem}.png",
                f"target/Minicity/Labels/{split}/{stem}_eval.png",
            )
        )  # fmt: skip
    return jobs


def _draw_job(root: str, job: _Job) -> None:
    image, label = draw(job.city, job.seed, job.index)
    for name, array, kind in (
        (job.image, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), cv2.IMWRITE_PNG_FILTER_UP),
        (job.label, label, cv2.IMWRITE_PNG_FILTER_NONE),
    ):  # these filters are the quickest at about the same size
        options = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, kind]
        if not cv2.imwrite(str(Path(root, name)), array, options):
            raise OSError(f"could not write {Path(root, name)}")


def _start_worker() -> None:
    cv2.setNumThreads(1)  # the processes share the cores already


def write(
    root: Path | str,
    *,
    seed: int = 0,
    source: int = 500,
    source_val: int = 50,
    target: int = 500,
    test: int = 100,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draws minicity into `root`, once, in the layouts of Cityscapes and CrossCity.

    Everything is written into a sibling folder that is renamed at the end, so that
    `root` is either absent or complete.  A complete `root` with the same numbers is
    left as it is.

    Args:
      root: folder to make.
      seed: of the whole set.
      source, source_val, target, test: numbers of pictures.
      workers: processes; None takes one per available core, 1 draws in this process.
      progress: called with (pictures done, pictures in all).

    Returns:
      `root` as a Path.

    Raises:
      UserError: `root` exists with other numbers or is no minicity, or a number is
        negative.
    """
    root = Path(root)
    counts = {
        "source": source,
        "source_val": source_val,
        "target": target,
        "test": test,
    }
    if min(counts.values()) < 0:
        raise UserError(
            f"minicity's numbers of pictures must be 0 or more, got {counts}."
        )
    facts = {"version": VERSION, "seed": seed, **counts}
    if root.exists():
        _check_existing(root, facts)
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        jobs = _jobs(seed, **counts)
        for folder in {part / name for job in jobs for name in _folders(job)}:
            folder.mkdir(parents=True, exist_ok=True)
        _draw_all(part, jobs, workers or _cores(), progress)
        (part / "minicity.json").write_text(json.dumps(facts, indent=2) + "\n")
        part.chmod(0o755)  # mkdtemp's folder is private
        try:
            part.rename(root)
        except OSError:
            # Another process, of the same run on another host perhaps, was quicker.
            _check_existing(root, facts)
            shutil.rmtree(part)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return root


def _folders(job: _Job) -> tuple[str, str]:
    return os.path.dirname(job.image), os.path.dirname(job.label)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_existing(root: Path, facts: dict) -> None:
    try:
        found = json.loads((root / "minicity.json").read_text())
    except (OSError, ValueError):
        raise UserError(
            f"{root} exists but is no complete minicity (no readable minicity.json); "
            "delete it or choose another folder."
        ) from None
    other = {k: found.get(k) for k in facts if found.get(k) != facts[k]}
    if other:
        wanted = {k: facts[k] for k in other}
        raise UserError(
            f"{root} holds a minicity with {other}, but {wanted} was asked for; "
            "delete it or choose another folder."
        )


def _draw_all(part: Path, jobs: list[_Job], workers: int, progress) -> None:
    if workers == 1:
        for done, job in enumerate(jobs, 1):
            _draw_job(str(part), job)
            if progress is not None:
                progress(done, len(jobs))
        return
    context = multiprocessing.get_context("spawn")  # safe beside JAX's threads
    with ProcessPoolExecutor(workers, context, _start_worker) as pool:
        with interrupts_ignored():
            results = pool.map(_draw_job, [str(part)] * len(jobs), jobs, chunksize=4)
        try:
            for done, _ in enumerate(results, 1):
                if progress is not None:
                    progress(done, len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m uda_jax.data.minicity")
    parser.add_argument("--root", default="data/minicity", help="folder to make")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=None)
    chosen = parser.parse_args(arguments)

    try:
        with progress("minicity") as tell:
            root = write(
                chosen.root, seed=chosen.seed, workers=chosen.workers, progress=tell
            )
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"Interrupted; {chosen.root} was not written.", file=sys.stderr)
        return 130
    print(f"minicity is in {root}")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
