import functools
import json

import jax
import numpy as np
import pytest
from conftest import ROOT

from uda_jax.acquisition import (
    RARE,
    STRATEGIES,
    confidence_map,
    easy_count,
    entropy_map,
    entropy_score,
    image_scores,
    iou_map,
    random_scores,
    ranking,
    rare_factor,
    select,
)
from uda_jax.errors import UserError
from uda_jax.labels import LABEL_SPACES


def test_the_score_equals_the_original():
    golden = json.loads((ROOT / "tests/goldens/maxsquare_advent.json").read_text())
    logits = np.random.RandomState(10).randn(1, 19, 8, 12) * 3
    probs = jax.nn.softmax(np.moveaxis(logits, 1, -1).astype(np.float32))
    expected = golden["advent_prob2entropy_mean"]["loss"]
    np.testing.assert_allclose(entropy_score(probs), [expected], rtol=1e-5)


def test_the_score_by_hand():
    certain, even = np.eye(4)[[[0, 1], [2, 2]]], np.full((2, 2, 4), 0.25)
    half = np.tile([0.5, 0.5, 0, 0], (2, 2, 1))
    scores = entropy_score(np.stack([certain, even, half]).astype(np.float32))
    np.testing.assert_allclose(scores, [0, 1 / 4, 1 / 8], atol=1e-7)


def test_the_normaliser_by_hand():
    classes = LABEL_SPACES["cityscapes19"].classes
    assert [classes.index(name) for name in RARE] == [
        3,
        4,
        5,
        6,
        7,
        9,
        12,
        *range(14, 18),
    ]
    present = np.zeros((4, 19), bool)
    present[1:, [0, 1, 2]] = True  # not rare
    present[2, [3, 9, 17]] = True
    present[3] = True
    np.testing.assert_allclose(
        rare_factor(present, classes), [1.5, 1.5, 8 / 11 + 0.5, 0.5]
    )
    thirteen = LABEL_SPACES["crosscity13"].classes  # has five of them
    np.testing.assert_allclose(rare_factor(np.ones((1, 13), bool), thirteen), [0.5])
    with pytest.raises(UserError, match="the label space has none of wall"):
        rare_factor(np.ones((1, 2), bool), ("sky", "road"))


def test_equal_scores_keep_their_order():
    order = ranking(np.array([0.3, 0.1, 0.3, 0.1, 0.2]))
    assert order.tolist() == [1, 3, 4, 0, 2]


@pytest.mark.parametrize(
    ("count", "fraction", "easy"),
    [(2975, 0.67, 1993), (3, 0.67, 2), (10, 1.0, 10), (1, 1.0, 1), (2, 0.5, 1)],
)
def test_sizes_of_the_parts(count, fraction, easy):
    assert easy_count(count, fraction) == easy


@pytest.mark.parametrize(
    ("count", "fraction", "words"),
    [(1, 0.67, "leaves no easy one"), (9, 0.0, r"\(0, 1\]"), (9, 1.5, r"\(0, 1\]")],
)
def test_a_part_without_images_is_refused(count, fraction, words):
    with pytest.raises(UserError, match=words):
        easy_count(count, fraction)


# --- Active rounds (SS-ADA) -----------------------------------------------------------


@pytest.fixture(scope="module")
def golden():
    with np.load(ROOT / "tests/goldens/tufl_ssada.npz") as file:
        return {k[6:]: file[k] for k in file.files if k.startswith("ssada/")}


scored = functools.partial(jax.jit, static_argnums=0)(image_scores)


def test_the_maps_equal_the_original(golden):
    probs = jax.nn.softmax(np.moveaxis(golden["z"], 1, -1))
    confidence, iou = confidence_map(probs), iou_map(probs, golden["ious"])
    np.testing.assert_allclose(entropy_map(probs), golden["entropy"], rtol=1e-5)
    np.testing.assert_allclose(confidence, golden["confidence"], rtol=1e-5)
    np.testing.assert_array_equal(iou, golden["iou_score"])
    # A confidence threshold of its own for each class: its IoU times rho.
    np.testing.assert_array_equal(confidence >= 0.7 * iou, golden["conf_mask_r0.7"])


def test_the_highest_scores_are_those_the_original_takes(golden):
    probs = jax.nn.softmax(np.moveaxis(golden["z"], 1, -1))
    maps = {name: golden[name].mean((1, 2)) for name in ("entropy", "confidence")}
    iou = golden["iou_score"].mean((1, 2))
    expected = {
        "entropy": maps["entropy"],
        "confidence": 1 - maps["confidence"],
        "iou": 1 - iou,
        "entropy_iou_sum": maps["entropy"] + 1 - iou,
    }
    assert {*expected, "random"} == set(STRATEGIES)
    for strategy, scores in expected.items():
        ours = scored(strategy, probs, golden["ious"])
        assert ours.shape == (2,) and ours.dtype == np.float32
        np.testing.assert_allclose(ours, scores, rtol=1e-5)


def test_scores_by_hand():
    sure, unsure = np.array([0.0, 1.0]), np.array([0.5, 0.5])  # classes 1 and 0
    probs = np.stack([[[sure, sure]], [[sure, unsure]]]).astype(np.float32)
    iou = np.array([0.2, 0.8], np.float32)
    for strategy, expected in {
        "entropy": [0, 0.5],
        "confidence": [0, 0.25],
        "iou": [0.2, 0.5],
        "entropy_iou_sum": [0.2, 1.0],
    }.items():
        scores = scored(strategy, probs, iou)
        np.testing.assert_allclose(scores, expected, atol=1e-6)
    np.testing.assert_allclose(image_scores("entropy", probs), [0, 0.5], atol=1e-6)


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ("entropi", r'mean "entropy"\?\); allowed are entropy, confidence, iou'),
        ("random", "take random_scores"),
        ("iou", "needs class_iou"),
        ("entropy_iou_sum", "needs class_iou"),
    ],
)
def test_a_strategy_that_cannot_score_is_refused(strategy, words):
    with pytest.raises(UserError, match=words):
        image_scores(strategy, np.full((1, 2, 2, 2), 0.5))


def test_random_scores_belong_to_names():
    names = [f"{i}.png" for i in range(50)]
    scores = random_scores(names, seed=1, round_index=0)
    assert len(set(scores)) == 50 and scores.min() >= 0 and scores.max() < 1
    back = random_scores(names[::-1], seed=1, round_index=0)
    np.testing.assert_array_equal(back[::-1], scores)
    for seed, turn in ((2, 0), (1, 1), (0, 1)):
        assert np.all(random_scores(names, seed=seed, round_index=turn) != scores)
    assert random_scores([], seed=1, round_index=0).shape == (0,)


def test_the_highest_are_selected_and_equal_ones_by_name():
    names, scores = ["d", "b", "c", "a"], np.array([0.5, 0.5, 0.9, 0.1])
    assert select(names, scores, 2) == [2, 1]
    assert select(names, scores, 4) == [2, 1, 0, 3]
    assert select(names, np.zeros(4), 3) == [3, 1, 2]
    assert select(names, scores, 0) == select([], [], 0) == []


@pytest.mark.parametrize(
    ("scores", "count", "words"),
    [
        ([1, 2], 3, "count is 3, but 2 images"),
        ([1, 2], -1, "from 0 to 2"),
        ([1, np.nan], 1, "score of b is nan"),
        ([np.inf, 1], 1, "score of a is inf"),
        ([1, 2, 3], 1, "one score for each"),
    ],
)
def test_a_selection_that_cannot_be_made_is_refused(scores, count, words):
    with pytest.raises(UserError, match=words):
        select(["a", "b"], scores, count)
