"""Which target images a round picks for labels, and its record of why."""

import csv
import functools
import io
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from ml_collections import ConfigDict

from uda_jax import round_files
from uda_jax.acquisition import STRATEGIES, image_scores, random_scores, select
from uda_jax.benchmarks import label_space_of
from uda_jax.data.dataset import Dataset
from uda_jax.evaluate_run import score
from uda_jax.files import write_atomically
from uda_jax.labelling import look_at
from uda_jax.predict import Predictor, without_labels
from uda_jax.training_data import Division
from uda_jax.visualize import overlay, panel, png

_SHOWN = 12  # selected images in the picture


def at_random(pool: Dataset, *, seed: int, count: int) -> list[int]:
    """Indices of the images that a round at step 0 picks."""
    scores = random_scores(pool.names, seed=seed, round_index=0)
    return select(pool.names, scores, count)


def pick(
    config: ConfigDict,
    folder: Path,
    now: Any,
    forward: Any,
    pool: Dataset,
    before: Division | None,
    miou: float | None,
    sharding: NamedSharding | None = None,
) -> None:
    """Writes scores.csv, selected.png, round.json and, last, selected.jsonl.

    Args:
      config: of the run.
      folder: of the round.
      now: the round (`rounds.Round`).
      forward: the network so far, of `make_forward`.
      pool: all target images; no label is looked at.
      before: the division so far; None in a round at step 0.
      miou: of the network on the test images, None at step 0.
      sharding: of the images that it looks at.
    """
    classes, class_iou = label_space_of(config).classes, None
    if now.step == 0:
        chosen = at_random(pool, seed=config.seed, count=now.count)
        names, chosen = list(pool.names), [pool.names[i] for i in chosen]
    else:
        if before.labelled is not None:
            report = score(
                config, forward, before.labelled, on="labelled", sharding=sharding
            )
            class_iou = np.nan_to_num(report.iou)  # absent classes: 0, as published
        names = sorted(before.unlabelled)
        at = {name: i for i, name in enumerate(pool.names)}
        unlabelled = pool.select([at[name] for name in names])
        scores = _scores(config, now, forward, unlabelled, class_iou, sharding)
        order = select(names, scores, len(names))
        chosen = [names[i] for i in order[: now.count]]
        _write_scores(folder / "scores.csv", names, scores, order, now.count)
        shown = unlabelled.select(order[: min(now.count, _SHOWN)])
        _draw(config, folder / "selected.png", forward, shown)
    facts = {
        "round": now.number,
        "step": now.step,
        "strategy": config.active.strategy if now.step else "random",
        "labels": config.active.labels,
        "seed": config.seed,
        "labelled_before": len(pool) - len(names),
        "images": len(pool),
        "miou_before": miou,
        "classes": list(classes),
        "class_iou": None if class_iou is None else class_iou.tolist(),
    }
    round_files.write_selected(folder, facts, chosen)


def _scores(config, now, forward, unlabelled: Dataset, class_iou, sharding):
    """[N], the highest to be labelled first."""
    strategy = config.active.strategy
    if STRATEGIES[strategy] is None:
        return random_scores(unlabelled.names, seed=config.seed, round_index=now.number)
    num_classes = label_space_of(config).num_classes
    # Before anything is measured all classes are as bad: the order is the entropy's.
    known = np.zeros(num_classes) if class_iou is None else class_iou
    scores = np.empty(len(unlabelled))
    for i, found in look_at(
        forward, unlabelled, range(len(unlabelled)), num_classes=num_classes,
        tell=_teller(strategy), given=jnp.float32(known), sharding=sharding,
        **without_labels(config.evaluation),
    ):  # fmt: skip
        scores[i] = found
    return scores


@functools.cache
def _teller(strategy: str):
    """One function for each, so that each is compiled once."""
    return lambda probs, class_iou: image_scores(strategy, probs, class_iou)


def _write_scores(path: Path, names, scores, order, count: int) -> None:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("place", "selected", "name", "score"))
    for place, i in enumerate(order):
        writer.writerow((place + 1, int(place < count), names[i], f"{scores[i]:.8g}"))
    write_atomically(path, table.getvalue())


def _draw(config, path: Path, forward, chosen: Dataset) -> None:
    space = label_space_of(config)
    look = Predictor(forward, space, **without_labels(config.evaluation))
    rows = []
    for i in range(len(chosen)):
        image = chosen[i]["image"]
        ids = look(image).ids
        rows.append({"image": image, "prediction": overlay(image, ids, space.colors)})
    legend = (space.classes, space.colors)
    drawn = panel(rows, captions=list(chosen.names), legend_of=legend)
    write_atomically(path, png(drawn))
