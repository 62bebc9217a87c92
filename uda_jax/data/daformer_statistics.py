r"""The class statistics of DAFormer, read and written.

    python -m uda_jax.data.daformer_statistics --config configs/x.py --out data/gta5

counts the classes of a run's source labels and writes DAFormer's files;
`config.data.class_statistics` reads them.

DAFormer's converters write three JSON files into a data set's folder; HRDA, MIC and
EBDA read the same ones.  They hold the same numbers in three orders:

    sample_class_stats.json       [{"0": pixels, "13": pixels, ..., "file": path}, ...]
    sample_class_stats_dict.json  {path: {"0": pixels, ...}, ...}
    samples_with_class.json       {"0": [[path, pixels], ...], ...}

Keys are the 19 train ids of Cityscapes; a class that an image does not show is left
out.  Paths are those of the *_labelTrainIds.png that the converters make.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np

from uda_jax import program
from uda_jax.benchmarks import label_space_of, open_dataset
from uda_jax.config_files import load_config, parse_beside_config
from uda_jax.data.dataset import Dataset, Files
from uda_jax.data.statistics import ClassCounts, class_counts
from uda_jax.errors import UserError
from uda_jax.files import write_atomically
from uda_jax.labels import LABEL_SPACES, LabelSpace
from uda_jax.progress import progress

_CLASSES = LABEL_SPACES["cityscapes19"].classes
_LIST = "sample_class_stats.json"
_DICT = "sample_class_stats_dict.json"
_BY_CLASS = "samples_with_class.json"
_SUFFIX = "_labelTrainIds.png"


def read_daformer(path: str | Path, dataset: Dataset) -> ClassCounts:
    """Class counts of a dataset from DAFormer's sample_class_stats.json.

    As in the original, a label is found by the last part of its path alone, whatever
    folder the file names; here labels as they were downloaded (*_labelIds.png, *.png)
    are found too.  Entries of other labels are left out, so that the file of a whole
    data set serves a part of it.  Train ids become classes by name; a class that the
    dataset's label space lacks is ignored.

    Args:
      path: the file, or the folder that contains it.
      dataset: opened with labels, from the original folders.

    Raises:
      UserError: the file is missing or not of this form, a label has no entry or more
        than one, or the label space has a class that Cityscapes' 19 lack.
    """
    path = Path(path)
    path = path / _LIST if path.is_dir() else path
    columns = _columns(dataset.label_space)
    wanted = {}
    for index, label in enumerate(_label_paths(dataset)):
        if wanted.setdefault(_stem(label), index) != index:
            raise UserError(
                f"two labels are called {_stem(label)}, which DAFormer's statistics "
                "cannot tell apart: let uda_jax count the classes itself."
            )
    rows = {}
    for row in _rows(path):
        file, pixels = _checked(path, row)
        if wanted.get(_stem(file)) is None:
            continue
        if rows.setdefault(wanted[_stem(file)], pixels) is not pixels:
            raise UserError(
                f"{path} has two entries for {_stem(file)}: make the file anew."
            )
    if missing := [stem for stem, index in wanted.items() if index not in rows]:
        raise UserError(
            f"{path} has no entry for {len(missing)} of {len(dataset)} labels, the "
            f"first is {missing[0]}: make the file anew or let uda_jax count the "
            "classes itself."
        )
    counts = np.zeros((len(dataset), len(columns)), np.int64)
    for index, pixels in rows.items():
        counts[index] = [pixels.get(train_id, 0) for train_id in columns]
    return ClassCounts(dataset.names, counts, dataset.label_space)


def write_daformer(counts: ClassCounts, dataset: Dataset, folder: str | Path) -> None:
    """Writes DAFormer's three files.

    Paths are those that its converters give: beside each label, <label>_labelTrainIds
    .png in place of <label>_labelIds.png or <label>.png.  The classes get their train
    ids among Cityscapes' 19.

    Args:
      counts: of this dataset.
      dataset: opened with labels, from the original folders.
      folder: where to; DAFormer looks into the folder of the data set.

    Raises:
      UserError: the label space has a class that Cityscapes' 19 lack, or the counts are
        of other examples.
    """
    if counts.names != dataset.names:
        raise UserError(
            "class counts of other examples than the dataset's cannot be written: "
            "count this dataset."
        )
    columns = _columns(counts.label_space)
    per_file, per_class = {}, {}
    for label, row in zip(_label_paths(dataset), counts.counts, strict=True):
        file = str(PurePath(label).with_name(_stem(label) + _SUFFIX))
        per_file[file] = {}
        for train_id, pixels in zip(columns, row.tolist(), strict=True):
            if pixels:
                per_file[file][train_id] = pixels
                per_class.setdefault(train_id, []).append([file, pixels])
    rows = [{**pixels, "file": file} for file, pixels in per_file.items()]
    for name, content in ((_LIST, rows), (_DICT, per_file), (_BY_CLASS, per_class)):
        write_atomically(Path(folder) / name, json.dumps(content, indent=2))


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the files for the source of a config."""
    parser = argparse.ArgumentParser(
        prog="python -m uda_jax.data.daformer_statistics",
        description="Writes DAFormer's three JSON files for the source of a config.",
        allow_abbrev=False,  # --config.x belongs to the config
    )
    parser.add_argument("--config", required=True, help="configs/x.py or x.py:variant")
    parser.add_argument("--out", required=True, help="folder for the files")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    arguments, overrides = parse_beside_config(parser, argv)
    config = load_config(arguments.config, overrides)
    dataset = open_dataset(config.source, label_space_of(config))
    with progress("counting classes") as tell:
        counts = class_counts(dataset, config.data.prepared or None, progress=tell)
    write_daformer(counts, dataset, arguments.out)
    print(f"{len(dataset):,} labels; see {Path(arguments.out) / _LIST}")


def _columns(space: LabelSpace) -> list[int]:
    """DAFormer's train id of each class of the space."""
    if other := [name for name in space.classes if name not in _CLASSES]:
        raise UserError(
            f'class "{other[0]}" of label space "{space.name}" is none of Cityscapes\' '
            "19, which DAFormer's statistics are made of: let uda_jax count the "
            "classes itself."
        )
    return [_CLASSES.index(name) for name in space.classes]


def _label_paths(dataset: Dataset) -> tuple[str, ...]:
    if not isinstance(dataset.store, Files) or not dataset.has_labels:
        raise UserError(
            "DAFormer's statistics go by the names of label files, which this dataset "
            "does not have: open the original folders, with labels."
        )
    return dataset.store.labels


def _stem(path: str) -> str:
    """What the names of a label have in common, raw and converted."""
    name = PurePath(path).name.removesuffix(".png")
    return name.removesuffix("_labelTrainIds").removesuffix("_labelIds")


def _rows(path: Path) -> list:
    try:
        rows = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(
            f"DAFormer's statistics {path} cannot be opened ({error.strerror}): give "
            f"the path of a {_LIST} or of its folder."
        ) from error
    except ValueError as error:
        raise UserError(
            f"DAFormer's statistics {path} are not JSON ({error}): make the file anew."
        ) from error
    if not isinstance(rows, list):
        raise UserError(
            f"{path} is not a list of images: of DAFormer's three files give {_LIST}."
        )
    return rows


def _checked(path: Path, row) -> tuple[str, dict[int, int]]:
    """(file, {train id: pixels}) of an entry."""
    allowed = {str(train_id): train_id for train_id in range(len(_CLASSES))}
    good = isinstance(row, dict) and isinstance(row.get("file"), str)
    pixels = {key: n for key, n in row.items() if key != "file"} if good else {}
    if not good or not all(
        key in allowed and type(n) is int and n >= 0 for key, n in pixels.items()
    ):
        raise UserError(
            f'{path} has the entry {str(row)[:80]}: write {{"<train id>": <pixels>, '
            '..., "file": <path>} with train ids from 0 to 18.'
        )
    return row["file"], {allowed[key]: n for key, n in pixels.items()}


if __name__ == "__main__":
    program.run(main)
