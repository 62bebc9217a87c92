"""What a person who labels images gets, and how the labels come back.

A round with active.labels="person" fills WORKDIR/rounds/<n>/annotate:

    images/<name>        the selected images, copied
    predicted/<name>.png what the network says, to be edited: 8-bit ids with a palette,
                         so that painting programs show colours and keep the ids
    labelme/<name>.json  the same as polygons, for LabelMe
    cvat.zip             the same, for CVAT ("Segmentation mask 1.1")
    classes.txt          id, name and colour of every class

Finished labels go to WORKDIR/rounds/<n>/finished/<name>, in any of these forms: .png
with ids (255: not labelled), .png in the classes' colours as CVAT exports them (black:
not labelled, where no class is black), or LabelMe's .json.
"""

import contextlib
import json
import shutil
from pathlib import Path, PurePosixPath

from uda_jax.annotation_files import Cvat, polygons, read_finished
from uda_jax.data.dataset import Dataset
from uda_jax.errors import UserError
from uda_jax.files import relative, write_atomically, writing_atomically
from uda_jax.labels import IGNORE
from uda_jax.predict import Predictor
from uda_jax.program import command
from uda_jax.ranking import image_paths, label_paths
from uda_jax.visualize import png

_READY = "classes.txt"  # written last
_ENDINGS = (".png", ".PNG", ".json")


class LabelsWanted(UserError):
    """The run waits for a person."""


def ask(folder: Path, chosen: Dataset, predictor: Predictor) -> None:
    """Writes what a person needs; nothing if it is there.

    Args:
      folder: of the round.
      chosen: the images that were selected.
      predictor: the network so far.
    """
    out, space = folder / "annotate", chosen.label_space
    if (out / _READY).exists():
        return
    with (
        writing_atomically(out / "cvat.zip") as stream,
        contextlib.closing(Cvat(stream, space)) as cvat,
    ):
        files = zip(image_paths(chosen), _inside(chosen), strict=True)
        for i, (path, inside) in enumerate(files):
            ids = predictor(chosen[i]["image"]).ids
            (folder / "finished" / inside).parent.mkdir(parents=True, exist_ok=True)
            image = out / "images" / inside.with_suffix(path.suffix)
            image.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, image)
            predicted = png(ids, colors=space.colors)
            write_atomically(out / "predicted" / inside, predicted)
            own = out / "labelme" / inside.with_suffix(".json")
            shapes = polygons(ids, space, relative(image, own.parent))
            write_atomically(own, json.dumps(shapes, indent=1) + "\n")
            cvat.add(inside.with_suffix("").as_posix(), ids)
    table = ["id  class  red green blue"]
    for i, (name, color) in enumerate(zip(space.classes, space.colors, strict=True)):
        table.append(f"{i}  {name}  {' '.join(map(str, color))}")
    table.append(f"{IGNORE}  not labelled")
    write_atomically(out / _READY, "\n".join(table) + "\n")


def collect(folder: Path, chosen: Dataset, *, into: Path) -> None:
    """Checks all finished labels and then writes them, as uint8 train ids.

    Args:
      folder: of the round.
      chosen: the images that were selected.
      into: folder of the labels; those of `ranking.label_paths` are written below it.

    Raises:
      LabelsWanted: some are missing or cannot be used; says which and what to do.
        Then nothing is written.
    """
    files, missing, wrong = [], [], []
    for i, inside in enumerate(_inside(chosen)):
        stem = folder / "finished" / inside.with_suffix("")
        # By listing: where a disk takes x.png for x.PNG, either would seem to be there.
        there = sorted(stem.parent.iterdir()) if stem.parent.is_dir() else []
        names = {f"{stem.name}{ending}" for ending in _ENDINGS}
        found = [path for path in there if path.name in names]
        if not found:
            missing.append(inside.with_suffix("").as_posix())
            continue
        try:
            if len(found) > 1:
                raise UserError(f"{stem} is there in two forms: delete one")
            _finished(found[0], chosen, i)
            files.append(found[0])
        except UserError as error:
            wrong.append(str(error))
    if missing or wrong:
        parts = []
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            parts.append(
                f"{len(missing)} of {len(chosen)} labels are missing "
                f"({', '.join(missing[:3])}{more})"
            )
        parts += wrong[:3]
        raise LabelsWanted(
            f"round {folder.name} waits for a person: {'; '.join(parts)}.  Label "
            f"{folder}/annotate/images, beginning with annotate/predicted, annotate/"
            f"labelme or annotate/cvat.zip, save into {folder}/finished, and go "
            f"on with:\n    {command()}"
        )
    # A second time, so that memory holds one label and not all of them.
    for i, (path, name) in enumerate(zip(files, label_paths(chosen), strict=True)):
        write_atomically(into / name, png(_finished(path, chosen, i)))


def _finished(path: Path, chosen: Dataset, index: int):
    size = chosen[index]["image"].shape[:2]
    return read_finished(path, size, chosen.label_space)


def _inside(chosen: Dataset) -> list[PurePosixPath]:
    """<name>.png of each image, where its label lies in its folder."""
    paths = map(PurePosixPath, label_paths(chosen))
    return [path.relative_to("labels") for path in paths]
