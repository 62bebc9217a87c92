"""How many examples the published data sets have, and which of them overlap.

A table of published facts; what is not published there is not guessed.
"""

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from uda_jax.data.sources import SOURCES


class Expected(NamedTuple):
    """How many examples a data set should have.

    Attributes:
      counts: any of these is right: some data sets were published twice.
      origin: who says so.
    """

    counts: tuple[int, ...]
    origin: str

    def __str__(self) -> str:
        return " or ".join(f"{count:,}" for count in self.counts)


# Reader, or kind of weather -> ({split: counts}, origin).
_PUBLISHED: dict[str, tuple[dict[str, tuple[int, ...]], str]] = {
    "gta5": (
        {"all": (24_966,), "train": (12_403,), "val": (6_382,), "test": (6_181,)},
        "the official split, Richter et al., ECCV 2016",
    ),
    "synthia": (
        {"all": (9_400,), "train": (9_000,), "val": (400,)},
        "SYNTHIA-RAND-CITYSCAPES; the split is MaxSquare's list",
    ),
    "cityscapes": (
        {"train": (2_975,), "val": (500,), "test": (1_525,)},
        "Cordts et al., CVPR 2016",
    ),
    "foggy": (
        {"train": (8_925,), "val": (1_500,)},
        "Sakaridis et al., IJCV 2018: three densities of every image of Cityscapes",
    ),
    "rain": (
        {"train": (9_432,), "val": (1_188,)},
        "Hu et al., CVPR 2019",
    ),
    "crosscity": (
        {"Train": (3_200,), "Test": (100,)},
        "MaxSquare's lists and TUFL's log, each city",
    ),
    "acdc": (
        {"train": (1_600,), "val": (406,), "test": (2_000,)},
        "Sakaridis et al., ICCV 2021, all four conditions",
    ),
    "dark_zurich": (
        {"train": (2_416,), "val": (50,), "test": (151,)},
        "Sakaridis et al., ICCV 2019; train is the night part",
    ),
    "parking": (
        {"train": (140, 110), "val": (21, 20)},
        "SS-ADA's lists of 2024 and 2023",
    ),
    "camvid": (
        {"train": (367,), "val": (101,), "test": (233,)},
        "SegNet's form of CamVid",
    ),
}
_CITIES = {"Rio": 24, "Rome": 17, "Taipei": 89, "Tokyo": 34}  # images in both lists
_ACDC_CONDITIONS = 4
_FOG_DENSITIES = 3
_CAMVID_SEQUENCES = {
    "train": {"0001TP": 62, "0006R0": 101, "0016E5": 204},
    "val": {"0016E5": 101},
    "test": {"0001TP": 62, "Seq05VD": 171},
}
# Options of a row that do not choose examples.
_NEUTRAL = ("reader", "root", "split", "fraction", "label_files")
_MINICITY = {"train": "source", "val": "source_val", "Train": "target", "Test": "test"}


def expected(row: Mapping[str, Any]) -> Expected | None:
    """The published number of examples of a row {"reader", "root", option: value}.

    minicity says itself how many examples it was drawn with.

    Returns:
      None where the number is not known: a user's own data, a list file, some of ACDC's
      conditions, ...
    """
    options = {**_defaults(row["reader"]), **row}
    split = options.get("split")
    chosen = {k for k, v in options.items() if v and k not in _NEUTRAL}
    facts = Path(row["root"]).parent / "minicity.json"
    if row["reader"] in ("cityscapes", "crosscity") and facts.is_file():
        return _minicity(facts, split)
    if row["reader"] == "cityscapes_weather" and chosen <= {"weather", "betas"}:
        return _weather(split, options["weather"], len(options["betas"]))
    counts, origin = _PUBLISHED.get(row["reader"], ({}, ""))
    if split not in counts:
        return None
    if row["reader"] == "crosscity" and options["city"] in _CITIES:
        chosen -= {"city"}
    if len(options.get("conditions", ())) == _ACDC_CONDITIONS:
        chosen -= {"conditions"}
    if str(options.get("list_file", "")).endswith(".mat"):  # GTA5's own split file
        chosen -= {"list_file"}
    if chosen == {"sequences"}:
        known = _CAMVID_SEQUENCES[split]
        count = sum(known.get(name, 0) for name in options["sequences"])
        return Expected((count,), origin)
    if chosen:
        return None
    # Every int(1 / fraction)-th example, the first included.
    stride = int(1 / options.get("fraction", 1.0))
    return Expected(tuple(-(-count // stride) for count in counts[split]), origin)


def known_overlap(first: Mapping[str, Any], second: Mapping[str, Any]) -> int:
    """How many examples two data sets are known to share: CrossCity's published lists.

    MaxSquare's lists name 24 of Rio's 100 test images for training too, 17 of Rome's,
    89 of Taipei's and 34 of Tokyo's.
    """
    rows = (first, second)
    if any(row["reader"] != "crosscity" for row in rows):
        return 0
    cities = {row["city"] for row in rows}
    splits = {row.get("split", "Train") for row in rows}
    if len(cities) > 1 or splits != {"Train", "Test"}:
        return 0
    city = cities.pop()
    return sum(_CITIES.values()) if city == "all" else _CITIES.get(city, 0)


def _weather(split: str, weather: Sequence[str], betas: int) -> Expected | None:
    total, origins = 0, []
    for kind in weather:
        counts, origin = _PUBLISHED.get(kind, ({}, ""))
        if split not in counts:
            return None
        part = betas / _FOG_DENSITIES if kind == "foggy" and betas else 1
        total += int(counts[split][0] * part)
        origins.append(origin)
    return Expected((total,), "; ".join(origins))


def _minicity(facts: Path, split: str) -> Expected | None:
    try:
        count = json.loads(facts.read_text("utf-8"))[_MINICITY[split]]
    except (OSError, ValueError, KeyError):
        return None
    return Expected((count,), "its own minicity.json")


def _defaults(reader: str) -> dict[str, Any]:
    """The reader's options and their defaults, but for those that all readers have."""
    return {
        p.name: p.default
        for p in inspect.signature(SOURCES[reader]).parameters.values()
        if p.kind is p.KEYWORD_ONLY
        and p.default is not p.empty
        and p.name not in ("labels", "label_space")
    }
