"""`benchmark.py rank`: ranking a target against evaluating on the same images.

A ranking looks at images as the evaluation does; instead of reading labels and counting
it writes pseudo-labels and scores.  Both go over the same labelled images of minicity,
drawn first if need be, with the same network of random weights, in blocks that take
turns; a ratio is that of two blocks of one round.  What was labelled is thrown away
after each block.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
from measuring import machine, record, take_turns

from uda_jax import ranking, runs
from uda_jax.benchmarks import (
    base_config,
    draw_minicity,
    label_space_of,
    open_dataset,
)
from uda_jax.evaluate import make_forward
from uda_jax.evaluate_run import score
from uda_jax.label_files import label_images
from uda_jax.predict import without_labels

# Network's row, and the size that it sees.
NETWORKS = {
    "BiSeNet, quarter width": ({"width": 0.25}, (128, 256)),
    "BiSeNet": ({"width": 1.0}, (256, 512)),
}
KINDS = ["evaluation", "ranking"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=100, help="images in a block")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dry", action="store_true", help="print, write nothing")


def measure(name: str, count: int, rounds: int) -> dict[str, Any]:
    """Images per second of both, of each round."""
    row, size = NETWORKS[name]
    config = base_config("minicity")
    config.model.update(row)
    # Scores at that size too: a ranking labels at it.
    config.evaluation.size = config.evaluation.label_size = size
    model, space = runs.make_model(config), label_space_of(config)
    forward = make_forward(model, *jax.jit(model.init)(jax.random.key(0)))
    draw_minicity(config.benchmark, config.test)
    images, labelled = (
        open_dataset(config.target, space, labels=labels).select(range(count))
        for labels in (False, True)
    )
    names = ranking.label_paths(images)

    def block(kind: str) -> float:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            if kind == "evaluation":
                score(config, forward, labelled)
            else:
                label_images(
                    forward, images, names, range(count), Path(folder),
                    confidence=0.0, **without_labels(config.evaluation),
                )  # fmt: skip
            return count / (time.perf_counter() - start)

    for kind in KINDS:  # compiles
        block(kind)
    speeds = take_turns(KINDS, rounds, block)
    ratios = [b / a for a, b in zip(*(speeds[kind] for kind in KINDS), strict=True)]
    return {"network": name, "size": size, **speeds, "ratios": ratios}


def rank_benchmark(arguments: argparse.Namespace) -> None:
    rows = [measure(name, arguments.count, arguments.rounds) for name in NETWORKS]
    lines = [
        "",
        "| network, images | evaluation | ranking | ratio (min to max) |",
        "|---|---|---|---|",
    ]
    for row in rows:
        middle = [statistics.median(row[kind]) for kind in KINDS]
        ratio, *ends = (f(row["ratios"]) for f in (statistics.median, min, max))
        lines.append(
            f"| {row['network']}, {row['size'][0]} x {row['size'][1]} | "
            f"{middle[0]:.1f} images/s | {middle[1]:.1f} images/s | "
            f"{ratio:.2f} ({ends[0]:.2f} to {ends[1]:.2f}) |"
        )
    text = f"{arguments.rounds} rounds of {arguments.count} images.\n" + "\n".join(
        lines
    )
    print(text)
    if not arguments.dry:
        record("rank", text, rows, machine("jax"))
