import json

import jax
import numpy as np
import pytest
from conftest import ROOT

from uda_jax.acquisition import RARE, easy_count, entropy_score, ranking, rare_factor
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
