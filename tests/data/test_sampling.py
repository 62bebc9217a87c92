import collections
import dataclasses
import itertools
import pickle
import random

import grain
import pytest
from in_memory import MIXED, dataset_of, names, plain

from uda_jax.data.sampling import SAMPLINGS, epochs, split_labelled, uniform
from uda_jax.data.statistics import class_counts
from uda_jax.errors import UserError
from uda_jax.factories import build


@dataclasses.dataclass(frozen=True)
class Noise(grain.transforms.RandomMap):
    """Adds a random number."""

    def random_map(self, element, rng):
        return {**element, "noise": rng.random()}


# epochs, uniform


def test_epochs_show_every_example_once():
    stream = epochs()(plain(7), (), 3)
    parts = [tuple(names(stream, 28)[i : i + 7]) for i in range(0, 28, 7)]
    assert all(sorted(part) == sorted(map(str, range(7))) for part in parts)
    assert len(set(parts)) == 4  # in an order of its own


def test_uniform_draws_each_example_alike_and_forgets():
    stream = uniform()(plain(5), (), 3)
    drawn = names(stream, 3000)
    counts = collections.Counter(drawn)
    assert sorted(counts) == list("01234")
    # Binomial: 600 +- 22 for each.
    assert all(abs(count - 600) < 90 for count in counts.values())
    # Also of those that come after a "0": 120 +- 10.
    after = collections.Counter(b for a, b in itertools.pairwise(drawn) if a == "0")
    assert all(abs(count - 120) < 45 for count in after.values())


def test_uniform_pairs_are_independent():
    domains = [uniform()(plain(3), (), seed) for seed in (0, 1)]
    drawn = [names(stream, 2700) for stream in domains]
    pairs = collections.Counter(zip(*drawn, strict=True))
    assert len(pairs) == 9
    assert all(abs(count - 300) < 70 for count in pairs.values())


@pytest.mark.parametrize("name", SAMPLINGS)
def test_element_i_follows_from_seed_and_i(name):
    dataset = dataset_of(*MIXED)
    counts = lambda: class_counts(dataset, None)
    options = {"min_pixels": 4} if name == "rare_class" else {}
    make = lambda seed: build(SAMPLINGS, "sampling", {"name": name, **options}, counts)(
        dataset, (Noise(),), seed
    )
    stream, again = make(5), make(5)
    forward = [(stream[i]["name"], stream[i]["noise"]) for i in range(12)]
    backward = [(again[i]["name"], again[i]["noise"]) for i in reversed(range(12))]
    assert forward == backward[::-1]
    assert len({noise for _, noise in forward}) == 12
    # Anywhere at once, and again from another process's copy.
    far = stream[10**12]
    assert pickle.loads(pickle.dumps(again))[10**12]["noise"] == far["noise"]
    other = make(6)
    assert [(other[i]["name"], other[i]["noise"]) for i in range(12)] != forward


def test_only_sampling_by_classes_counts():
    def fail():
        raise AssertionError("labels were counted")

    for name in ("epochs", "uniform"):
        assert build(SAMPLINGS, "sampling", {"name": name}, fail)(plain(3), (), 0)[0]
    for name in ("rare_class", "long_tail"):
        with pytest.raises(AssertionError):
            build(SAMPLINGS, "sampling", {"name": name}, fail)(plain(3), (), 0)


# split_labelled


@pytest.mark.parametrize(
    "ratio, count",
    [(0.5, 70), (0.25, 35), (0.125, 18), (0.0625, 9), (0.05, 7), (0.022, 3), (0.01, 1)],
)
def test_the_published_split_recipe(ratio, count):
    examples = [f"image/train/{time}.png" for time in range(1000, 1140)]
    random.seed(0)
    listed = sorted(examples)
    random.shuffle(listed)
    labelled = random.sample(listed, k=int(140 * ratio + 0.5))
    unlabelled = [name for name in listed if name not in labelled]
    # In whatever order the names come.
    assert split_labelled(examples[::-1], ratio) == (labelled, unlabelled)
    assert len(labelled) == count and len(labelled) + len(unlabelled) == 140
    assert split_labelled(examples, ratio, seed=1) != (labelled, unlabelled)


@pytest.mark.parametrize("ratio", [0, -0.5, 1.1, float("nan"), 0.01])
def test_a_split_without_labelled_examples_is_refused(ratio):
    with pytest.raises(UserError, match="at least one example"):
        split_labelled(list("abcde"), ratio)


def test_a_split_leaves_other_random_numbers_alone():
    random.seed(3)
    expected = random.random()
    random.seed(3)
    split_labelled(list("abcde"), 0.5)
    assert random.random() == expected
