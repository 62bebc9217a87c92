import numpy as np
import pytest

from uda_jax.errors import UserError
from uda_jax.labels import (
    ID_TABLES,
    IGNORE,
    LABEL_SPACES,
    get_label_space,
    lookup,
    train_id_table,
)

# Label id -> train id as the papers' tables have it, written out a second time.
PUBLISHED = {
    "cityscapes19": "7 8 11 12 13 17 19 20 21 22 23 24 25 26 27 28 31 32 33",
    "cityscapes16": "7 8 11 12 13 17 19 20 21 23 24 25 26 28 32 33",
    "crosscity13": "7 8 11 19 20 21 23 24 25 26 28 32 33",
    "camvid11": "0 1 2 3 4 5 6 7 8 9 10",
}


@pytest.mark.parametrize("name", LABEL_SPACES)
def test_raw_ids_become_the_published_train_ids(name):
    raw_ids = list(map(int, PUBLISHED[name].split()))
    table = lookup(ID_TABLES[name])
    assert table.dtype == np.uint8 and table.shape == (256,)
    np.testing.assert_array_equal(table[raw_ids], np.arange(len(raw_ids)))
    assert np.all(np.delete(table, raw_ids) == IGNORE)


@pytest.mark.parametrize(("name", "last"), [("crosscity13", 33), ("camvid11", 11)])
def test_every_id_that_the_dataset_may_hold_is_known(name, last):
    assert sorted(ID_TABLES[name]) == [*range(last + 1), IGNORE]


@pytest.mark.parametrize(
    ("name", "count"), zip(PUBLISHED, (19, 16, 13, 11), strict=True)
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
    table = lookup(train_id_table(3))
    assert table[[0, 1, 2, 3, IGNORE]].tolist() == [0, 1, 2, IGNORE, IGNORE]


def test_unknown_names_are_explained():
    with pytest.raises(UserError, match='did you mean "crosscity13"'):
        get_label_space("crosscity3")
    with pytest.raises(UserError, match='did you mean "motorcycle"'):
        LABEL_SPACES["crosscity13"].train_ids(("motorcycel",))
