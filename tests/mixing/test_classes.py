"""Choosing classes: the original's masks and picks, and properties of the choice."""

from pathlib import Path

import jax
import numpy as np
import pytest

from uda_jax import mixing
from uda_jax.labels import IGNORE

GOLDENS = Path(__file__).parents[1] / "goldens" / "tufl_ssada.npz"

present_classes = jax.jit(
    mixing.present_classes,
    static_argnums=1,
    static_argnames=("with_ignore", "per_batch"),
)
random_ranks = jax.jit(mixing.random_ranks, static_argnames="per_batch")
half_of = jax.jit(mixing.half_of)
class_mask = jax.jit(mixing.class_mask)
expand_related = jax.jit(mixing.expand_related)

C = 13


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDENS) as file:
        return {k[5:]: file[k] for k in file.files if k.startswith("tufl/")}


def members(*sets):
    """bool [B, C + 1]; IGNORE is the last slot."""
    result = np.zeros((len(sets), C + 1), bool)
    for row, classes in zip(result, sets, strict=True):
        row[[min(c, C) for c in classes]] = True
    return result


# All 13 classes, three, one, none.
LABEL = np.full((4, 4, 5), IGNORE, np.uint8)
LABEL[0, :, :4] = np.arange(16).reshape(4, 4) % C
LABEL[1, 0] = (2, 2, 7, 12, IGNORE)
LABEL[2] = 9
HELD = (range(C), (2, 7, 12), (9,), ())


def test_present_classes_by_hand():
    expected = members(*HELD)
    np.testing.assert_array_equal(present_classes(LABEL, C), expected)
    expected[[0, 1, 3], C] = True
    with_ignore = present_classes(LABEL, C, with_ignore=True)
    np.testing.assert_array_equal(with_ignore, expected)
    # Any label that is no class falls into the same slot.
    void = np.where(LABEL == IGNORE, C, LABEL)
    np.testing.assert_array_equal(present_classes(void, C), members(*HELD))


def test_present_classes_of_a_batch():
    found = present_classes(LABEL[1:], C, with_ignore=True, per_batch=True)
    np.testing.assert_array_equal(found, members(*[(2, 7, 12, 9, IGNORE)] * 3))


def test_half_is_rounded_up():
    present = members((), (1,), (1, 2), (1, 2, IGNORE), range(C))
    np.testing.assert_array_equal(half_of(present), [0, 1, 1, 2, 7])


def test_class_mask_equals_the_originals(golden):
    label = golden["in_lb"][:1]
    mask = class_mask(label, members((1, 3, IGNORE)))
    np.testing.assert_array_equal(mask[0], golden["class_mask_1_3_255"])


@pytest.mark.parametrize("batch_size", [1, 8])
def test_masks_of_a_choice_and_of_the_rest_partition_the_labelled(batch_size):
    label = np.resize(LABEL, (batch_size, 4, 5))
    for with_ignore in (False, True):
        present = present_classes(label, C, with_ignore=with_ignore)
        ranks = random_ranks(jax.random.key(3), present)
        chosen = ranks < half_of(present)[:, None]
        np.testing.assert_array_equal(chosen.sum(1), half_of(present))
        assert not np.any(chosen & ~present)
        mask, rest = class_mask(label, chosen), class_mask(label, present & ~chosen)
        assert mask.dtype == bool and not np.any(mask & rest)
        np.testing.assert_array_equal(mask | rest, with_ignore | (label < C))


def test_all_ignored_chooses_nothing():
    label = np.full((1, 4, 5), IGNORE, np.uint8)
    present = present_classes(label, C)
    ranks = random_ranks(jax.random.key(0), present)
    np.testing.assert_array_equal(ranks, C + 1)
    assert not class_mask(label, ranks < half_of(present)[:, None]).any()


def test_ranks_are_every_order_alike():
    present = np.broadcast_to(members((0, 5, IGNORE)), (6000, C + 1))
    ranks = np.array(random_ranks(jax.random.key(1), present))
    assert (ranks[~present] == C + 1).all()
    orders, counts = np.unique(ranks[:, [0, 5, C]], axis=0, return_counts=True)
    assert len(orders) == 6 and (np.sort(orders, 1) == [0, 1, 2]).all()
    assert np.abs(counts - 1000).max() < 120  # four standard deviations


def test_ranks_depend_on_the_place_alone():
    present = members(*[range(C)] * 8)
    ranks = np.array(random_ranks(jax.random.key(2), present))
    np.testing.assert_array_equal(
        random_ranks(jax.random.key(2), present[:3]), ranks[:3]
    )
    assert len(np.unique(ranks, axis=0)) == 8
    shared = np.array(random_ranks(jax.random.key(2), present, per_batch=True))
    assert (shared == shared[0]).all()


def ranks_of(order, present):
    ranks = np.full((1, C + 1), C + 1, np.int32)
    rest = [c for c in np.flatnonzero(present[0]) if c not in order]
    ranks[0, [*order, *rest]] = np.arange(present.sum())
    return ranks


def expanded(order, present, count, name="tufl_cityscapes13"):
    present = members(present)
    order = [min(c, C) for c in order]
    table = mixing.related_table(name, C)
    counts = np.array([count], np.int32)
    chosen = expand_related(ranks_of(order, present), counts, present, table)
    return set(np.flatnonzero(chosen[0]).tolist())


def test_expansion_equals_the_originals_picks(golden):
    present = (0, 1, 2, 5, 6, 9, 10, IGNORE)
    picked = expanded((1, 2, IGNORE, 9), present, 4)
    assert picked == set(golden["pick_cs"].tolist())


def test_expansion_by_hand():
    # 0 brings 10 and 11 (12 is absent), 3 of 6: half is reached.
    assert expanded((0, 9, 4), (0, 4, 8, 9, 10, 11), 3) == {0, 10, 11}
    # Nothing related: one after the other up to half, and not beyond `counts`.
    assert expanded((9, 4, 8), (3, 4, 8, 9), 3) == {9, 4}
    assert expanded((9, 4, 8), (3, 4, 8, 9), 1) == {9}
    # What an earlier class brought does not count twice.
    assert expanded((5, 6, 9, 4), (5, 6, 9, 4, 3, 8), 4) == {5, 6, 9}
    # A single class is chosen, IGNORE alone is not.
    assert expanded((3,), (3,), 1) == {3}
    assert expanded((IGNORE, 3), (3, IGNORE), 1) == set()
    assert expanded((), (), 0) == set()


def test_without_relations_the_choice_is_the_order():
    present = members(*HELD, (2, 4, 6))
    ranks, counts = (
        random_ranks(jax.random.key(4), present),
        present.sum(1).astype(np.int32) // 2,
    )
    table = mixing.related_table("none", C)
    chosen = expand_related(ranks, counts, present, table)
    np.testing.assert_array_equal(chosen, ranks < counts[:, None])


def test_one_program_for_all_labels():
    functions = (present_classes, random_ranks, half_of, class_mask, expand_related)

    def run(label, key):
        present = present_classes(label, C)
        counts = half_of(present)
        ranks = random_ranks(key, present)
        chosen = expand_related(ranks, counts, present, np.eye(C, dtype=bool))
        return class_mask(label, chosen)

    run(LABEL, jax.random.key(0))
    once = [function._cache_size() for function in functions]
    run(LABEL[::-1], jax.random.key(1))
    assert [function._cache_size() for function in functions] == once
