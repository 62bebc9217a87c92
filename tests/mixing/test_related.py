"""Related classes: the published tables by hand, ours by name, and their errors."""

import numpy as np
import pytest

from uda_jax.errors import UserError
from uda_jax.labels import LABEL_SPACES
from uda_jax.mixing import RELATED, related_table


@pytest.mark.parametrize("name", RELATED)
def test_every_class_brings_itself(name):
    table = related_table(name, RELATED[name][0])
    assert table.dtype == bool and table.diagonal().all()


def test_the_published_tables():
    row = lambda name, size, c: np.flatnonzero(related_table(name, size)[c]).tolist()
    assert row("tufl_cityscapes13", 13, 0) == [0, 10, 11, 12]
    assert row("tufl_cityscapes13", 13, 1) == [1, 10, 11]
    assert row("tufl_cityscapes13", 13, 2) == [2, 5, 6, 7]
    assert row("tufl_cityscapes13", 13, 7) == [5, 6, 7]
    assert row("tufl_cityscapes13", 13, 12) == [12]
    assert row("tufl_synthia16", 16, 0) == [0, 10, 11, 12, 13, 14, 15]
    assert row("tufl_synthia16", 16, 14) == [11, 14, 15]
    assert row("tufl_gta19", 19, 0) == [0, 9, 12, 13, 14, 15, 16, 17, 18]
    assert row("tufl_gta19", 19, 2) == [2]
    assert row("tufl_gta19", 19, 8) == [8, 9]
    totals = {"tufl_cityscapes13": 14, "tufl_synthia16": 25, "tufl_gta19": 26}
    for name, total in totals.items():
        size = RELATED[name][0]
        assert related_table(name, size).sum() == size + total


@pytest.mark.parametrize("space", ["crosscity13", "cityscapes16", "cityscapes19"])
def test_the_street_by_name(space):
    classes = LABEL_SPACES[space].classes
    table = related_table(f"street_{space}", len(classes))
    np.testing.assert_array_equal(table, table.T)
    brought = {
        one: {classes[i] for i in np.flatnonzero(row)} - {one}
        for one, row in zip(classes, table, strict=True)
    }
    assert brought["rider"] == {"motorcycle", "bicycle"}
    assert brought["bicycle"] == {"rider"}
    assert brought["traffic light"] == {"pole"} & set(classes)
    assert brought["car"] == brought["sky"] == set()


def test_none_is_the_identity_for_any_number_of_classes():
    np.testing.assert_array_equal(related_table("none", 11), np.eye(11))


def test_errors_say_what_to_choose():
    with pytest.raises(UserError, match='did you mean "tufl_gta19"'):
        related_table("tufl_gta", 19)
    with pytest.raises(
        UserError, match=r"for 19 classes, but there are 13.*none, tufl"
    ):
        related_table("tufl_gta19", 13)
