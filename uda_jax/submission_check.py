"""What the test servers of ACDC and Dark Zurich take, and a check of such files."""

import contextlib
import functools
import io
import os
import re
import struct
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from uda_jax.data.dataset import Size, check_one_of, size_text
from uda_jax.errors import UserError
from uda_jax.labels import LABEL_SPACES
from uda_jax.progress import progress

FOLDER = "labelTrainIds"
SPACE = LABEL_SPACES["cityscapes19"]
Entries = Sequence[tuple[str, Callable[[], bytes]]]  # names, and what reads them


class Server(NamedTuple):
    """What a test server takes."""

    title: str
    url: str  # where the zip is handed in
    counts: Mapping[str, int]  # split -> images; no server scores "val"
    size: Size = (1080, 1920)  # (height, width) of every image
    # File names of the images: GOPR<video>, or GP<chapter><video> for its later parts.
    names: str = r"(GOPR|GP\d\d)\d{4}_frame_\d{6}_rgb_anon\.png"


# The keys are readers.  Counts are published (Sakaridis et al., ICCV 2021 and 2019),
# and one folder with the images' own names is what DAFormer hands in; nothing was tried
# on a server here.  Users of Dark Zurich's disagree whether it wants the two folders of
# its other score, UIoU, as well: labelTrainIds_invalid and confidence.
SERVERS: dict[str, Server] = {
    "acdc": Server(
        "ACDC", "https://acdc.vision.ee.ethz.ch/submit", {"test": 2_000, "val": 406}
    ),
    "dark_zurich": Server(
        "Dark Zurich",
        "https://codalab.lisn.upsaclay.fr/competitions/3783",
        {"test": 151, "val": 50},
    ),
}
SPLITS = ("test", "val")


def check(
    path: str | os.PathLike,
    server: str,
    *,
    split: str = "test",
    names: Collection[str] = (),
) -> list[str]:
    """Every mistake for which a server could refuse a zip, or a folder to be packed.

    Args:
      path: zip; or folder that contains labelTrainIds, beside which nothing is read.
      server: key of `SERVERS`.
      split: "test" or "val".
      names: file names of the images; () looks at their number and form alone.

    Returns:
      A sentence for each mistake, [] if all is well.

    Raises:
      UserError: nothing is there, or an unknown server or split.
    """
    check_one_of("server", server, SERVERS)
    check_one_of("split", split, SPLITS)
    if not os.path.exists(path):
        raise UserError(f"{path} does not exist: give a zip or a folder.")
    facts, names, mistakes, found = SERVERS[server], set(names), [], set()
    with contextlib.ExitStack() as opened:
        try:
            entries = _entries(Path(path), opened)
        except Exception as error:  # of many kinds, for damaged files
            return [f"The file is no zip or is damaged ({error}): pack it again."]
        tell = opened.enter_context(progress("checking"))
        for done, (entry, read) in enumerate(entries, 1):
            name = entry.removeprefix(f"{FOLDER}/")
            known = name in names if names else re.fullmatch(facts.names, name)
            if not re.fullmatch(rf"{FOLDER}/[^/\\]*", entry):
                mistakes.append(
                    f"{entry} lies elsewhere than {FOLDER}/<name>.png, where alone "
                    "files may be: pack that folder alone, at the top."
                )
            elif name in found:
                mistakes.append(f"{entry} is there twice: keep one of them.")
            elif name and not known:
                mistakes.append(
                    f"{entry} is named like no image of {facts.title}'s split {split}:"
                    " give it exactly the name of its image, or remove it."
                )
            elif name:  # else it is the folder's own entry
                found.add(name)
                try:
                    mistake = picture_mistake(read(), facts.size)
                except Exception as error:  # of many kinds, for damaged files
                    mistake = f"is damaged or locked ({error}): pack it again, unlocked"
                if mistake:
                    mistakes.append(f"{entry} {mistake}.")
            tell(done, len(entries))
    for name in sorted(names - found):
        mistakes.append(f"{FOLDER}/{name} is missing: predict that image too.")
    if not names and len(found) != (count := facts.counts[split]):
        mistakes.append(
            f"{FOLDER} holds predictions of {len(found):,} images instead of {count:,}:"
            f" give one for each image of {facts.title}'s split {split}."
        )
    return mistakes


def _entries(path: Path, opened: contextlib.ExitStack) -> Entries:
    if path.is_dir():
        files = sorted(p for p in (path / FOLDER).rglob("*") if not p.is_dir())
        return [(p.relative_to(path).as_posix(), p.read_bytes) for p in files]
    archive = opened.enter_context(zipfile.ZipFile(path))
    return [(i.filename, functools.partial(archive.read, i)) for i in archive.filelist]


def picture_mistake(data: bytes, size: Size) -> str:
    """What is wrong with the PNG file of a prediction, to be said behind its name.

    Args:
      data: the bytes.
      size: (height, width) of the image.

    Returns:
      Words without a full stop; "" if all is well.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            given = (image.mode, data[24], image.size[::-1])  # byte 24: depth
            fits = given in (("P", 8, size), ("L", 8, size))
            ids = np.asarray(image) if fits else np.zeros(1, np.uint8)
    except (OSError, SyntaxError, ValueError, struct.error,
            Image.DecompressionBombError) as error:  # fmt: skip
        return f"is no PNG file or a damaged one ({error}): write it again"
    if not fits:
        return (
            f"is {size_text(given[2])}, mode {given[0]} of {given[1]} bits, but must "
            f"be {size_text(size)} (height x width), mode P or L of 8 bits: write the "
            "train ids themselves, at the image's own size"
        )
    wrong = np.unique(ids[ids >= SPACE.num_classes])
    if len(wrong):
        return (
            f"holds the ids {', '.join(map(str, wrong[:8]))}, but only the train ids 0 "
            f"to {SPACE.num_classes - 1} are allowed: write those instead of label "
            "ids, and a class instead of 255"
        )
    return ""


def refuse(path: str | os.PathLike, mistakes: Sequence[str]) -> None:
    """Raises UserError with the first three mistakes and the number of the rest."""
    if mistakes:
        more = [f"and {len(mistakes) - 3:,} more."] if len(mistakes) > 3 else []
        lines = [f"{path} cannot be handed in:", *mistakes[:3], *more]
        raise UserError("\n  ".join(lines))
