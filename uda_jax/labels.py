"""Label spaces as tables: class names, colours, and raw ids to train ids.

A train id is in [0, number of classes) or `IGNORE`.  Raw ids of a dataset exist only in
its files.  A coding says which class each raw id of a dataset is, by name; a label
space says which classes a network tells apart.  The table from the one to the other
follows from both (`id_table`), so that every dataset goes with every space that shares
classes with it.

Sources: the Cityscapes label definition (Cordts et al., CVPR 2016) for names, colours
and ids, which GTA5 (Richter et al., ECCV 2016), CrossCity, ACDC and Dark Zurich share;
SYNTHIA-RAND-CITYSCAPES (Ros et al., CVPR 2016); TUFL (Yan et al., T-ITS 2023) for the
16- and 13-class subsets; CamVid (Brostow et al., ECCV 2008) in the 11-class form of
SegNet; SS-ADA's bird's-eye views of parking lots.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from uda_jax.errors import UserError, did_you_mean

IGNORE = 255

# Label id in Cityscapes' *_labelIds.png, class, colour.
_CITYSCAPES = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
_CAMVID = (
    (0, "sky", (128, 128, 128)),
    (1, "building", (128, 0, 0)),
    (2, "pole", (192, 192, 128)),
    (3, "road", (128, 64, 128)),
    (4, "sidewalk", (60, 40, 222)),
    (5, "vegetation", (128, 128, 0)),
    (6, "traffic sign", (192, 128, 128)),
    (7, "fence", (64, 64, 128)),
    (8, "car", (64, 0, 128)),
    (9, "person", (64, 64, 0)),
    (10, "bicyclist", (0, 128, 192)),
)
_PARKING = (
    (0, "background", (0, 0, 0)),
    (1, "parking line", (0, 0, 142)),
    (2, "white line", (220, 20, 60)),
    (3, "yellow line", (111, 74, 0)),
    (4, "zebra crossing", (128, 64, 128)),
    (5, "arrow", (250, 170, 160)),
    (6, "slope", (250, 170, 30)),
)
_SYNTHIA = {
    1: "sky", 2: "building", 3: "road", 4: "sidewalk", 5: "fence", 6: "vegetation",
    7: "pole", 8: "car", 9: "traffic sign", 10: "person", 11: "bicycle",
    12: "motorcycle", 15: "traffic light", 16: "terrain", 17: "rider", 18: "truck",
    19: "bus", 20: "train", 21: "wall",
}  # fmt: skip

# Classes of the 19 that SYNTHIA (16) and CrossCity (13) lack.
_NOT_IN_16 = ("terrain", "truck", "train")
_NOT_IN_13 = (*_NOT_IN_16, "wall", "fence", "pole")

Coding = Mapping[int, str]


def _coding(names: Coding, raw_ids: Sequence[int]) -> dict[int, str]:
    return {raw: names.get(raw, "") for raw in raw_ids}


_CITYSCAPES_NAMES = {raw: name for raw, name, _ in _CITYSCAPES}
_TRAIN_ID_NAMES = {i: name for i, (_, name, _) in enumerate(_CITYSCAPES)}

# Coding -> {raw id: class, "" where it is none}.  Every id that the files may contain
# is a key; an id that is no key is a mistake in the data.
CODINGS: dict[str, dict[int, str]] = {
    # *_labelIds.png hold 0..33; 255 stands for -1, the licence plate.
    "cityscapes": _coding(_CITYSCAPES_NAMES, (*range(34), IGNORE)),
    # *_labelTrainIds.png of Cityscapes, ACDC and Dark Zurich.
    "cityscapes_train_ids": _coding(_TRAIN_ID_NAMES, (*range(19), IGNORE)),
    # 34 is the licence plate here.
    "gta5": _coding(_CITYSCAPES_NAMES, range(35)),
    # 0 void, 13 parking slot, 14 road work, 22 lane marking.
    "synthia": _coding(_SYNTHIA, range(23)),
    # 11 is void.
    "camvid": _coding({raw: name for raw, name, _ in _CAMVID}, (*range(12), IGNORE)),
    "parking": _coding({raw: name for raw, name, _ in _PARKING}, (*range(7), IGNORE)),
}


@dataclasses.dataclass(frozen=True, eq=False)
class LabelSpace:
    """The classes that a network tells apart, in the order of their train ids.

    Attributes:
      name: key in `LABEL_SPACES`, or a user's own.
      classes: [C] class names.
      colors: [C, 3] uint8 RGB.
      coding: raw ids of the dataset that it was made for: what "label_ids" means.
    """

    name: str
    classes: tuple[str, ...]
    colors: np.ndarray
    coding: Coding

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def train_ids(self, classes: tuple[str, ...]) -> tuple[int, ...]:
        """Train ids of class names.

        Raises:
          UserError: a name is not a class of this label space.
        """
        for name in classes:
            if name not in self.classes:
                raise UserError(
                    f'class "{name}" is not in label space "{self.name}"'
                    f"{did_you_mean(name, self.classes)}: "
                    f"its classes are {', '.join(self.classes)}."
                )
        return tuple(self.classes.index(name) for name in classes)


def _space(name: str, rows: tuple, coding: Coding) -> LabelSpace:
    colors = np.array([color for _, _, color in rows], np.uint8)
    colors.flags.writeable = False
    return LabelSpace(name, tuple(row[1] for row in rows), colors, coding)


def _without(names: tuple[str, ...]) -> tuple:
    return tuple(row for row in _CITYSCAPES if row[1] not in names)


LABEL_SPACES: dict[str, LabelSpace] = {
    name: _space(name, rows, CODINGS[coding])
    for name, rows, coding in (
        ("cityscapes19", _CITYSCAPES, "cityscapes"),
        ("cityscapes16", _without(_NOT_IN_16), "cityscapes"),
        ("crosscity13", _without(_NOT_IN_13), "cityscapes"),
        ("camvid11", _CAMVID, "camvid"),
        ("parking7", _PARKING, "parking"),
    )
}


def get_label_space(space: str | LabelSpace) -> LabelSpace:
    """`LABEL_SPACES[space]`; a LabelSpace is returned as it is.

    Raises:
      UserError: no such label space.
    """
    if isinstance(space, LabelSpace):
        return space
    if not space:
        raise UserError(
            "label_space is empty: set it to one of "
            f"{', '.join(LABEL_SPACES)}, or give a name and classes of your own."
        )
    if space not in LABEL_SPACES:
        raise UserError(
            f'label space "{space}" is unknown{did_you_mean(space, LABEL_SPACES)}: '
            f"choose one of {', '.join(LABEL_SPACES)}."
        )
    return LABEL_SPACES[space]


def own_label_space(name: str, rows: Sequence) -> LabelSpace:
    """A user's own label space, from a table such as

        ((1, "road", (128, 64, 128)), (2, "meadow", (152, 251, 152)))

    Args:
      name: what reports call it; none of `LABEL_SPACES`.
      rows: (raw id in the label files, class name, (red, green, blue)) per class.  The
        order is that of the train ids.  Raw ids that no row names are ignored; one
        class may be a row more than once, with other raw ids and the same colour.

    Raises:
      UserError: a row of another form, a raw id or colour out of [0, 255], a raw id
        twice, a class with two colours, or a name that `LABEL_SPACES` has.
    """
    if name in LABEL_SPACES or not name:
        raise UserError(
            f'label space "{name}" cannot have classes of its own: give it a name '
            f"other than {', '.join(LABEL_SPACES)}."
        )
    names, colors = {}, {}
    for row in rows:
        raw, label, color = _checked(row)
        if raw in names:
            raise UserError(
                f'raw id {raw} is both "{names[raw]}" and "{label}" in label space '
                f'"{name}": give it to one class.'
            )
        if colors.setdefault(label, color) != color:
            raise UserError(
                f'class "{label}" of label space "{name}" has the colours '
                f"{colors[label]} and {color}: give it one."
            )
        names[raw] = label
    if not colors:
        raise UserError(
            f'label space "{name}" has no classes: give rows of (raw id, "name", '
            "(red, green, blue))."
        )
    table = tuple((0, label, color) for label, color in colors.items())
    return _space(name, table, _coding(names, range(256)))


def space_of(name: str, rows: Sequence = ()) -> LabelSpace:
    """`own_label_space(name, rows)` where there are rows, else `LABEL_SPACES[name]`.

    Raises:
      UserError: what the one or the other raises.
    """
    return own_label_space(name, rows) if rows else get_label_space(name)


def _checked(row) -> tuple[int, str, tuple[int, int, int]]:
    """A row of an own table, with tuples where JSON has lists."""
    try:
        raw, label, color = row
        color = tuple(color)
        good = isinstance(label, str) and label and len(color) == 3
        good = good and all(type(x) is int and 0 <= x <= 255 for x in (raw, *color))
    except (TypeError, ValueError):
        good = False
    if not good:
        raise UserError(
            f'{row!r} is no row of a class table: write (raw id, "name", (red, green, '
            "blue)) with numbers from 0 to 255."
        )
    return raw, label, color


def get_coding(name: str, space: LabelSpace) -> Coding:
    """What the raw ids of label files mean.

    Args:
      name: key of `CODINGS`; "label_ids" for the ids of the space's own dataset; or
        "train_ids" where the files hold the space's train ids and `IGNORE`.
      space: label space of the run.

    Raises:
      UserError: an unknown name.
    """
    if name == "label_ids":
        return space.coding
    if name == "train_ids":
        return {**dict(enumerate(space.classes)), IGNORE: ""}
    if name not in CODINGS:
        allowed = ("train_ids", "label_ids", *CODINGS)
        raise UserError(
            f'coding "{name}" is unknown{did_you_mean(name, allowed)}: '
            f"choose one of {', '.join(allowed)}."
        )
    return CODINGS[name]


def id_table(space: LabelSpace, coding: Coding) -> dict[int, int]:
    """{raw id: train id}, `IGNORE` for what is no class of the space.

    Raises:
      UserError: the two have no class in common.
    """
    if not set(space.classes) & set(coding.values()):
        fitting = [s.name for s in LABEL_SPACES.values() if s.coding == coding]
        names = ", ".join(sorted({name for name in coding.values() if name}))
        raise UserError(
            f'label space "{space.name}" has no class of these labels ({names}): '
            f"choose {' or '.join(fitting) or 'one that has'}."
        )
    train_ids = {name: train_id for train_id, name in enumerate(space.classes)}
    return {raw: train_ids.get(name, IGNORE) for raw, name in coding.items()}


def lookup(table: Mapping[int, int]) -> np.ndarray:
    """[256] uint8: train id of each raw id; `IGNORE` for raw ids not in the table."""
    result = np.full(256, IGNORE, np.uint8)
    for raw, train_id in table.items():
        result[raw] = train_id
    return result
