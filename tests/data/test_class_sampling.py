"""Samplings that draw a class first: rare_class and long_tail."""

import collections
import dataclasses
import json
from pathlib import Path

import grain
import numpy as np
import pytest
from in_memory import CAR, MIXED, PERSON, SKY, dataset_of, names, plain, with_pixels

from uda_jax.data import class_sampling
from uda_jax.data.class_sampling import long_tail, rare_class, rare_class_probabilities
from uda_jax.data.geometry import advent, daformer, ss_ada, tufl
from uda_jax.data.pipeline import train_iterator
from uda_jax.data.sampling import uniform
from uda_jax.data.statistics import class_counts
from uda_jax.errors import UserError

GOLDENS = json.loads((Path(__file__).parents[1] / "goldens/daformer.json").read_text())


@dataclasses.dataclass(frozen=True)
class Keep(grain.transforms.Map):
    """Changes nothing and counts how often it is asked."""

    calls: list

    def map(self, element):
        self.calls.append(element["name"])
        return element


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


@pytest.mark.parametrize("size", [(60, 80), (9, 80), (9, 10)])
@pytest.mark.parametrize(
    "ops",
    [
        tufl(crop_size=(12, 16), scales=(0.5, 1.0)),
        tufl(crop_size=(12, 16), frozen=True),
        ss_ada(crop_size=(12, 16)),
        daformer(resize=(80, 80), crop_size=(12, 16), cat_max_ratio=0.75),
    ],
)
def test_a_window_is_placed_where_no_random_one_finds_the_class(size, ops, monkeypatch):
    monkeypatch.setattr(class_sampling, "_CROPS", 0)
    label = np.zeros(size)
    label[-2:, 4:6] = CAR
    dataset = dataset_of(label)
    stream = tail(dataset, classes=("car",))(dataset, ops, 0)
    crops = [stream[i] for i in range(30)]
    for crop in crops:
        assert crop["class"] == CAR and CAR in crop["label"]
        assert crop["image"].shape == (12, 16, 3)
        # The images are their labels' ids, so both were cut alike.
        assert crop["image"][crop["label"] == CAR].max() > 0
    places = {tuple(np.argwhere(crop["label"] == CAR)[0]) for crop in crops}
    assert len(places) > 1


def test_an_image_that_loses_its_class_gives_way_to_one_that_does_not():
    few = [with_pixels(person=1)] * 25
    dataset = dataset_of(*few, with_pixels(person=80))
    stream = tail(dataset, classes=("person",))(dataset, advent(size=(3, 3)), 0)
    assert {stream[i]["name"] for i in range(20)} == {"25"}


def test_a_class_that_every_image_loses_is_named():
    dataset = dataset_of(*[with_pixels(person=1)] * 25)
    drawn = Blank(10_000, [])
    stream = tail(dataset, classes=("person",))(dataset, (drawn,), 0)
    with pytest.raises(UserError, match='"person" is lost in all 25 images') as e:
        stream[0]
    assert "in a new --workdir" in str(e.value) and str(e.value).count(". ") == 0
    assert len(drawn.calls) == 20 * 50 + 25 * 10
    # Where resizing took the class away, crops are not even tried.
    shrunk, drawn = advent(size=(3, 3)), Blank(0, [])
    stream = tail(dataset, classes=("person",))(dataset, (*shrunk, drawn), 0)
    with pytest.raises(UserError, match="is lost in all 25 images"):
        stream[0]
    assert not drawn.calls


def test_mistakes_of_long_tail_sampling_are_explained():
    dataset = dataset_of(*MIXED)
    for options, message in (
        ({"min_pixels": 0}, "min_pixels=0"),
        ({"classes": ("car", "car")}, "names one twice"),
        ({"classes": ("cat",)}, 'did you mean "car"'),
        ({"classes": ("fence",)}, '"fence" has at most 0 .*: leave "fence" out'),
        (
            {"min_pixels": 7},
            '"person" has at most 6 pixels .* min_pixels=7: choose a smaller',
        ),
        (
            {"min_pixels": 31, "classes": ("car", "fence", "person")},
            '"car" has at most 30, class "fence" .* 0, class "person" .* 6 pixels .*: '
            'leave "fence" out and choose a smaller min_pixels',
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
