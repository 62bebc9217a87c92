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
    labelled.txt unlabelled.txt   the target's images of both as lists, for `list_file`

and the labels in WORKDIR/rounds/labels/<name>.png.  A round that was stopped goes on
with what it has picked.  Yan et al., SS-ADA, 2024 (released code).
"""

import csv
import functools
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from uda_jax import annotation
from uda_jax.acquisition import STRATEGIES, image_scores, random_scores, select
from uda_jax.benchmarks import label_space_of, open_dataset
from uda_jax.data.dataset import Dataset, check_one_of
from uda_jax.data.images import id_histogram, read_raw_label
from uda_jax.errors import UserError
from uda_jax.evaluate_run import score
from uda_jax.files import relative, write_atomically
from uda_jax.labelling import look_at
from uda_jax.metrics import Report
from uda_jax.predict import Predictor, without_labels
from uda_jax.ranking import image_paths, label_paths
from uda_jax.training_data import Division
from uda_jax.visualize import overlay, panel, png

FOLDER = "rounds"
LABELS = ("dataset", "person")
READ_LABELLED = ("ss_ada",)  # methods that learn from target images with labels
_SHOWN = 12  # selected images in the picture


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
    if set(config.active) != {"strategy", "labels"}:
        raise UserError("with rounds, active needs strategy and labels, and no more.")
    check_one_of("active.strategy", config.active.strategy, STRATEGIES)
    check_one_of("active.labels", config.active.labels, LABELS)
    if config.active.labels == "dataset" and config.labelled:
        raise UserError(
            'labelled names images, but with active.labels="dataset" the first ones '
            "come from a round at step 0: leave labelled out."
        )
    if config.active.labels == "person" and steps[0] == 0:
        raise UserError(
            "a round at step 0 has no network that could label: give `labelled` images "
            "to begin with, or none, and a first round later."
        )
    return rounds


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
        return _read(config, _folder(workdir, past[-1]))
    space = label_space_of(config)
    pool = open_dataset(config.target, space, labels=False)
    total = sum(r.count for r in rounds)
    if total > len(pool):
        raise UserError(
            f"rounds label {total} images and the target has {len(pool)}: lower the "
            "counts in rounds."
        )
    if step == 0 and rounds[0].step == 0:
        chosen = _first(config, pool, rounds[0])
        labelled = open_dataset(config.target, space).select(chosen)
        rest = frozenset(pool.names) - {pool.names[i] for i in chosen}
        return Division(labelled, rest)
    labelled = open_dataset(config.labelled, space) if config.labelled else None
    if labelled is not None:
        real = lambda dataset: set(map(os.path.realpath, image_paths(dataset)))
        if both := real(labelled) & real(pool):
            raise UserError(
                f"{len(both)} images are in labelled and in target, such as "
                f"{min(both)}: name only those without a label as target."
            )
    return Division(labelled, frozenset(pool.names))


def take(
    config: ConfigDict,
    workdir: Path,
    now: Round,
    forward: Any,
    assess: Callable[[], Report],
) -> tuple[Division, dict[str, jax.Array]]:
    """Takes a round, or reads it where it was taken before.

    Args:
      config: of the run.
      workdir: its folder.
      now: of `due`.
      forward: of `make_forward`, the network so far.
      assess: scores it on the test images, which is written down.

    Returns:
      The images with labels from now on, and what the method's memory gets.

    Raises:
      UserError: a picked image is gone; annotation.LabelsWanted.
    """
    folder = _folder(workdir, now)
    before = division_before(config, workdir, now.step) if now.step else None
    space = label_space_of(config)
    pool = open_dataset(config.target, space, labels=False)
    files = label_paths(pool)
    if not (folder / "selected.jsonl").exists():
        miou = assess().miou if now.step else None
        _select(config, folder, now, forward, pool, before, miou)
    wanted = [row["name"] for row in _lines(folder / "selected.jsonl")]
    missing = set(wanted) - set(pool.names)
    if missing:
        raise UserError(
            f"{folder}/selected.jsonl has {min(missing)}, which is no target image now:"
            " restore the target's images."
        )
    at = {name: i for i, name in enumerate(pool.names)}
    indices, out = [at[name] for name in wanted], folder.parent
    if not (folder / "labelled.jsonl").exists():
        if config.active.labels == "dataset":
            truth = open_dataset(config.target, space)
            for i in indices:
                write_atomically(out / files[i], png(truth.label(i)))
        else:
            chosen, names = pool.select(indices), [files[i] for i in indices]
            predictor = Predictor(forward, space, **without_labels(config.evaluation))
            annotation.ask(folder, chosen, names, predictor)
            for name, label in annotation.collect(folder, chosen, names).items():
                write_atomically(out / name, png(label))
        _write_division(config, folder, now, pool, files, wanted, before)
    facts = json.loads((folder / "round.json").read_text())
    memory = {"round": jnp.int32(now.number + bool(now.step))}
    if facts["class_iou"] is not None:
        memory["class_iou"] = jnp.float32(facts["class_iou"])
    if now.step:
        counts = np.zeros(256, np.int64)
        for past in rounds_of(config)[: now.number + 1]:
            if past.step:  # those of the first, random one do not count, as published
                for row in _lines(_folder(workdir, past) / "selected.jsonl"):
                    counts += id_histogram(read_raw_label(out / files[at[row["name"]]]))
        memory["class_counts"] = jnp.float32(counts[: space.num_classes])
    return _read(config, folder), memory


def _select(config, folder, now, forward, pool, before, miou) -> None:
    """Picks the images of a round and writes down which, and why."""
    space, class_iou, scores = label_space_of(config), None, None
    if now.step == 0:
        chosen = [pool.names[i] for i in _first(config, pool, now)]
        names = list(pool.names)
    else:
        if before.labelled is not None:
            report = score(config, forward, before.labelled, on="labelled")
            class_iou = np.nan_to_num(report.iou)  # absent classes: 0, as published
        names = sorted(before.unlabelled)
        at = {name: i for i, name in enumerate(pool.names)}
        indices = [at[name] for name in names]
        strategy = config.active.strategy
        if STRATEGIES[strategy] is None:
            scores = random_scores(names, seed=config.seed, round_index=now.number)
        else:
            known = np.zeros(space.num_classes) if class_iou is None else class_iou
            found = dict(
                look_at(
                    forward, pool, indices, num_classes=space.num_classes,
                    tell=_teller(strategy), given=jnp.float32(known),
                    **without_labels(config.evaluation),
                )
            )  # fmt: skip
            scores = np.array([found[i] for i in indices])
        order = select(names, scores, len(names))
        chosen = [names[i] for i in order[: now.count]]
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(("place", "selected", "name", "score"))
        for place, i in enumerate(order):
            picked = int(place < now.count)
            writer.writerow((place + 1, picked, names[i], f"{scores[i]:.8g}"))
        write_atomically(folder / "scores.csv", table.getvalue())
        _draw(config, folder, forward, pool.select([at[n] for n in chosen[:_SHOWN]]))
    facts = {
        "round": now.number,
        "step": now.step,
        "strategy": config.active.strategy if now.step else "random",
        "labels": config.active.labels,
        "seed": config.seed,
        "labelled_before": len(pool) - len(names),
        "images": len(pool),
        "miou_before": miou,
        "classes": list(space.classes),
        "class_iou": None if class_iou is None else class_iou.tolist(),
    }
    write_atomically(folder / "round.json", json.dumps(facts, indent=1) + "\n")
    _write_lines(folder / "selected.jsonl", [{"name": name} for name in chosen])


@functools.cache
def _teller(strategy: str):
    """One function for each, so that each is compiled once."""
    return lambda probs, class_iou: image_scores(strategy, probs, class_iou)


def _first(config: ConfigDict, pool: Dataset, first: Round) -> list[int]:
    scores = random_scores(pool.names, seed=config.seed, round_index=0)
    return select(pool.names, scores, first.count)


def _draw(config, folder: Path, forward, chosen: Dataset) -> None:
    """selected.png"""
    space = label_space_of(config)
    look = Predictor(forward, space, **without_labels(config.evaluation))
    rows = []
    for i in range(len(chosen)):
        image = chosen[i]["image"]
        ids = look(image).ids
        rows.append({"image": image, "prediction": overlay(image, ids, space.colors)})
    captions = list(chosen.names)
    legend = (space.classes, space.colors)
    write_atomically(
        folder / "selected.png", png(panel(rows, captions=captions, legend_of=legend))
    )


def _write_division(config, folder, now, pool, files, wanted, before) -> None:
    """The manifests and lists; labelled.jsonl last."""
    paths, at = image_paths(pool), {name: i for i, name in enumerate(pool.names)}
    own = {name: at[name] for name in wanted}
    rows = [_row(paths[i], folder.parent / files[i], folder) for i in own.values()]
    if now.number:
        previous = folder.parent / str(now.number - 1) / "labelled.jsonl"
        rows += _moved(previous, folder)
    elif before is not None and before.labelled is not None:
        given = before.labelled
        for image, name, i in zip(
            image_paths(given), label_paths(given), range(len(given)), strict=True
        ):
            label = folder.parent / "given" / name
            write_atomically(label, png(given.label(i)))
            rows.append(_row(image, label, folder))
    rows.sort(key=lambda row: row["image"])
    unlabelled = set(pool.names) if before is None else set(before.unlabelled)
    rest = [paths[at[name]] for name in pool.names if name in unlabelled - set(wanted)]
    space = label_space_of(config)
    about = {"about": {"classes": space.classes, "label_space": space.name}}
    root = config.target.root
    mine = [paths[at[n]] for n in pool.names if n not in unlabelled - set(wanted)]
    for name, part in (("labelled", mine), ("unlabelled", rest)):
        lines = [f"{relative(path, Path(root))}\n" for path in part]
        write_atomically(folder / f"{name}.txt", "".join(lines))
    listed = [relative(path, folder) for path in rest]
    _write_lines(folder / "unlabelled.jsonl", [about, *({"image": x} for x in listed)])
    _write_lines(folder / "labelled.jsonl", [about, *rows])


def _row(image: Path, label: Path, folder: Path) -> dict[str, str]:
    return {"image": relative(image, folder), "label": relative(label, folder)}


def _moved(manifest: Path, folder: Path) -> list[dict[str, str]]:
    """The rows of another round's manifest, as seen from this folder."""
    return [
        _row(manifest.parent / row["image"], manifest.parent / row["label"], folder)
        for row in _lines(manifest)
        if "about" not in row
    ]


def _read(config: ConfigDict, folder: Path) -> Division:
    """The division that a finished round left."""
    space = label_space_of(config)
    manifest = folder / "labelled.jsonl"
    if not manifest.exists():
        raise UserError(
            f"{manifest} is not there, so round {folder.name} is not finished: restore "
            "it, or begin in another --workdir."
        )
    labelled = open_dataset({"reader": "manifest", "root": str(manifest)}, space)
    taken = set()
    for number in range(int(folder.name) + 1):
        rows = _lines(folder.parent / str(number) / "selected.jsonl")
        taken |= {row["name"] for row in rows}
    pool = open_dataset(config.target, space, labels=False)
    return Division(labelled, frozenset(pool.names) - taken)


def _folder(workdir: Path, now: Round) -> Path:
    return workdir / FOLDER / str(now.number)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))
