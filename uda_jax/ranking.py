"""The folder that `python -m uda_jax.rank` fills.

    ranking.json          which network, images and options; written first
    progress_0.jsonl      a line for each image that is done, of process 0
    labels/<name>.png     pseudo-labels: uint8 train ids, 255 ignored
    colors/<name>.png     the same in the classes' colours
    certainty/<name>.png  of the pixels, see `Seen`; with --class_share alone
    surest/<name>.png     the labels that --class_share leaves; the manifests name these
    scores.csv            all images from the surest to the least sure
    easy.jsonl hard.jsonl manifests of the two parts, for config.source and .target
    easy_split.txt hard_split.txt   the same as list files, as IntraDA writes them
    scores.png pictures.png         the distribution; the easiest and the hardest

All from surest/ on is written at the end, from what is there, so that other options for
the division cost nothing; scores.csv comes last, and a folder without it is not
finished.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from uda_jax.acquisition import easy_count, ranking, rare_factor
from uda_jax.data.dataset import Dataset, Files
from uda_jax.data.images import IMAGE_SUFFIXES
from uda_jax.data.own import FACTS, SCORES
from uda_jax.errors import UserError
from uda_jax.files import relative, write_atomically
from uda_jax.label_files import Row
from uda_jax.runs import differences

# Facts that may differ when a ranking goes on: the weights have a digest.
_FREE = ("network", "step", "checkpoint", "commit")
_COLUMNS = (
    *("rank", "part", "name", "score", "entropy", "rare_factor", "confidence"),
    *("labelled", "image"),
)


class Part(NamedTuple):
    """Images in the order of their scores, and where their division is."""

    rows: list[Row]
    indices: list[int]
    scores: np.ndarray
    factors: np.ndarray
    easy: int


def image_paths(dataset: Dataset) -> tuple[Path, ...]:
    """The image files, which manifests name.

    Raises:
      UserError: the images are not files of their own.
    """
    if not isinstance(dataset.store, Files):
        raise UserError(
            "the images to rank are records instead of image files, which manifests "
            "name: rank with --config FILE --config.init_from=RUN whose target is the "
            "original files."
        )
    return tuple(map(Path, dataset.store.images))


def label_paths(dataset: Dataset) -> tuple[str, ...]:
    """Where in the folder the images' pseudo-labels are: labels/<name>.png.

    Of a name that is a path, as those of manifests are, only what lies below its last
    ".." is kept.

    Raises:
      UserError: two images would share a file.
    """
    paths = []
    for name in dataset.names:
        parts = PurePosixPath(name.removeprefix("/")).parts
        above = [i for i, part in enumerate(parts) if part == ".."]
        inside = PurePosixPath(*parts[above[-1] + 1 if above else 0 :])
        if inside.suffix.lower() in IMAGE_SUFFIXES:
            inside = inside.with_suffix("")
        paths.append(f"labels/{inside}.png")
    if len(set(paths)) != len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise UserError(
            f"two of the images to rank would share {twice}: give their files other "
            "names, or rank them apart."
        )
    return tuple(paths)


def open_folder(output: Path, facts: Mapping[str, Any]) -> None:
    """Claims the folder for these facts, or goes on in it.

    Raises:
      UserError: it is of other facts, or holds something else.
    """
    path = output / FACTS
    if path.exists():
        try:
            old = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise UserError(
                f"{path} is not readable JSON ({error}): delete {output}, or give "
                "another --output."
            ) from error
        kept = lambda facts: {k: v for k, v in facts.items() if k not in _FREE}
        ours = json.loads(json.dumps(facts))  # tuples are lists
        if differing := differences(kept(old), kept(ours)):
            raise UserError(
                f"--output {output} holds another ranking ({'; '.join(differing[:4])}):"
                " give another --output, or delete it."
            )
        return
    visible = lambda: any(not p.name.startswith(".") for p in output.iterdir())
    if output.exists() and (not output.is_dir() or visible()):
        raise UserError(
            f"--output {output} holds something that is no ranking (it has no {FACTS}):"
            " give a new or empty folder."
        )
    write_atomically(path, json.dumps(facts, indent=1) + "\n")


def divide(
    dataset: Dataset, rows: Mapping[str, Row], *, normalize: bool, easy_fraction: float
) -> Part:
    """Ranks images by their score and divides them.

    Args:
      dataset: the images, in whose order equal scores stay.
      rows: of `read_progress`, one for each image.
      normalize: multiply the entropy by `acquisition.rare_factor`.
      easy_fraction: of `acquisition.easy_count`.

    Raises:
      UserError: see those; or an image has no row.
    """
    missing = [name for name in dataset.names if name not in rows]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(dataset)} images are not labelled, the first is "
            f"{missing[0]}: repeat the command, with one --output for all hosts."
        )
    easy = easy_count(len(dataset), easy_fraction)
    space = dataset.label_space
    ordered = [rows[name] for name in dataset.names]
    present = np.zeros((len(ordered), space.num_classes), bool)
    for index, row in enumerate(ordered):
        present[index, list(row.present)] = True
    factors = np.ones(len(ordered))
    if normalize:
        factors = rare_factor(present, space.classes)
    scores = factors * [row.entropy for row in ordered]
    order = ranking(scores)
    return Part(
        [ordered[i] for i in order], order.tolist(), scores[order], factors[order], easy
    )


def write_lists(
    output: Path, part: Part, images: Sequence[Path], about: Mapping[str, Any]
) -> None:
    """scores.csv, the manifests and the list files.

    Args:
      output: the folder.
      part: of `divide`.
      images: of `image_paths`.
      about: facts for the manifests' first lines.
    """
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for place, row in enumerate(part.rows):
        writer.writerow(
            [
                *(place + 1, "easy" if place < part.easy else "hard", row.name),
                *(f"{x:.8g}" for x in (part.scores[place], row.entropy)),
                *(f"{x:.6g}" for x in (part.factors[place], row.confidence)),
                *(f"{row.labelled:.6g}", images[part.indices[place]]),
            ]
        )
    # Should this be stopped, nothing is left of a former division.
    (output / SCORES).unlink(missing_ok=True)
    parts = {"easy": range(part.easy), "hard": range(part.easy, len(part.rows))}
    for name in parts:
        for ending in (".jsonl", "_split.txt"):
            (output / f"{name}{ending}").unlink(missing_ok=True)
    for name, places in parts.items():
        if not places:
            continue
        paths = [images[part.indices[place]] for place in places]
        lines = [{"about": {**about, "part": name}}]
        lines += [
            {"image": relative(path, output), "label": part.rows[place].label}
            for path, place in zip(paths, places, strict=True)
        ]
        write_atomically(output / f"{name}.jsonl", _lines(map(json.dumps, lines)))
        listed = (f"{path.parent.name}/{path.name}" for path in paths)
        write_atomically(output / f"{name}_split.txt", _lines(listed))
    write_atomically(output / SCORES, table.getvalue())


def _lines(texts: Iterable[str]) -> str:
    return "".join(f"{text}\n" for text in texts)
