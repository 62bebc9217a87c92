"""What a round leaves on disk (see `uda_jax.rounds`), written and read."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from uda_jax.benchmarks import label_space_of, open_dataset
from uda_jax.data.dataset import Dataset, make_dataset
from uda_jax.data.sources import SOURCES
from uda_jax.errors import UserError
from uda_jax.factories import keywords
from uda_jax.files import relative, write_atomically
from uda_jax.ranking import image_paths, label_paths
from uda_jax.training_data import Division
from uda_jax.visualize import png

FOLDER = "rounds"
SELECTED, LABELLED = "selected.jsonl", "labelled.jsonl"
_GIVEN = "given"  # labels of the images of `config.labelled`, as train ids


def folder_of(workdir: Path, number: int) -> Path:
    """The folder of a round."""
    return workdir / FOLDER / str(number)


def facts(folder: Path) -> dict[str, Any]:
    """round.json"""
    return _read(folder / "round.json", json.loads)


def selected(folder: Path) -> list[str]:
    """Names of the images that the round picked."""
    return _read(
        folder / SELECTED,
        lambda text: [json.loads(line)["name"] for line in text.splitlines()],
    )


def _read(path: Path, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(path.read_text("utf-8"))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{path}, which says what a round did, is gone or damaged ({error}): "
            "restore it, or begin in another --workdir."
        ) from error


def write_selected(folder: Path, facts: dict[str, Any], chosen: Sequence[str]) -> None:
    """round.json, and then the names."""
    write_atomically(folder / "round.json", json.dumps(facts, indent=1) + "\n")
    _write_lines(folder / SELECTED, [{"name": name} for name in chosen])


def division(config: ConfigDict, workdir: Path, number: int) -> Division:
    """The division that a finished round left.

    It goes by the names that were picked, so that workdir and data may move; the
    manifests, which name paths, are for other programs.

    Raises:
      UserError: the round is not finished, or an image or label of it is gone.
    """
    folder = folder_of(workdir, number)
    if not (folder / LABELLED).exists():
        raise UserError(
            f"{folder / LABELLED} is not there, so round {number} is not finished: "
            "restore it, or begin in another --workdir."
        )
    pool = open_dataset(config.target, label_space_of(config), labels=False)
    return Division(
        _labelled(config, folder, pool), frozenset(pool.names) - _picked(folder)
    )


def write_division(
    config: ConfigDict,
    folder: Path,
    number: int,
    pool: Dataset,
    before: Division | None,
) -> None:
    """The manifests and lists of a round whose labels are there; labelled.jsonl last.

    Args:
      config: of the run.
      folder: of the round.
      number: of the round.
      pool: all target images.
      before: the division before the round; None in a round at step 0.
    """
    if number == 0 and before is not None and before.labelled is not None:
        given = before.labelled
        for i, name in enumerate(label_paths(given)):
            write_atomically(folder.parent / _GIVEN / name, png(given.label(i)))
    picked = _picked(folder)
    paths = dict(zip(pool.names, image_paths(pool), strict=True))
    parts = {
        "labelled": [path for name, path in paths.items() if name in picked],
        "unlabelled": [path for name, path in paths.items() if name not in picked],
    }
    if "list_file" in keywords(SOURCES[config.target.reader]):
        root = Path(config.target.root)
        for name, part in parts.items():
            lines = "".join(f"{relative(path, root)}\n" for path in part)
            write_atomically(folder / f"{name}.txt", lines)
    space = label_space_of(config)
    about = {"about": {"classes": space.classes, "label_space": space.name}}
    rows = [{"image": relative(path, folder)} for path in parts["unlabelled"]]
    _write_lines(folder / "unlabelled.jsonl", [about, *rows])
    store = _labelled(config, folder, pool).store
    seen = lambda path: relative(Path(path), folder)
    rows = [
        {"image": seen(image), "label": seen(label)}
        for image, label in zip(store.images, store.labels, strict=True)
    ]
    _write_lines(folder / LABELLED, [about, *rows])


def _picked(folder: Path) -> set[str]:
    """Names of the images that this round and those before it picked."""
    numbers = range(int(folder.name) + 1)
    return {name for n in numbers for name in selected(folder.parent / str(n))}


def _labelled(config: ConfigDict, folder: Path, pool: Dataset) -> Dataset:
    """All images with labels so far: those of `config.labelled`, then the picked."""
    space, labels = label_space_of(config), folder.parent
    rows, sizes_may_differ = [], pool.sizes_may_differ
    if config.labelled:
        given = open_dataset(config.labelled, space, labels=False)
        files = zip(given.names, image_paths(given), label_paths(given), strict=True)
        sizes_may_differ |= given.sizes_may_differ
        rows += [(f"{_GIVEN}/{n}", image, labels / _GIVEN / x) for n, image, x in files]
    picked = _picked(folder)
    files = zip(pool.names, image_paths(pool), label_paths(pool), strict=True)
    rows += [(n, image, labels / x) for n, image, x in files if n in picked]
    if gone := picked - set(pool.names):
        raise UserError(
            f"round {folder.name} in {labels} has labels of {min(gone)}, which is no "
            "target image now: restore the target's images."
        )
    names, images, files = map(list, zip(*rows, strict=True))
    return make_dataset(
        space, "train_ids", labels, names, images, files,
        sizes_may_differ=sizes_may_differ,
    )  # fmt: skip


def _write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))
