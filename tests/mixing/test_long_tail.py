"""The bank of long-tail crops: what it keeps, what is drawn and what is pasted."""

import jax
import numpy as np
import pytest

from uda_jax import mixing
from uda_jax.labels import IGNORE

C, SIZE = 5, (4, 6)

refresh_bank = jax.jit(mixing.refresh_bank)
draw_classes = jax.jit(
    mixing.draw_classes, static_argnums=(3, 4), static_argnames="replace"
)
paste_classes = jax.jit(mixing.paste_classes)


def crops(*classes, seed=0):
    rng = np.random.default_rng(seed)
    shape = (len(classes), *SIZE)
    return {
        "image": rng.integers(0, 256, (*shape, 3), dtype=np.uint8),
        "label": rng.integers(0, C, shape, dtype=np.uint8),
        "class": np.array(classes, np.int32),
    }


def full_bank():
    """Crop c has the colour 10 c; its columns hold 0, 1, 2, 3, 4, IGNORE."""
    image = np.zeros((C, *SIZE, 3), np.uint8)
    image += 10 * np.arange(C, dtype=np.uint8)[:, None, None, None]
    label = np.broadcast_to(np.array([0, 1, 2, 3, 4, IGNORE], np.uint8), (C, *SIZE))
    return {"image": image, "label": label, "filled": np.ones(C, bool)}


def test_an_empty_bank_holds_nothing():
    bank = mixing.empty_bank(C, SIZE)
    assert bank["image"].shape == (C, *SIZE, 3) and bank["image"].dtype == np.uint8
    assert bank["label"].dtype == np.uint8 and (bank["label"] == IGNORE).all()
    assert not bank["filled"].any()


def test_the_bank_keeps_the_latest_crop_of_each_class():
    first = crops(3, 1, 3, IGNORE)
    bank = refresh_bank(mixing.empty_bank(C, SIZE), first)
    np.testing.assert_array_equal(bank["filled"], [False, True, False, True, False])
    for key in ("image", "label"):
        np.testing.assert_array_equal(bank[key][1], first[key][1])
        np.testing.assert_array_equal(bank[key][3], first[key][2])
    second = crops(IGNORE, 0, 0, 1, seed=1)
    later = refresh_bank(bank, second)
    np.testing.assert_array_equal(later["filled"], [True, True, False, True, False])
    for key in ("image", "label"):
        np.testing.assert_array_equal(later[key][0], second[key][2])
        np.testing.assert_array_equal(later[key][1], second[key][3])
        np.testing.assert_array_equal(later[key][2:], bank[key][2:])
    untouched = refresh_bank(later, crops(*[IGNORE] * 4, seed=2))
    jax.tree.map(np.testing.assert_array_equal, untouched, later)
    assert refresh_bank._cache_size() == 1


def test_draws_follow_the_softmax_over_the_filled_ones():
    thresholds = np.array([0.9, 0.5, 0.3, 0.8, 0.7], np.float32)
    filled = np.array([True, True, False, True, True])
    expected = np.where(filled, np.exp(1 / thresholds), 0)
    expected /= expected.sum()
    count = 20_000
    draw = lambda replace: np.array(
        draw_classes(
            jax.random.key(0), 1 / thresholds, filled, count, 2, replace=replace
        )
    )
    with_replacement = draw(True)
    assert with_replacement.dtype == np.int32
    again = (with_replacement[:, 0] == with_replacement[:, 1]).mean()
    assert abs(again - (expected**2).sum()) < 0.015
    # Without, the first is drawn alike and the second among the rest.
    without = draw(False)
    assert (without[:, 0] != without[:, 1]).all()
    for drawn in (*with_replacement.T, without[:, 0]):
        share = np.bincount(drawn, minlength=C) / count
        np.testing.assert_allclose(share, expected, atol=0.015)  # four deviations
    second = without[without[:, 0] == 1, 1]
    rest = np.where(np.arange(C) == 1, 0, expected)
    share = np.bincount(second, minlength=C) / len(second)
    np.testing.assert_allclose(share, rest / rest.sum(), atol=0.03)


@pytest.mark.parametrize("replace", [True, False])
def test_draws_depend_on_the_place_alone(replace):
    draw = lambda batch_size: draw_classes(
        jax.random.key(7), np.zeros(C), np.ones(C, bool), batch_size, 3, replace=replace
    )
    drawn = np.array(draw(8))
    np.testing.assert_array_equal(draw(1), drawn[:1])
    assert len(np.unique(drawn, axis=0)) > 1


def test_draws_from_too_few_are_ignored():
    filled = np.arange(C) == 2
    draw = lambda filled, replace: draw_classes(
        jax.random.key(1), np.zeros(C), filled, 8, 3, replace=replace
    )
    np.testing.assert_array_equal(draw(filled, True), 2)
    np.testing.assert_array_equal(draw(filled, False), [[2, IGNORE, IGNORE]] * 8)
    for replace in (True, False):
        np.testing.assert_array_equal(draw(filled & False, replace), IGNORE)


def pasted(classes, counts, table=None, bank=None):
    """Onto a batch of colour 200, label 1, with a mask on its first row."""
    batch_size = len(classes)
    image = np.full((batch_size, *SIZE, 3), 200, np.float32)
    label = np.ones((batch_size, *SIZE), np.uint8)
    mask = np.zeros((batch_size, *SIZE), bool)
    mask[:, 0] = True
    table = np.eye(C, dtype=bool) if table is None else table
    classes, counts = np.array(classes, np.int32), np.array(counts, np.int32)
    return paste_classes(
        image, label, mask, bank or full_bank(), classes, counts, table
    )


def test_pasting_by_hand():
    table = np.eye(C, dtype=bool)
    table[3, 4] = table[4, 3] = True
    # First 2, then 3 with 4; then 4 with 3 over it; IGNORE is never pasted.
    image, label, mask = pasted([[2, 3, 4]] * 3, [0, 2, 3], table)
    assert image.dtype == np.float32 and label.dtype == np.uint8 and mask.dtype == bool
    row = lambda x, example: np.array(x)[example, 1].tolist()
    np.testing.assert_array_equal(image[..., 0], image[..., 2])
    assert row(image[..., 0], 0) == [200] * 6 and row(label, 0) == [1] * 6
    assert row(image[..., 0], 1) == [200, 200, 20, 30, 30, 200]
    assert row(image[..., 0], 2) == [200, 200, 20, 40, 40, 200]
    for example in (1, 2):
        assert row(label, example) == [1, 1, 2, 3, 4, 1]
        assert row(mask, example) == [False, False, True, True, True, False]
    assert np.array(mask)[:, 0].all()


@pytest.mark.parametrize("batch_size", [1, 8])
def test_labels_are_pasted_with_their_pixels(batch_size):
    """Image = paint[label], before and after; one example as in a batch of many."""
    paint = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)
    bank = crops(*range(C), seed=4)
    bank = {
        "image": paint[bank["label"]],
        "label": bank["label"],
        "filled": bank["class"] != 3,
    }
    label = np.full((batch_size, *SIZE), IGNORE, np.uint8)
    classes = np.array([[0, 3], [3, 4], [IGNORE, 1], [2, 2]] * 2, np.int32)[:batch_size]
    image, label, mask = paste_classes(
        paint[label].astype(np.float32),
        label,
        label != IGNORE,
        bank,
        classes,
        np.full(batch_size, 2, np.int32),
        np.eye(C, dtype=bool),
    )
    np.testing.assert_array_equal(image, paint[np.array(label)])
    # Onto an unlabelled image: labelled is what was pasted, of the chosen classes.
    np.testing.assert_array_equal(mask, np.array(label) != IGNORE)
    for one, chosen in zip(np.array(label), classes, strict=True):
        assert set(np.unique(one)) == ({*chosen.tolist()} - {3}) | {IGNORE}


def test_nothing_comes_out_of_an_empty_bank():
    bank = jax.tree.map(np.array, mixing.empty_bank(C, SIZE))
    bank["label"][:] = 2  # even if it had labels
    image, label, mask = pasted([[2, 3, IGNORE]] * 3, [3] * 3, bank=bank)
    assert (image == 200).all() and (label == 1).all()
    assert not mask[:, 1:].any()
