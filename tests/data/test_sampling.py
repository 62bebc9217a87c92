import collections
import dataclasses
import itertools
import json
import pickle
import random
from pathlib import Path

import grain
import numpy as np
import pytest

from uda_jax.data.class_sampling import long_tail, rare_class, rare_class_probabilities
from uda_jax.data.dataset import Dataset
from uda_jax.data.geometry import advent, daformer
from uda_jax.data.pipeline import train_iterator
from uda_jax.data.sampling import SAMPLINGS, epochs, split_labelled, uniform
from uda_jax.data.statistics import class_counts
from uda_jax.errors import UserError
from uda_jax.factories import build
from uda_jax.labels import CODINGS, LABEL_SPACES

SPACE = LABEL_SPACES["camvid11"]
SKY, CAR, PERSON = 0, 8, 9
GOLDENS = json.loads((Path(__file__).parents[1] / "goldens/daformer.json").read_text())


@dataclasses.dataclass(frozen=True, eq=False)
class Memory:
    """A store that keeps pixels and notes what is decoded."""

    labels: tuple
    has_labels: bool = True
    decoded: list = dataclasses.field(default_factory=list)

    def image(self, index):
        self.decoded.append(index)
        return np.repeat(self.labels[index][..., None], 3, 2)

    def raw_label(self, index):
        return self.labels[index]

    def where(self, index):
        return f"image {index}", f"label {index}"


def dataset_of(*labels, has_labels=True):
    labels = tuple(np.asarray(label, np.uint8) for label in labels)
    names = tuple(map(str, range(len(labels))))
    return Dataset(SPACE, names, Memory(labels, has_labels), CODINGS["camvid"])


def plain(count, **options):
    return dataset_of(*(np.full((4, 6), i % 11) for i in range(count)), **options)


def with_pixels(**pixels):
    """A 10 x 10 label of sky whose first rows are other classes."""
    label = np.full(100, SKY)
    start = 0
    for name, count in pixels.items():
        label[start : start + count] = SPACE.classes.index(name)
        start += count
    return label.reshape(10, 10)


@dataclasses.dataclass(frozen=True)
class Keep(grain.transforms.Map):
    """Changes nothing and counts how often it is asked."""

    calls: list

    def map(self, element):
        self.calls.append(element["name"])
        return element


@dataclasses.dataclass(frozen=True)
class Noise(grain.transforms.RandomMap):
    """Adds a random number."""

    def random_map(self, element, rng):
        return {**element, "noise": rng.random()}


@dataclasses.dataclass(frozen=True)
class Blank(grain.transforms.RandomMap):
    """Ignores the whole label in the first `failures` calls of each example."""

    failures: int
    calls: list

    def random_map(self, element, rng):
        self.calls.append(element["name"])
        if len(self.calls) <= self.failures:
            element = {**element, "label": np.full_like(element["label"], 255)}
        return element


def rare(dataset, **options):
    defaults = dict(temperature=0.1, min_pixels=4, min_crop_ratio=0.5)
    return rare_class(lambda: class_counts(dataset, None), **{**defaults, **options})


MIXED = (
    with_pixels(car=30, person=5),
    with_pixels(car=4, person=2),
    with_pixels(car=5),
    with_pixels(person=6),
)


def names(stream, count):
    return [stream[i]["name"] for i in range(count)]


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


# rare_class


@pytest.mark.parametrize(
    "temperature, key", [(0.01, "rcs_T0.01"), (0.1, "rcs_T0.1"), (np.inf, "rcs_Tinf")]
)
def test_probabilities_of_the_original(temperature, key):
    totals = np.zeros(19, np.int64)
    for image in (
        {0: 900_000, 11: 5_000},
        {0: 800_000, 16: 20_000, 11: 1_000},
        {0: 700_000, 17: 2_500},
    ):
        for train_id, pixels in image.items():
            totals[train_id] += pixels
    classes, probabilities = rare_class_probabilities(totals, temperature)
    expected_classes, expected = GOLDENS[key]
    assert classes.tolist() == expected_classes == [17, 11, 16, 0]
    # The original is float32.
    assert np.allclose(probabilities, expected, rtol=1e-5, atol=1e-12)
    assert np.isclose(probabilities.sum(), 1)


def test_probabilities_stay_finite_and_a_rarer_class_is_likelier():
    totals = np.array([10**12, 0, 1, 10**6])
    classes, probabilities = rare_class_probabilities(totals, 1e-6)
    assert classes.tolist() == [2, 3, 0]
    assert np.all(np.isfinite(probabilities))
    assert np.all(np.diff(probabilities) <= 0)


def test_a_class_is_drawn_then_an_image_that_has_enough_of_it():
    # Sky 348, car 39, person 13 pixels; eligible with more than 4 pixels are the
    # images 0 to 3 for sky, 0 and 2 for car (1 has exactly 4), 0 and 3 for person.
    dataset = dataset_of(*MIXED)
    totals = class_counts(dataset, None).totals
    assert totals[[SKY, CAR, PERSON]].tolist() == [348, 39, 13]
    _, (person, car, sky) = rare_class_probabilities(totals, 0.5)
    expected = [
        sky / 4 + car / 2 + person / 2,
        sky / 4,
        sky / 4 + car / 2,
        sky / 4 + person / 2,
    ]
    drawn = collections.Counter(
        names(rare(dataset, temperature=0.5)(dataset, (), 0), 4000)
    )
    # Standard deviation below 32.
    for i, probability in enumerate(expected):
        assert abs(drawn[str(i)] - 4000 * probability) < 130


def test_the_counts_are_full_resolution_the_check_is_of_the_crop():
    # A car of four pixels in the corner of an image, which few crops show.
    label = np.zeros((20, 20))
    label[:2, :2] = CAR
    dataset = dataset_of(label)
    ops = daformer(resize=(20, 20), crop_size=(12, 12), flip_probability=0)
    show = lambda **options: sum(
        np.any(stream[i]["label"] == CAR)
        for stream in [
            rare(dataset, temperature=1e-3, min_pixels=3, **options)(dataset, ops, 0)
        ]
        for i in range(300)
    )
    # A crop shows a car when its window starts in the first two of 9 rows and columns:
    # 4 / 81; all of it, more than three pixels, when it
    # starts in the corner: 1 / 81.
    assert abs(show(min_crop_ratio=0.0) / 300 - 4 / 81) < 0.04
    redrawn = 1 - (1 - 1 / 81) ** 10 * (1 - 4 / 81)
    assert abs(show(min_crop_ratio=1.0) / 300 - redrawn) < 0.07


@pytest.mark.parametrize("failures, calls", [(0, 1), (3, 4), (10, 11), (99, 11)])
def test_crops_are_drawn_anew_up_to_ten_times_from_one_decoding(failures, calls):
    dataset = dataset_of(with_pixels(car=20))
    fixed, drawn = Keep([]), Blank(failures, [])
    stream = rare(dataset, temperature=1e-3)(dataset, (fixed, drawn), 0)
    label = stream[0]["label"]
    assert len(drawn.calls) == calls
    # The eleventh is taken as it is.
    assert np.any(label == CAR) == (failures <= 10)
    assert dataset.store.decoded == [0] and len(fixed.calls) == 1


@pytest.mark.parametrize("pixels, calls", [(10, 11), (11, 1)])
def test_a_crop_needs_more_than_the_share(pixels, calls):
    dataset = dataset_of(with_pixels(car=pixels))
    drawn = Blank(0, [])
    options = dict(min_pixels=5, min_crop_ratio=2.0, temperature=1e-3)
    assert rare(dataset, **options)(dataset, (drawn,), 0)[0] is not None
    assert len(drawn.calls) == calls


def test_every_class_that_occurs_needs_an_image():
    dataset = dataset_of(with_pixels(car=30, person=5), with_pixels(person=3))
    with pytest.raises(UserError, match=r'"person" has at most 5 .* min_pixels=5'):
        rare(dataset, min_pixels=5)(dataset, (), 0)
    rare(dataset, min_pixels=4)(dataset, (), 0)


def test_mistakes_of_rare_class_sampling_are_explained():
    dataset = dataset_of(*MIXED)
    for options, message in (
        ({"temperature": 0.0}, "must be positive"),
        ({"temperature": float("nan")}, "must be positive"),
        ({"min_pixels": -1}, "must not be negative"),
        ({"min_crop_ratio": -0.5}, "must not be negative"),
    ):
        with pytest.raises(UserError, match=message):
            rare(dataset, **options)
    with pytest.raises(UserError, match="other examples"):
        rare(dataset)(dataset_of(*MIXED[:2]), (), 0)
    unlabelled = dataset_of(*MIXED, has_labels=False)
    with pytest.raises(UserError, match="labelled"):
        rare(dataset)(unlabelled, (), 0)
    ignored = dataset_of(np.full((3, 3), 11))
    with pytest.raises(UserError, match="all their pixels are ignored"):
        rare(ignored)(ignored, (), 0)


# long_tail


def tail(dataset, **options):
    return long_tail(lambda: class_counts(dataset, None), **options)


def test_every_class_comes_equally_often_in_an_order_drawn_anew():
    dataset = dataset_of(*MIXED)
    stream = tail(dataset)(dataset, (), 0)
    classes = [stream[i]["class"] for i in range(60)]
    assert all(type(c) is np.int32 for c in classes)
    turns = [tuple(classes[i : i + 3]) for i in range(0, 60, 3)]
    assert {tuple(sorted(turn)) for turn in turns} == {(SKY, CAR, PERSON)}
    assert len(set(turns)) == 6  # all orders of three
    other = tail(dataset)(dataset, (), 1)
    assert [other[i]["class"] for i in range(60)] != classes


def test_only_the_classes_named_come():
    dataset = dataset_of(*MIXED)
    stream = tail(dataset, classes=("person", "car"))(dataset, (), 0)
    assert {stream[i]["class"] for i in range(4)} == {CAR, PERSON}


def test_a_class_comes_from_each_image_that_has_enough_of_it_alike():
    dataset = dataset_of(*MIXED)
    stream = tail(dataset, classes=("car",), min_pixels=5)(dataset, (), 0)
    drawn = collections.Counter(names(stream, 600))
    assert set(drawn) == {"0", "2"}  # 30 and 5 pixels; the image 1 has 4
    assert abs(drawn["0"] - 300) < 50  # standard deviation 12


def test_crops_hold_their_class():
    # Cars of four pixels, which one crop of twenty shows.
    label = np.zeros((20, 20))
    label[:2, :2] = CAR
    dataset = dataset_of(label, label.T)
    ops = daformer(resize=(20, 20), crop_size=(12, 12))
    stream = tail(dataset)(dataset, ops, 0)
    for i in range(40):
        assert stream[i]["class"] in stream[i]["label"]
        assert stream[i]["image"].shape == (12, 12, 3)


@pytest.mark.parametrize("failures, decoded", [(0, 1), (49, 1), (50, 2), (149, 3)])
def test_fifty_crops_of_an_image_then_another_image(failures, decoded):
    dataset = dataset_of(*MIXED)
    fixed, drawn = Keep([]), Blank(failures, [])
    element = tail(dataset, classes=("car",))(dataset, (fixed, drawn), 0)[0]
    assert CAR in element["label"] and len(drawn.calls) == failures + 1
    # Each of them decoded once, none twice.
    assert len(dataset.store.decoded) == len(fixed.calls) == decoded
    assert len(set(fixed.calls)) == decoded


def test_a_class_that_no_crop_holds_is_named():
    dataset = dataset_of(*[with_pixels(person=1)] * 25)
    drawn = Blank(10_000, [])
    stream = tail(dataset, classes=("person",))(dataset, (drawn,), 0)
    with pytest.raises(UserError, match=r'"person" is in no crop of 20 images') as e:
        stream[0]
    assert "leave it out of the classes" in str(e.value)
    assert len(drawn.calls) == 20 * 50
    # Where resizing took the class away, crops are not even tried.
    shrunk, drawn = advent(size=(3, 3)), Blank(0, [])
    stream = tail(dataset, classes=("person",))(dataset, (*shrunk, drawn), 0)
    with pytest.raises(UserError, match="vanishes at this size"):
        stream[0]
    assert not drawn.calls


def test_mistakes_of_long_tail_sampling_are_explained():
    dataset = dataset_of(*MIXED)
    for options, message in (
        ({"min_pixels": 0}, "min_pixels=0"),
        ({"classes": ("car", "car")}, "names one twice"),
        ({"classes": ("cat",)}, 'did you mean "car"'),
        ({"classes": ("fence",)}, '"fence" has at most 0 .*: leave it out'),
        (
            {"min_pixels": 7},
            '"person" has at most 6 pixels .* min_pixels=7: choose a smaller',
        ),
    ):
        with pytest.raises(UserError, match=message) as caught:
            tail(dataset, **options)(dataset, (), 0)
        assert str(caught.value).count(". ") == 0
    with pytest.raises(UserError, match="long-tail sampling got class counts of other"):
        tail(dataset)(dataset_of(*MIXED[:2]), (), 0)
    ignored = dataset_of(np.full((3, 3), 11))
    with pytest.raises(UserError, match="all their pixels are ignored"):
        tail(ignored)(ignored, (), 0)


def test_only_sampling_by_classes_counts():
    def fail():
        raise AssertionError("labels were counted")

    for name in ("epochs", "uniform"):
        assert build(SAMPLINGS, "sampling", {"name": name}, fail)(plain(3), (), 0)[0]
    for name in ("rare_class", "long_tail"):
        with pytest.raises(AssertionError):
            build(SAMPLINGS, "sampling", {"name": name}, fail)(plain(3), (), 0)


# In the pipeline.


def batches(steps, **options):
    source, target = dataset_of(*MIXED), plain(5, has_labels=False)
    ops = daformer(resize=(10, 10), crop_size=(6, 6))
    defaults = dict(batch_size=4, seed=1, threads=0)
    with train_iterator(
        source,
        target,
        source_ops=ops,
        target_ops=ops,
        sampling=rare(source),
        target_sampling=uniform(),
        streams={"paste": tail(source)},
        **{**defaults, **options},
    ) as iterator:
        return [next(iterator) for _ in range(steps)]


def same(a, b):
    return a[1] == b[1] and all(
        np.array_equal(x, b[0][domain][key])
        for domain, examples in a[0].items()
        for key, x in examples.items()
    )


def test_batches_do_not_depend_on_start_threads_or_hosts():
    whole = batches(5)
    assert all(map(same, whole[3:], batches(2, start_step=3)))
    assert all(map(same, whole, batches(5, threads=3)))
    assert same(batches(1, start_step=10**6)[0], batches(1, start_step=10**6)[0])
    halves = [batches(5, num_hosts=2, host=host) for host in (0, 1)]
    for (batch, _), *parts in zip(whole, *halves, strict=True):
        for domain, examples in batch.items():
            for key, x in examples.items():
                joined = [part[domain][key] for part, _ in parts]
                assert np.array_equal(np.concatenate(joined), x)


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
