"""Which classes come along when a class is chosen: tables by name.

The "tufl_*" tables are TUFL's (released code): a chosen class brings what is usually
seen with it, such as a road what drives on it.  The one for 13 classes cannot be meant
as it is: it has the numbers of SYNTHIA's 16 classes, where 5, 6, 7 are pole, light and
sign; of the 13 they are vegetation, sky and person.

The "street_*" tables are ours.  Only what belongs to one object comes along: a
motorcycle or bicycle with its rider, a traffic light or sign with its pole, each both
ways.  What is merely near (the cars on a road, the sky above a building) stays, for it
would make the choice nearly the whole image.
"""

import numpy as np

from uda_jax.errors import UserError, did_you_mean
from uda_jax.labels import LABEL_SPACES

_STREET = (
    ("rider", "motorcycle"),
    ("rider", "bicycle"),
    ("pole", "traffic light"),
    ("pole", "traffic sign"),
)


def _street(space: str) -> tuple[int, dict[int, tuple[int, ...]]]:
    classes = LABEL_SPACES[space].classes
    rows = {}
    for pair in _STREET:
        if set(pair) <= set(classes):
            for one, other in (pair, pair[::-1]):
                rows.setdefault(classes.index(one), []).append(classes.index(other))
    return len(classes), {one: tuple(others) for one, others in rows.items()}


# Name -> (number of classes, {train id: train ids of the classes that it brings}).
RELATED: dict[str, tuple[int, dict[int, tuple[int, ...]]]] = {
    "tufl_cityscapes13": (
        13,
        {0: (10, 11, 12), 1: (10, 11), 2: (5, 6, 7), 5: (6, 7), 6: (5, 7), 7: (5, 6)},
    ),
    "tufl_synthia16": (
        16,
        {
            0: (10, 11, 12, 13, 14, 15),
            1: (10, 11, 14, 15),
            2: (5, 6, 7),
            **{5: (6, 7), 6: (5, 7), 7: (5, 6)},
            **{11: (14, 15), 14: (11, 15), 15: (11, 14)},
        },
    ),
    "tufl_gta19": (
        19,
        {
            0: (9, 12, 13, 14, 15, 16, 17, 18),
            1: (9, 11),
            **{3: (4,), 4: (3,)},
            **{5: (6, 7), 6: (5, 7), 7: (5, 6)},
            **{8: (9,), 9: (8,)},
            **{12: (17, 18), 17: (12, 18), 18: (12, 17)},
        },
    ),
    "street_crosscity13": _street("crosscity13"),
    "street_cityscapes16": _street("cityscapes16"),
    "street_cityscapes19": _street("cityscapes19"),
}


def related_table(name: str, num_classes: int) -> np.ndarray:
    """A table of `RELATED` as an array; "none" relates each class to itself alone.

    Args:
      name: "none" or key of `RELATED`.
      num_classes: C.

    Returns:
      bool [C, C]: row c holds the classes that c brings, itself among them.

    Raises:
      UserError: no such table, or one for another number of classes.
    """
    table = np.eye(num_classes, dtype=bool)
    if name == "none":
        return table
    if name not in RELATED:
        allowed = ("none", *RELATED)
        raise UserError(
            f'table of related classes "{name}" is unknown{did_you_mean(name, allowed)}'
            f": choose one of {', '.join(allowed)}."
        )
    expected, rows = RELATED[name]
    if expected != num_classes:
        fitting = [key for key, (count, _) in RELATED.items() if count == num_classes]
        raise UserError(
            f'table of related classes "{name}" is for {expected} classes, but there '
            f"are {num_classes}: choose one of {', '.join(('none', *fitting))}."
        )
    for one, others in rows.items():
        table[one, list(others)] = True
    return table
