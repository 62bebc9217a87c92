import numpy as np
import pytest

from uda_jax.errors import UserError
from uda_jax.labels import (
    CODINGS,
    IGNORE,
    LABEL_SPACES,
    get_coding,
    get_label_space,
    id_table,
    lookup,
    own_label_space,
    space_of,
)

# Label id -> train id as the papers' tables have it, written out a second time.
PUBLISHED = {
    "cityscapes19": "7 8 11 12 13 17 19 20 21 22 23 24 25 26 27 28 31 32 33",
    "cityscapes16": "7 8 11 12 13 17 19 20 21 23 24 25 26 28 32 33",
    "crosscity13": "7 8 11 19 20 21 23 24 25 26 28 32 33",
    "camvid11": "0 1 2 3 4 5 6 7 8 9 10",
    "parking7": "0 1 2 3 4 5 6",
}


def own_table(name):
    space = LABEL_SPACES[name]
    return id_table(space, space.coding)


@pytest.mark.parametrize("name", LABEL_SPACES)
def test_raw_ids_become_the_published_train_ids(name):
    raw_ids = list(map(int, PUBLISHED[name].split()))
    table = lookup(own_table(name))
    assert table.dtype == np.uint8 and table.shape == (256,)
    np.testing.assert_array_equal(table[raw_ids], np.arange(len(raw_ids)))
    assert np.all(np.delete(table, raw_ids) == IGNORE)


@pytest.mark.parametrize(("name", "last"), [("crosscity13", 33), ("camvid11", 11)])
def test_every_id_that_the_dataset_may_hold_is_known(name, last):
    assert sorted(own_table(name)) == [*range(last + 1), IGNORE]


@pytest.mark.parametrize(
    ("name", "count"), zip(PUBLISHED, (19, 16, 13, 11, 7), strict=True)
)
def test_a_label_space_is_complete(name, count):
    space = get_label_space(name)
    assert space.name == name
    assert space.num_classes == len(set(space.classes)) == count
    assert space.colors.shape == (count, 3) and space.colors.dtype == np.uint8
    assert len({tuple(color) for color in space.colors}) == count


def test_crosscity_classes_and_colours():
    space = LABEL_SPACES["crosscity13"]
    assert space.classes == (
        "road",
        "sidewalk",
        "building",
        "traffic light",
        "traffic sign",
        "vegetation",
        "sky",
        "person",
        "rider",
        "car",
        "bus",
        "motorcycle",
        "bicycle",
    )
    assert tuple(space.colors[0]) == (128, 64, 128)
    assert tuple(space.colors[9]) == (0, 0, 142)


def test_the_smaller_spaces_keep_names_and_colours_of_the_19():
    large = LABEL_SPACES["cityscapes19"]
    for name in ("cityscapes16", "crosscity13"):
        small = LABEL_SPACES[name]
        rows = large.train_ids(small.classes)
        assert sorted(rows) == list(rows)
        np.testing.assert_array_equal(large.colors[list(rows)], small.colors)


def test_train_ids_are_the_identity():
    space = LABEL_SPACES["parking7"]
    table = id_table(space, get_coding("train_ids", space))
    assert table == {**{i: i for i in range(7)}, IGNORE: IGNORE}


def test_unknown_names_are_explained():
    with pytest.raises(UserError, match='did you mean "crosscity13"'):
        get_label_space("crosscity3")
    with pytest.raises(UserError, match='did you mean "motorcycle"'):
        LABEL_SPACES["crosscity13"].train_ids(("motorcycel",))
    with pytest.raises(UserError, match='did you mean "cityscapes"'):
        get_coding("cityscape", LABEL_SPACES["crosscity13"])


def test_a_dataset_goes_with_every_space_that_shares_a_class():
    table = id_table(LABEL_SPACES["camvid11"], CODINGS["cityscapes"])
    assert (table[7], table[26], table[33]) == (3, 8, IGNORE)  # road, car, bicycle
    with pytest.raises(UserError, match=r"no class of these labels .*13"):
        id_table(LABEL_SPACES["parking7"], CODINGS["cityscapes"])


ROWS = ((3, "soil", (120, 80, 40)), (7, "crop", (60, 160, 40)))


def test_an_own_label_space():
    # As JSON has it; two raw ids of one class; the order is that of the train ids.
    space = space_of("farm", [list(row) for row in (*ROWS, (9, "soil", (120, 80, 40)))])
    assert space.classes == ("soil", "crop") and space.num_classes == 2
    assert space.colors.tolist() == [[120, 80, 40], [60, 160, 40]]
    table = lookup(id_table(space, get_coding("label_ids", space)))
    assert table[[3, 7, 9, 0, 255]].tolist() == [0, 1, 0, IGNORE, IGNORE]
    assert space_of("crosscity13") is LABEL_SPACES["crosscity13"]


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("crosscity13", ROWS, "give it a name other than"),
        ("", ROWS, "give it a name"),
        ("farm", (), "has no classes"),
        ("farm", (*ROWS, (3, "weed", (0, 0, 0))), 'raw id 3 is both "soil" and "weed"'),
        ("farm", (*ROWS, (4, "crop", (0, 0, 0))), "has the colours"),
        ("farm", ((3, "soil"),), r"\(3, 'soil'\) is no row"),
        ("farm", ((256, "soil", (0, 0, 0)),), "is no row"),
        ("farm", ((3, "soil", (0, 0, 300)),), "is no row"),
        ("farm", ((True, "soil", (0, 0, 0)),), "is no row"),
        ("farm", (3,), "3 is no row"),
    ],
)
def test_own_tables_that_cannot_be_used(name, rows, message):
    with pytest.raises(UserError, match=message):
        own_label_space(name, rows)
