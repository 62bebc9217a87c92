"""Rounds of active learning: at some steps some more target images get labels.

`config.rounds` lists (step, number of images); `config.active` says how:

    strategy   of `acquisition.STRATEGIES`
    labels     "dataset": the target's own labels (simulation); "person": the run stops,
               see `uda_jax.annotation`, and goes on when the labels are there

A round at step 0 is drawn at random.  Every round leaves in WORKDIR/rounds/<n>:

    round.json           step, strategy, IoU of each class on the labelled images ...
    scores.csv           the unlabelled images, the one to label first at the top
    selected.jsonl       those that were picked; written before any label is asked for
    selected.png         the same to look at, with what the network says of them
    unlabelled.jsonl     the images that are left
    labelled.jsonl       a manifest of all labelled images so far; written last
    labelled.txt unlabelled.txt   the target's images of both as lists, for readers with
                         `list_file`

and the labels in WORKDIR/rounds/labels/<name>.png.  A round that was stopped goes on
with what it has picked.  Yan et al., SS-ADA, 2024 (released code).
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from ml_collections import ConfigDict

from uda_jax import annotation, round_files, selection
from uda_jax.acquisition import STRATEGIES
from uda_jax.benchmarks import label_space_of, open_dataset
from uda_jax.data.dataset import Dataset, Files, check_one_of
from uda_jax.data.images import id_histogram, read_raw_label
from uda_jax.errors import UserError
from uda_jax.files import write_atomically
from uda_jax.metrics import Report
from uda_jax.predict import Predictor, without_labels
from uda_jax.ranking import image_paths, label_paths
from uda_jax.training_data import Division
from uda_jax.visualize import png

LABELS = ("dataset", "person")
READ_LABELLED = ("ss_ada",)  # methods that learn from target images with labels


class Round(NamedTuple):
    """A line of `config.rounds`, and its number."""

    number: int
    step: int
    count: int


def rounds_of(config: ConfigDict) -> list[Round]:
    """The rounds of a config.

    Raises:
      UserError: steps that do not rise or lie outside of the training, a count below 1,
        an unknown strategy, or options that do not fit each other.
    """
    for row in config.rounds:
        if not isinstance(row, list | tuple) or list(map(type, row)) != [int, int]:
            raise UserError(
                f"rounds has {row}: give pairs of whole numbers, (step, images that "
                "get a label then), such as ((0, 25), (300, 75))."
            )
    if config.method.name not in READ_LABELLED:
        for name in ("rounds", "labelled"):
            if config[name]:
                raise UserError(
                    f'{name} is not read by method "{config.method.name}", but by '
                    f"{', '.join(READ_LABELLED)} alone: leave it out."
                )
    rounds = [Round(i, *row) for i, row in enumerate(config.rounds)]
    if not rounds:
        if config.active:
            raise UserError("active has options and rounds is empty: give both.")
        _check_nothing_waits(config)
        return []
    steps = [r.step for r in rounds]
    if steps != sorted(set(steps)) or not 0 <= steps[0] <= steps[-1] < config.steps:
        raise UserError(
            f"the steps of rounds are {steps}: they must rise, from 0 on and below "
            f"steps={config.steps}."
        )
    if any(r.count < 1 for r in rounds):
        raise UserError(f"rounds={config.rounds} has a count below 1: leave it out.")
    if jax.process_count() > 1:
        raise UserError("rounds are taken by one process: give it all devices.")
    if config.continue_from:
        raise UserError(
            "rounds count the steps of a run of their own: use init_from instead of "
            "continue_from."
        )
    _check_active(config, from_step=steps[0])
    if steps[-1] == 0:
        _check_nothing_waits(config)
    return rounds


def _check_nothing_waits(config: ConfigDict) -> None:
    """Raises a UserError for options that would wait for a round that never comes."""
    weights = config.method.get("class_weights", "")
    if weights in ("iou", "counts") or config.method.get("class_threshold"):
        name = "class_weights" if weights in ("iou", "counts") else "class_threshold"
        raise UserError(
            f"method.{name}={config.method[name]} is measured at rounds, of which the "
            "config has none after step 0: set rounds, or leave it out."
        )


def _check_active(config: ConfigDict, *, from_step: int) -> None:
    """Raises a UserError for an `active` that does not fit rounds from that step on."""
    if set(config.active) != {"strategy", "labels"}:
        raise UserError("with rounds, active needs strategy and labels, and no more.")
    check_one_of("active.strategy", config.active.strategy, STRATEGIES)
    check_one_of("active.labels", config.active.labels, LABELS)
    if config.active.labels == "dataset" and config.labelled:
        raise UserError(
            'labelled names images, but with active.labels="dataset" the first ones '
            "come from a round at step 0: leave labelled out."
        )
    if config.active.labels == "person" and from_step == 0:
        raise UserError(
            "a round at step 0 has no network that could label: give `labelled` images "
            "to begin with, or none, and a first round later."
        )
    if config.active.strategy == "iou" and from_step > 0 and not config.labelled:
        raise UserError(
            'active.strategy="iou" compares classes on images with labels, of which '
            "the first round finds none: give a round at step 0, `labelled` images, "
            "or another strategy."
        )


def due(config: ConfigDict, step: int) -> Round | None:
    """The round after so many steps, if there is one, of a config that was checked."""
    rounds = (Round(i, *row) for i, row in enumerate(config.rounds))
    return next((r for r in rounds if r.step == step), None)


def division_before(config: ConfigDict, workdir: Path, step: int) -> Division | None:
    """Which target images have labels in step `step` + 1, but for a round due then.

    None where the config has no rounds.  A round at step 0 counts, so that its first
    batch can be made before anything is written.

    Raises:
      UserError: an earlier round is not finished; what opening the datasets raises.
    """
    rounds = rounds_of(config)
    if not rounds:
        return None
    past = [r for r in rounds if r.step < step]
    if past:
        return round_files.division(config, workdir, past[-1].number)
    space = label_space_of(config)
    # Labels that a later round would miss are missed now.
    labels = config.active.labels == "dataset"
    pool = open_dataset(config.target, space, labels=labels)
    paths = _files(pool, "target")
    label_paths(pool)
    total = sum(r.count for r in rounds)
    if total > len(pool):
        raise UserError(
            f"rounds label {total} images and the target has {len(pool)}: lower the "
            "counts in rounds."
        )
    if step == 0 and rounds[0].step == 0:
        chosen = selection.at_random(pool, seed=config.seed, count=rounds[0].count)
        rest = frozenset(pool.names) - {pool.names[i] for i in chosen}
        return Division(pool.select(chosen), rest)
    labelled = open_dataset(config.labelled, space) if config.labelled else None
    if labelled is not None:
        real = lambda files: set(map(os.path.realpath, files))
        if both := real(_files(labelled, "labelled")) & real(paths):
            raise UserError(
                f"{len(both)} images are in labelled and in target, such as "
                f"{min(both)}: name only those without a label as target."
            )
    return Division(labelled, frozenset(pool.names))


def _files(dataset: Dataset, row: str) -> tuple[Path, ...]:
    """The dataset's image files.

    Raises:
      UserError: they are records.
    """
    if not isinstance(dataset.store, Files):
        raise UserError(
            f"rounds need image files, and {row} is of records: name the original "
            "files there; a prepared copy of the target is found by data.prepared."
        )
    return image_paths(dataset)


def take(
    config: ConfigDict,
    workdir: Path,
    now: Round,
    forward: Any,
    assess: Callable[[], Report],
    sharding: NamedSharding | None = None,
) -> tuple[Division, dict[str, jax.Array]]:
    """Takes a round, or reads it where it was taken before.

    Args:
      config: of the run.
      workdir: its folder.
      now: of `due`.
      forward: of `make_forward`, the network so far.
      assess: scores it on the test images, which is written down.
      sharding: of the images that it looks at, see `evaluate`.

    Returns:
      The images with labels from now on, and what the method's memory gets.

    Raises:
      UserError: a picked image is gone; annotation.LabelsWanted.
    """
    folder = round_files.folder_of(workdir, now.number)
    before = division_before(config, workdir, now.step) if now.step else None
    space = label_space_of(config)
    pool = open_dataset(config.target, space, labels=False)
    files = dict(zip(pool.names, label_paths(pool), strict=True))
    if not (folder / round_files.SELECTED).exists():
        miou = assess().miou if now.step else None
        selection.pick(config, folder, now, forward, pool, before, miou, sharding)
    wanted = round_files.selected(folder)
    missing = set(wanted) - set(pool.names)
    if missing:
        raise UserError(
            f"{folder}/{round_files.SELECTED} has {min(missing)}, which is no target "
            "image now: restore the target's images."
        )
    at, root = {name: i for i, name in enumerate(pool.names)}, folder.parent
    if not (folder / round_files.LABELLED).exists():
        if config.active.labels == "dataset":
            truth = open_dataset(config.target, space)
            for name in wanted:
                write_atomically(root / files[name], png(truth.label(at[name])))
        else:
            chosen = pool.select([at[name] for name in wanted])
            predictor = Predictor(forward, space, **without_labels(config.evaluation))
            annotation.ask(folder, chosen, predictor)
            annotation.collect(folder, chosen, into=root)
        round_files.write_division(config, folder, now.number, pool, before)
    class_iou = round_files.facts(folder)["class_iou"]
    memory = {"round": jnp.int32(now.number + bool(now.step))}
    if class_iou is not None:
        memory["class_iou"] = jnp.float32(class_iou)
    if now.step:
        counts = np.zeros(256, np.int64)
        for past in rounds_of(config)[: now.number + 1]:
            if past.step:  # those of the first, random one do not count, as published
                names = round_files.selected(root / str(past.number))
                for name in names:
                    counts += id_histogram(read_raw_label(root / files[name]))
        memory["class_counts"] = jnp.float32(counts[: space.num_classes])
    return round_files.division(config, workdir, now.number), memory
