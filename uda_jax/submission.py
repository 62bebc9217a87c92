r"""Files for the test servers of ACDC and Dark Zurich, and a check of such files.

    python -m uda_jax.submission --workdir runs/daformer_acdc --output submissions/acdc
    python -m uda_jax.submission --check submissions/acdc/submission.zip --server acdc

The first command predicts every image of the target's test split at its own size, as
the run's evaluation looks at images.  It writes to --output

    labelTrainIds/<file name of the image>  8-bit PNG with a palette, train ids 0 to 18
    submission.json                         what made them
    submission.zip                          labelTrainIds alone: the file to hand in

Repeating it goes on where it was stopped.  The zip appears when it has passed the
check, which the second command makes of any zip, or folder with a labelTrainIds.
"""

import argparse
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uda_jax import runs, trained
from uda_jax.benchmarks import label_space_of, open_dataset
from uda_jax.data.dataset import check_one_of, size_text
from uda_jax.data.images import read_image
from uda_jax.data.listing import images_in
from uda_jax.errors import UserError
from uda_jax.evaluate import make_forward
from uda_jax.files import write_atomically, writing_atomically
from uda_jax.labels import LabelSpace, lookup
from uda_jax.predict import Predictor, without_labels
from uda_jax.program import CHECKPOINTS
from uda_jax.progress import progress
from uda_jax.rank import digest
from uda_jax.submission_check import (
    FOLDER,
    SERVERS,
    SPACE,
    SPLITS,
    check,
    picture_mistake,
    refuse,
)
from uda_jax.visualize import png

ZIP, ABOUT = "submission.zip", "submission.json"


def write(
    workdir: str | os.PathLike,
    output: str | os.PathLike,
    *,
    server: str = "",
    split: str = "test",
    checkpoint: str = "latest",
    images: str | os.PathLike = "",
) -> Path:
    """Predicts the images of a split and packs what a server takes.

    Args:
      workdir: folder of a run whose classes are Cityscapes' 19.
      output: folder, new or with a part of the same predictions.
      server: key of `SERVERS`; "" for the reader of the run's target or, where that is
        none of them (IntraDA's is a manifest), of its test images.
      split: "test", or "val" for a rehearsal.
      checkpoint: "latest", "best" or "teacher".
      images: see `split_images`; "" for the root in the run's config.

    Returns:
      The zip's path.

    Raises:
      UserError: no run or checkpoint, other classes, images that are missing or of
        another size, or an output that holds something else.
    """
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file: give a folder.")
    # What can be wrong is said before the network is loaded, where that is possible.
    config = runs.read_config(Path(workdir))
    table = train_ids(label_space_of(config))
    roots = {config.target.reader: config.target.root}
    roots.setdefault(config.test.reader, config.test.root)
    server = server or next((r for r in roots if r in SERVERS), "")
    if not (server and (images or server in roots)):
        raise UserError(
            f"the data of {workdir} ({', '.join(filter(None, roots))}) does not tell "
            f"what to predict: give --images and --server, {' or '.join(SERVERS)}."
        )
    paths = split_images(images or roots[server], server, split)
    run = trained.load_run(workdir, checkpoint)
    forward = make_forward(run.model, run.params, run.batch_stats)
    options = without_labels(run.config.evaluation)
    facts = {"server": server, "split": split, "weights": digest(forward), **options}
    del facts["batch_size"]  # it changes no prediction
    beside = {"network": str(workdir), "step": run.step, "checkpoint": checkpoint}
    _claim(output, facts, {**beside, "commit": runs.provenance()["commit"]})
    predictor = Predictor(forward, run.label_space, **options)
    size = SERVERS[server].size
    with progress("predicting") as tell:
        for done, path in enumerate(paths, 1):
            file = output / FOLDER / path.name
            if not file.is_file() or picture_mistake(file.read_bytes(), size):
                image = read_image(path)
                if image.shape[:2] != size:
                    raise UserError(
                        f"image {path} is {size_text(image.shape[:2])}, but must be "
                        f"{size_text(size)} (height x width): give the original files."
                    )
                ids = table[predictor(image).ids]
                write_atomically(file, png(ids, colors=SPACE.colors))
            tell(done, len(paths))
    return _pack(output, [path.name for path in paths], server, split)


def train_ids(space: LabelSpace) -> np.ndarray:
    """[256] uint8: the servers' train id of each id of a network in `space`.

    Raises:
      UserError: its classes are not Cityscapes' 19, in whatever order.
    """
    if differing := set(space.classes) ^ set(SPACE.classes):
        raise UserError(
            f'label space "{space.name}" differs in {", ".join(sorted(differing))} '
            f"from {SPACE.name}, which the servers score: take a run with its classes."
        )
    return lookup(dict(enumerate(SPACE.train_ids(space.classes))))


def split_images(folder: str | os.PathLike, server: str, split: str) -> list[Path]:
    """The image files of a split.

    Args:
      folder: what the data set was unpacked into, with an rgb_anon; or a folder with
        the images of the split alone, also in folders of its own.
      server, split: as in `check`.

    Raises:
      UserError: a folder is missing, or there are not as many as the data set has.
    """
    check_one_of("server", server, SERVERS)
    check_one_of("split", split, SPLITS)
    if (Path(folder) / "rgb_anon").is_dir():
        row = {"reader": server, "root": str(folder), "split": split}
        files = open_dataset(row, SPACE, labels=False).store.images
    else:
        files = images_in(Path(folder), "_rgb_anon.png", recursive=True)
    if len(files) != (count := SERVERS[server].counts[split]):
        raise UserError(
            f"{folder} has {len(files):,} images of split {split} instead of {count:,}:"
            " unpack the data set again, or give the folder of that split alone."
        )
    return [Path(file) for file in files]


def _claim(output: Path, facts: dict[str, Any], beside: dict[str, Any]) -> None:
    """Says in the folder whose it is, or raises UserError where it is another's."""
    facts, path = json.loads(json.dumps(facts)), output / ABOUT  # lists for tuples
    if not output.exists() or not any(output.iterdir()):
        write_atomically(path, json.dumps({**facts, **beside}, indent=2) + "\n")
        return
    try:
        old = json.loads(path.read_text("utf-8"))
        differing = [key for key in facts if old[key] != facts[key]]
    except (OSError, ValueError, LookupError, TypeError):
        differing = ["everything"]
    if differing:
        raise UserError(
            f"--output {output} holds something else than these predictions ({ABOUT} "
            f"differs in {', '.join(differing)}): give another folder."
        )


def _pack(output: Path, names: Sequence[str], server: str, split: str) -> Path:
    path = output / ZIP
    with writing_atomically(path) as stream:
        with zipfile.ZipFile(stream, "w") as archive:  # PNG is compressed already
            for name in names:
                entry = zipfile.ZipInfo(f"{FOLDER}/{name}")  # of 1980: repeatable bytes
                entry.external_attr = 0o644 << 16  # else unzip makes it unreadable
                archive.writestr(entry, (output / FOLDER / name).read_bytes())
        stream.flush()
        refuse(path, check(stream.name, server, split=split, names=names))
    return path


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m uda_jax.submission",
        description="Writes or checks what the test servers of ACDC and Dark Zurich "
        "take.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--workdir", help="folder of a run, to predict with")
    what.add_argument("--check", help="zip or folder, to be checked")
    add = parser.add_argument
    add("--output", help="folder for the predictions of --workdir")
    add("--server", choices=SERVERS, default="", help="(the run's target)")
    add("--split", choices=SPLITS, default="test", help="val for a rehearsal (test)")
    add("--checkpoint", choices=CHECKPOINTS, help="of --workdir (latest)")
    add("--images", default="", help="folder of the data set, or of the split's images")
    add("--debug", action="store_true", help="show tracebacks of mistakes")
    arguments = parser.parse_args(argv)
    server, split, images = arguments.server, arguments.split, arguments.images
    if arguments.workdir:
        if not arguments.output:
            raise UserError("--workdir needs --output: give a folder.")
        checkpoint = arguments.checkpoint or "latest"
        path = write(
            arguments.workdir, arguments.output,
            server=server, split=split, checkpoint=checkpoint, images=images,
        )  # fmt: skip
        url = SERVERS[json.loads((path.parent / ABOUT).read_text())["server"]].url
        print(f"{path} is well" + (f"; hand it in: {url}" if split == "test" else ""))
        return
    if arguments.output or arguments.checkpoint:
        raise UserError("--output and --checkpoint are of --workdir: leave them out.")
    if not server:
        raise UserError(f"--check needs --server, one of {', '.join(SERVERS)}: add it.")
    found = split_images(images, server, split) if images else []
    names = [path.name for path in found]
    refuse(arguments.check, check(arguments.check, server, split=split, names=names))
    print(f"{arguments.check} is well" + ("" if names else "; --images compares names"))


def run() -> None:
    """The command `uda-jax-submission`."""
    from uda_jax import program

    program.run(main)


if __name__ == "__main__":
    run()
