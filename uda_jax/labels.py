"""Label spaces as tables: class names, colours, and raw ids to train ids.

A train id is in [0, number of classes) or `IGNORE`.  Raw ids of a dataset exist only in
its files; the readers of `uda_jax.data.sources` translate them by these tables.

Sources: the Cityscapes label definition (Cordts et al., CVPR 2016) for names, colours
and ids; TUFL (Yan et al., T-ITS 2023) for its 16- and 13-class subsets; CamVid (Brostow
et al., ECCV 2008) in the 11-class form of SegNet.
"""

import dataclasses
from collections.abc import Mapping

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
# The files hold 0..33; 255 stands for -1, the licence plate.
_CITYSCAPES_RAW_IDS = (*range(34), IGNORE)

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
_CAMVID_RAW_IDS = (*range(12), IGNORE)  # 11 is void

# Classes of the 19 that SYNTHIA (16) and CrossCity (13) lack.
_NOT_IN_16 = ("terrain", "truck", "train")
_NOT_IN_13 = (*_NOT_IN_16, "wall", "fence", "pole")


@dataclasses.dataclass(frozen=True, eq=False)
class LabelSpace:
    """The classes that a network tells apart, in the order of their train ids.

    Attributes:
      name: key in `LABEL_SPACES`.
      classes: [C] class names.
      colors: [C, 3] uint8 RGB.
      coding: which dataset's raw ids `ID_TABLES[name]` translates.
    """

    name: str
    classes: tuple[str, ...]
    colors: np.ndarray
    coding: str

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


def _space(name: str, coding: str, rows: tuple) -> LabelSpace:
    colors = np.array([color for _, _, color in rows], np.uint8)
    colors.flags.writeable = False
    return LabelSpace(name, tuple(row[1] for row in rows), colors, coding)


def _id_table(rows: tuple, raw_ids: tuple[int, ...]) -> dict[int, int]:
    train_ids = {raw: train_id for train_id, (raw, _, _) in enumerate(rows)}
    return {raw: train_ids.get(raw, IGNORE) for raw in raw_ids}


def _without(names: tuple[str, ...]) -> tuple:
    return tuple(row for row in _CITYSCAPES if row[1] not in names)


_ROWS = {
    "cityscapes19": ("cityscapes", _CITYSCAPES, _CITYSCAPES_RAW_IDS),
    "cityscapes16": ("cityscapes", _without(_NOT_IN_16), _CITYSCAPES_RAW_IDS),
    "crosscity13": ("cityscapes", _without(_NOT_IN_13), _CITYSCAPES_RAW_IDS),
    "camvid11": ("camvid", _CAMVID, _CAMVID_RAW_IDS),
}

LABEL_SPACES: dict[str, LabelSpace] = {
    name: _space(name, coding, rows) for name, (coding, rows, _) in _ROWS.items()
}

# Label space -> {raw id: train id}.  Every id that the dataset may contain is a key,
# ignored ones with the value IGNORE; an id that is no key is a mistake in the data.
ID_TABLES: dict[str, dict[int, int]] = {
    name: _id_table(rows, raw_ids) for name, (_, rows, raw_ids) in _ROWS.items()
}


def get_label_space(name: str) -> LabelSpace:
    """`LABEL_SPACES[name]`.

    Raises:
      UserError: no such label space.
    """
    if name not in LABEL_SPACES:
        raise UserError(
            f'label space "{name}" is unknown{did_you_mean(name, LABEL_SPACES)}: '
            f"choose one of {', '.join(LABEL_SPACES)}."
        )
    return LABEL_SPACES[name]


def train_id_table(num_classes: int) -> dict[int, int]:
    """The table of labels that are train ids already: 0..C-1 and `IGNORE`."""
    return {train_id: train_id for train_id in (*range(num_classes), IGNORE)}


def lookup(table: Mapping[int, int]) -> np.ndarray:
    """[256] uint8: train id of each raw id; `IGNORE` for raw ids not in the table."""
    result = np.full(256, IGNORE, np.uint8)
    for raw, train_id in table.items():
        result[raw] = train_id
    return result
