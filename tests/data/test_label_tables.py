"""Every raw id of every data set, written out a second time from the publications."""

import numpy as np
import pytest
from small_files import write, write_palette, write_synthia

from uda_jax.data.sources import SOURCES
from uda_jax.labels import CODINGS, get_label_space, id_table

SPACES = ("cityscapes19", "cityscapes16", "crosscity13")
_ = 255  # ignored

# Raw id: train id of 19, 16 and 13 classes.
CITYSCAPES = {
    0: (_, _, _),  # unlabeled
    1: (_, _, _),  # ego vehicle
    2: (_, _, _),  # rectification border
    3: (_, _, _),  # out of roi
    4: (_, _, _),  # static
    5: (_, _, _),  # dynamic
    6: (_, _, _),  # ground
    7: (0, 0, 0),  # road
    8: (1, 1, 1),  # sidewalk
    9: (_, _, _),  # parking
    10: (_, _, _),  # rail track
    11: (2, 2, 2),  # building
    12: (3, 3, _),  # wall
    13: (4, 4, _),  # fence
    14: (_, _, _),  # guard rail
    15: (_, _, _),  # bridge
    16: (_, _, _),  # tunnel
    17: (5, 5, _),  # pole
    18: (_, _, _),  # polegroup
    19: (6, 6, 3),  # traffic light
    20: (7, 7, 4),  # traffic sign
    21: (8, 8, 5),  # vegetation
    22: (9, _, _),  # terrain
    23: (10, 9, 6),  # sky
    24: (11, 10, 7),  # person
    25: (12, 11, 8),  # rider
    26: (13, 12, 9),  # car
    27: (14, _, _),  # truck
    28: (15, 13, 10),  # bus
    29: (_, _, _),  # caravan
    30: (_, _, _),  # trailer
    31: (16, _, _),  # train
    32: (17, 14, 11),  # motorcycle
    33: (18, 15, 12),  # bicycle
}
TRAIN_IDS = {
    0: (0, 0, 0),
    1: (1, 1, 1),
    2: (2, 2, 2),
    3: (3, 3, _),
    4: (4, 4, _),
    5: (5, 5, _),
    6: (6, 6, 3),
    7: (7, 7, 4),
    8: (8, 8, 5),
    9: (9, _, _),
    10: (10, 9, 6),
    11: (11, 10, 7),
    12: (12, 11, 8),
    13: (13, 12, 9),
    14: (14, _, _),
    15: (15, 13, 10),
    16: (16, _, _),
    17: (17, 14, 11),
    18: (18, 15, 12),
    255: (_, _, _),
}
SYNTHIA = {
    0: (_, _, _),  # void
    1: (10, 9, 6),  # sky
    2: (2, 2, 2),  # building
    3: (0, 0, 0),  # road
    4: (1, 1, 1),  # sidewalk
    5: (4, 4, _),  # fence
    6: (8, 8, 5),  # vegetation
    7: (5, 5, _),  # pole
    8: (13, 12, 9),  # car
    9: (7, 7, 4),  # traffic sign
    10: (11, 10, 7),  # pedestrian
    11: (18, 15, 12),  # bicycle
    12: (17, 14, 11),  # motorcycle
    13: (_, _, _),  # parking slot
    14: (_, _, _),  # road work
    15: (6, 6, 3),  # traffic light
    16: (9, _, _),  # terrain
    17: (12, 11, 8),  # rider
    18: (14, _, _),  # truck
    19: (15, 13, 10),  # bus
    20: (16, _, _),  # train
    21: (3, 3, _),  # wall
    22: (_, _, _),  # lane marking
}
TABLES = {
    # Also CrossCity, and ACDC's and Foggy Cityscapes' label ids.
    "cityscapes": {**CITYSCAPES, 255: (_, _, _)},
    # Also ACDC, Dark Zurich, and converted labels of GTA5 and SYNTHIA.
    "cityscapes_train_ids": TRAIN_IDS,
    "gta5": {**CITYSCAPES, 34: (_, _, _)},
    "synthia": SYNTHIA,
}
# One label space each.
OWN_SPACES = {
    "camvid": ("camvid11", {**{i: i for i in range(11)}, 11: _, 255: _}),
    "parking": ("parking7", {**{i: i for i in range(7)}, 255: _}),
}


@pytest.mark.parametrize("coding", TABLES)
@pytest.mark.parametrize("column", range(3))
def test_every_raw_id(coding, column):
    expected = {raw: train_ids[column] for raw, train_ids in TABLES[coding].items()}
    assert id_table(get_label_space(SPACES[column]), CODINGS[coding]) == expected


@pytest.mark.parametrize("coding", OWN_SPACES)
def test_every_raw_id_of_one_label_space(coding):
    space, expected = OWN_SPACES[coding]
    assert id_table(get_label_space(space), CODINGS[coding]) == expected


def test_no_coding_is_left_out():
    assert {*TABLES, *OWN_SPACES} == set(CODINGS)


WRITERS = {"gta5": write_palette, "synthia": write_synthia}
TREES = {
    "gta5": ("images/1.png", "labels/1.png", "gta5", {}),
    "synthia": ("RGB/1.png", "GT/LABELS/1.png", "synthia", {}),
    "cityscapes": (
        "leftImg8bit/val/ulm/u_leftImg8bit.png",
        "gtFine/val/ulm/u_gtFine_labelIds.png",
        "cityscapes",
        {"split": "val"},
    ),
    "crosscity": (
        "Rome/Images/Test/p.jpg",
        "Rome/Labels/Test/p_eval.png",
        "cityscapes",
        {"split": "Test", "city": "Rome"},
    ),
    "acdc": (
        "rgb_anon/val/a_rgb_anon.png",
        "gt/val/a_gt_labelTrainIds.png",
        "cityscapes_train_ids",
        {"split": "val"},
    ),
    "dark_zurich": (
        "rgb_anon/val/night/s/a_rgb_anon.png",
        "gt/val/night/s/a_gt_labelTrainIds.png",
        "cityscapes_train_ids",
        {"split": "val"},
    ),
}


@pytest.mark.parametrize("name", TREES)
def test_every_raw_id_through_its_file(tmp_path, name):
    image, label, coding, options = TREES[name]
    table = TABLES[coding]
    raw = np.array([list(table)], np.uint8)
    write(tmp_path / image, np.zeros((*raw.shape, 3), np.uint8))
    WRITERS.get(name, write)(tmp_path / label, raw)
    for column, space in enumerate(SPACES):
        item = SOURCES[name](tmp_path, label_space=space, **options)[0]
        assert item["label"].tolist() == [[row[column] for row in table.values()]]
