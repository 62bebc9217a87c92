"""Examples that two data sets of a benchmark share."""

import collections
import hashlib
import os
from collections.abc import Sequence
from typing import NamedTuple

from uda_jax.data.check_walk import SetReport
from uda_jax.data.dataset import Dataset
from uda_jax.data.expected import known_overlap

# Readers whose names identify a photograph, whatever folder it lies in.
_NAMED = ("cityscapes", "crosscity", "gta5", "synthia", "acdc", "dark_zurich", "camvid")


class Overlap(NamedTuple):
    """Examples that two data sets share.

    Attributes:
      roles: of the two.
      names: pairs of names, one from each, sorted.
      harmless: why it is no mistake, "" where it is one.
    """

    roles: tuple[str, str]
    names: tuple[tuple[str, str], ...]
    harmless: str

    def __str__(self) -> str:
        count = len(self.names)
        plural = "example is" if count == 1 else "examples are"
        first, second = self.names[0]
        which = first if first == second else f"{first} = {second}"
        sentence = f"{count:,} {plural} in {self.roles[0]} and in {self.roles[1]}"
        if self.harmless:
            return f"{sentence} ({self.harmless})."
        return (
            f"{sentence}, such as {which}: remove them from one of the two, or scores "
            "are not those of unseen images."
        )


def shared_examples(reports: Sequence[SetReport]) -> list[Overlap]:
    """Examples that are in two of the data sets, by name or by the bytes of the image.

    Names count where both are read from one folder of a published data set.  Bytes are
    read only of images whose files have the same size as one of another data set.
    Training images may be in both domains; an overlap that CrossCity's published lists
    have is known.
    """
    twins = _same_bytes([report.dataset for report in reports])
    overlaps = []
    for j, second in enumerate(reports):
        for i, first in enumerate(reports[:j]):
            pairs = set(twins.get((i, j), ()))
            a, b = first.row, second.row
            if a["reader"] in _NAMED and all(a[k] == b[k] for k in ("reader", "root")):
                common = set(first.dataset.names) & set(second.dataset.names)
                pairs |= {(name, name) for name in common}
            if not pairs:
                continue
            harmless = ""
            if {first.role, second.role} == {"source", "target"}:
                harmless = "both are for training"
            elif len(pairs) <= known_overlap(a, b):
                harmless = "known: CrossCity's published lists share them"
            roles = first.role, second.role
            overlaps.append(Overlap(roles, tuple(sorted(pairs)), harmless))
    return overlaps


def _same_bytes(datasets: Sequence[Dataset]) -> dict[tuple[int, int], set]:
    """{(i, j): {(name in i, name in j)}} of equal image files, i < j."""
    by_size = collections.defaultdict(list)
    for part, dataset in enumerate(datasets if len(datasets) > 1 else ()):
        for index, name in enumerate(dataset.names):
            path = dataset.store.where(index)[0]
            # A record of a prepared data set is no file; a missing one is reported.
            if os.path.isfile(path):
                by_size[os.path.getsize(path)].append((part, name, path))
    found = collections.defaultdict(set)
    for rows in by_size.values():
        if len({part for part, _, _ in rows}) < 2:
            continue
        by_hash = collections.defaultdict(list)
        for part, name, path in rows:
            by_hash[_digest(path)].append((part, name))
        by_hash.pop(None, None)
        for same in by_hash.values():
            for i, first in same:
                for j, second in same:
                    if i < j:
                        found[i, j].add((first, second))
    return found


def _digest(path: str) -> bytes | None:
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "blake2b").digest()
    except OSError:
        return None
