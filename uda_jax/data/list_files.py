"""Files that list the images of a dataset, in the formats of the published programs.

One image per line, in any of these forms, whatever the reader:

    aachen_000000_000019                            its name
    train_aachen_000000_000019                      MaxSquare, Cityscapes
    1                                               MaxSquare, GTA5 and SYNTHIA
    pano_00002_0_180                                MaxSquare, CrossCity
    00001.png                                       ADVENT, GTA5
    aachen/aachen_000000_000019_leftImg8bit.png     ADVENT, IntraDA's easy and hard
    aachen/aachen_000000_000019                     mmsegmentation
    images/00001.png labels/00001.png               SS-ADA and UniMatch

So a line is a file's name, with or without its ending, behind as many of its folders as
the author of the list wrote.  The label of the last form must be the reader's own, up
to its ending, which `label_files` chooses; other labels go into a manifest.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from uda_jax.data.images import IMAGE_SUFFIXES
from uda_jax.data.listing import Example
from uda_jax.errors import UserError

_SPLIT = re.compile("^(train|val|test)_")
# What the readers' labels may be called behind their image's name.
_LABEL_ENDING = re.compile(r"(_gtFine|_gt)?(_labelIds|_labelTrainIds|_eval)?\.png")


def read_lines(path: Path, kind: str, example: str) -> list[tuple[int, str]]:
    """(number from 1, text) of the lines of a text file that are not empty.

    Args:
      path: the file.
      kind: what messages call it.
      example: of a line, for messages.

    Raises:
      UserError: the file is missing or no UTF-8 text.
    """
    if not path.is_file():
        raise UserError(
            f"{kind} {path} does not exist: give the path of a file with one "
            f"{example} per line."
        )
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{kind} {path} cannot be read as UTF-8 text ({error}): give a file with "
            f"one {example} per line."
        ) from error
    return [(i, line.strip()) for i, line in enumerate(lines, 1) if line.strip()]


def listed(
    examples: Sequence[Example], list_file: str, where: Path
) -> Sequence[Example]:
    """The examples that a list file names, in its order.

    Args:
      examples: all that there are.
      list_file: path, relative to the working directory; "" returns `examples`.
      where: pattern of the images, for messages.

    Raises:
      UserError: the file is missing or empty, or a line names no image, more than one,
        one that another line names too, or a label that is not the reader's.
    """
    if not list_file or not examples:
        return examples
    lines = read_lines(Path(list_file), "list file", "image")
    if not lines:
        raise UserError(f"list file {list_file} is empty: write one image per line.")
    index: dict[str, list[int]] = {}
    for i, example in enumerate(examples):
        for key in _keys(example):
            index.setdefault(key, []).append(i)
    chosen: dict[int, int] = {}
    unknown = []
    for number, line in lines:
        named = _named(line, index)
        path = PurePath(line.split()[0])
        found = [i for i in named if _lies_in(examples[i].image, path)]
        if len(found) > 1:
            first, second = (examples[i].image for i in found[:2])
            raise UserError(
                f'line {number} of list file {list_file}, "{line}", names '
                f"{len(found)} images, the first are {first} and {second}: write the "
                "whole file name behind its folder."
            )
        if not found:
            unknown.append((number, line[:80], path, named))
        elif found[0] in chosen:
            raise UserError(
                f"lines {chosen[found[0]]} and {number} of list file {list_file} name "
                f"the same image, {examples[found[0]].image}: remove one."
            )
        else:
            chosen[found[0]] = number
            _check_label(line, number, list_file, examples[found[0]])
    if unknown:
        number, line, path, named = unknown[0]
        fitting = _fitting(path, [examples[i].image for i in named])
        advice = (
            f', whose folders are not those of such an image: write "{fitting}"'
            if fitting
            else ": correct the list, choose the split that it is for, or unpack the "
            "missing images"
        )
        raise UserError(
            f"{len(unknown)} of {len(lines)} lines of list file {list_file} name no "
            f'image of {where}, the first is line {number}, "{line}"{advice}.'
        )
    return [examples[i] for i in chosen]


def _keys(example: Example) -> set[str]:
    """What the last part of a line may be."""
    short = example.name.rpartition("/")[2]
    return {_reduce(short), _reduce(example.image.name)}


def _named(line: str, index: Mapping[str, list[int]]) -> list[int]:
    """The examples that have the name in a line, in any folder."""
    words = line.split()
    if len(words) > 2:
        return []
    key = _reduce(PurePath(words[0]).name)
    return index.get(key) or index.get(_SPLIT.sub("", key), [])


def _fitting(path: PurePath, images: Sequence[Path]) -> PurePath | None:
    """The longest end of `path` that is the end of one of the images."""
    tails = (PurePath(*path.parts[i:]) for i in range(len(path.parts)))
    return next((t for t in tails if any(_lies_in(i, t) for i in images)), None)


def _lies_in(path: Path, tail: PurePath) -> bool:
    """Whether the folders of `path` end in those of `tail`."""
    folders = tail.parts[:-1]
    return not folders or path.parts[-len(folders) - 1 : -1] == folders


def _check_label(line: str, number: int, list_file: str, example: Example) -> None:
    words = line.split()
    if len(words) == 1:
        return
    label = PurePath(words[1])
    stem = example.label.name
    if (
        label.name.startswith(stem)
        and _LABEL_ENDING.fullmatch(label.name, len(stem))
        and _lies_in(example.label, label)
    ):
        return
    raise UserError(
        f"line {number} of list file {list_file} gives the label {label}, but this "
        f"reader's is {example.label}*: remove the labels from the list, or read it as "
        "a manifest."
    )


def _reduce(name: str) -> str:
    """A file name without the ending of an image, a number without leading zeros."""
    stem, _, suffix = name.rpartition(".")
    if f".{suffix.lower()}" in IMAGE_SUFFIXES:
        name = stem
    return name.lstrip("0") or "0" if name.isdecimal() else name
