"""Rounds of labelling, against the plans of the released program."""

import json

import numpy as np
import pytest
from conftest import ROOT

from uda_jax.errors import UserError
from uda_jax.round_plan import epoch_start, plan_rounds

with np.load(ROOT / "tests/goldens/tufl_ssada.npz") as file:
    PUBLISHED = json.loads(str(file["ssada/ac_iters_json"]))


@pytest.mark.parametrize("theirs", PUBLISHED, ids=lambda row: str(row["total_iters"]))
def test_the_plan_equals_the_original(theirs):
    plan = plan_rounds(
        theirs["n"],
        theirs["bs"],
        theirs["init"],
        theirs["total"],
        theirs["rounds"],
        theirs["epochs"],
    )
    assert list(plan.increments) == theirs["incr"]
    assert list(plan.iterations_per_epoch) == theirs["dataloader_iters"]
    assert list(plan.begin) == theirs["begin"]
    assert plan.total_steps == theirs["total_iters"]
    assert plan.total_samples == theirs["total_samples"]
    starts = {epoch: epoch_start(plan, int(epoch)) for epoch in theirs["epoch_init"]}
    assert starts == theirs["epoch_init"]
    assert [epoch_start(plan, epoch) for epoch in plan.rounds] == theirs["begin"]
    assert plan.labelled[0] == int(theirs["n"] * theirs["init"] + 0.5)
    assert plan.labelled[-1] == int(theirs["n"] * theirs["total"] + 0.5)


def test_a_plan_by_hand():
    plan = plan_rounds(10, 2, 0.1, 0.8, rounds=(2, 3), epochs=5)
    assert plan.increments == (3, 4) and plan.labelled == (1, 4, 8)
    assert plan.iterations_per_epoch == (4, 3, 4)  # of 9, 6 and 8 images
    assert plan.begin == (8, 11) and plan.total_steps == 19
    assert plan.total_samples == 38
    assert [epoch_start(plan, e) for e in range(6)] == [0, 4, 8, 11, 15, 19]


GOOD = dict(
    num_images=10, batch_size=2, init_share=0.1, total_share=0.8, rounds=(2,), epochs=5
)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (dict(num_images=0), "num_images is 0"),
        (dict(batch_size=0), "batch_size is 0"),
        (dict(epochs=0), "epochs is 0"),
        (dict(init_share=-0.1), r"init_share is -0\.1"),
        (dict(total_share=50), "total_share is 50"),
        (dict(total_share=float("nan")), "total_share is nan"),
        (dict(init_share=0.9), r"total_share=0\.8 is below init_share=0\.9"),
        (dict(rounds=()), "rounds is empty"),
        (dict(rounds=(0,)), "increasing epochs above 0"),
        (dict(rounds=(5,)), "below epochs=5"),
        (dict(rounds=(3, 2)), "increasing"),
        (dict(rounds=(2, 2)), "increasing"),
        (dict(init_share=0.8), "0 images to label"),
        (dict(total_share=0.2, rounds=(1, 2)), "raise total_share"),
        (dict(batch_size=9), "batch_size=9 is larger"),
    ],
)
def test_an_impossible_plan_is_refused(changed, words):
    with pytest.raises(UserError, match=words):
        plan_rounds(**GOOD | changed)


@pytest.mark.parametrize("epoch", [-1, 6])
def test_an_epoch_outside_of_the_training(epoch):
    with pytest.raises(UserError, match="from 0 to 5"):
        epoch_start(plan_rounds(**GOOD), epoch)


def test_entries_for_a_config():
    plan = plan_rounds(140, 4, 0.01, 0.5, (20, 40, 60), 200)
    assert plan.entries == ((0, 1), (680, 23), (1260, 23), (1720, 23))
    plan = plan_rounds(2975, 4, 0.0, 1.0, (10, 20, 30, 40, 50), 120)
    assert plan.entries[0] == (7430, 595)  # nothing has a label before
