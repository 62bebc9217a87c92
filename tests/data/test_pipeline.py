import json
import multiprocessing
import os
import signal
import threading

import cv2
import numpy as np
import pytest

from uda_jax.data import pipeline
from uda_jax.data.dataset import MissingLabels
from uda_jax.data.geometry import advent, ss_ada, tufl
from uda_jax.data.pipeline import train_iterator
from uda_jax.data.sampling import epochs, long_tail, uniform
from uda_jax.data.sources import manifest
from uda_jax.data.statistics import class_counts
from uda_jax.errors import UserError

OPS = tufl(crop_size=(8, 12), scales=(0.75, 1.0, 1.5))
FROZEN = tufl(crop_size=(8, 12), scales=(0.75, 1.0, 1.5), frozen=True)


def make(folder, count, *, labels=True, value=0, size=(12, 18)):
    """Images of noise whose labels say which image they belong to."""
    folder.mkdir()
    rng = np.random.default_rng(value)
    lines = []
    for i in range(count):
        image = rng.integers(0, 255, (*size, 3), np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), image)
        cv2.imwrite(str(folder / f"{i}_label.png"), np.full(size, i % 13, np.uint8))
        lines.append(json.dumps({"image": f"{i}.png", "label": f"{i}_label.png"}))
    path = folder / "list.jsonl"
    path.write_text("\n".join(lines))
    return manifest(path, label_space="crosscity13", labels=labels)


@pytest.fixture(scope="module")
def domains(tmp_path_factory):
    root = tmp_path_factory.mktemp("domains")
    return make(root / "s", 20), make(root / "t", 13, labels=False, value=1)


@pytest.fixture(scope="module")
def streams(domains):
    """Further examples of the source."""
    counts = class_counts(domains[0], None)
    return {"paste": long_tail(lambda: counts), "template": uniform()}


def take(domains, count, **options):
    defaults = dict(source_ops=OPS, target_ops=OPS, batch_size=4, seed=0, threads=0)
    with train_iterator(*domains, **{**defaults, **options}) as iterator:
        return [next(iterator) for _ in range(count)]


def same(a, b):
    assert a[1] == b[1]
    assert {d: set(x) for d, x in a[0].items()} == {d: set(x) for d, x in b[0].items()}
    return all(
        np.array_equal(x, b[0][domain][key])
        for domain, examples in a[0].items()
        for key, x in examples.items()
    )


def test_batch_layout(domains):
    batch, names = take(domains, 1)[0]
    assert set(batch) == set(names) == {"source", "target"}
    assert set(batch["source"]) == {"image", "label"}
    assert set(batch["target"]) == {"image"}  # no label can leak
    for image in (batch["source"]["image"], batch["target"]["image"]):
        assert image.shape == (4, 8, 12, 3) and image.dtype == np.uint8
    assert batch["source"]["label"].shape == (4, 8, 12)
    assert batch["source"]["label"].dtype == np.uint8
    # Names belong to the examples, label and image to each other.
    for name, label in zip(names["source"], batch["source"]["label"], strict=True):
        assert np.all(label == int(name.removesuffix(".png")) % 13)


def test_each_domain_has_its_own_epochs(domains):
    names = {"source": [], "target": []}
    for _, step in take(domains, 15):
        for domain in names:
            names[domain] += step[domain]
    for domain, size in (("source", 20), ("target", 13)):
        epochs = [names[domain][i : i + size] for i in range(0, 60 - size + 1, size)]
        assert all(len(set(epoch)) == size for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) > 1  # shuffled anew


def test_threads_change_nothing(domains, streams):
    plain = take(domains, 6, streams=streams)
    for threads in (1, 3):
        threaded = take(domains, 6, threads=threads, streams=streams)
        assert all(map(same, plain, threaded))


def test_worker_processes_change_nothing(domains, streams):
    # With all that may differ besides: a start, a host, frozen ops, further streams.
    options = dict(start_step=3, host=1, num_hosts=2, target_ops=FROZEN)
    options["streams"] = streams
    workers = take(domains, 5, workers=2, threads=1, **options)
    assert all(map(same, take(domains, 5, **options), workers))
    assert all(type(x) is np.ndarray for x in workers[0][0]["source"].values())


def test_exact_restart(domains, streams):
    steps = take(domains, 7, streams=streams)
    for start in (1, 4):
        options = dict(start_step=start, threads=2, streams=streams)
        restarted = take(domains, 7 - start, **options)
        assert all(map(same, steps[start:], restarted))


def test_a_late_start_costs_nothing(domains, streams):
    assert take(domains, 1, start_step=10**8, streams=streams)


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_together_hold_the_global_batch(domains, streams, hosts):
    whole = take(domains, 3, streams=streams)
    parts = [
        take(domains, 3, host=h, num_hosts=hosts, streams=streams) for h in range(hosts)
    ]
    for step, (batch, names) in enumerate(whole):
        for domain, examples in batch.items():
            local = [name for part in parts for name in part[step][1][domain]]
            assert local == names[domain]
            for key, x in examples.items():
                local = [part[step][0][domain][key] for part in parts]
                np.testing.assert_array_equal(np.concatenate(local), x)


def test_the_seed_decides(domains):
    assert all(map(same, take(domains, 2), take(domains, 2)))
    assert take(domains, 1)[0][1] != take(domains, 1, seed=1)[0][1]


def test_an_image_is_augmented_anew_each_time(tmp_path):
    one = make(tmp_path / "one", 1)
    images = np.concatenate([b["source"]["image"] for b, _ in take((one, None), 5)])
    assert len({image.tobytes() for image in images}) > 10


def test_the_domains_are_drawn_independently(tmp_path):
    one = make(tmp_path / "one", 1)
    twin = manifest(
        tmp_path / "one/list.jsonl", label_space="crosscity13", labels=False
    )
    batch, _ = take((one, twin), 1)[0]
    assert not np.array_equal(batch["source"]["image"], batch["target"]["image"])


def test_without_target(domains):
    batch, names = take((domains[0], None), 1)[0]
    assert set(batch) == set(names) == {"source"}
    with_target = take(domains, 1)[0][0]
    np.testing.assert_array_equal(
        batch["source"]["image"], with_target["source"]["image"]
    )


def test_frozen_ops_draw_once_per_run(tmp_path):
    source = make(tmp_path / "s", 1)
    path = tmp_path / "s/list.jsonl"
    target = manifest(path, label_space="crosscity13", labels=False)

    def images(seed, steps=4):
        seen = {"source": set(), "target": set()}
        for batch, _ in take((source, target), steps, seed=seed, target_ops=FROZEN):
            for domain, examples in batch.items():
                seen[domain] |= {image.tobytes() for image in examples["image"]}
        return seen

    assert len(images(0)["target"]) == 1 and len(images(0)["source"]) > 5
    draws = set.union(*(images(seed, 1)["target"] for seed in range(4)))
    assert len(draws) > 1  # another run, another draw


def test_each_domain_has_its_own_geometry(domains):
    batch, _ = take(domains, 1, target_ops=ss_ada(crop_size=(16, 16)))[0]
    assert batch["source"]["image"].shape == (4, 8, 12, 3)
    assert set(batch["target"]) == {"image", "valid"}
    assert batch["target"]["valid"].shape == (4, 16, 16)
    assert batch["target"]["valid"].dtype == np.uint8


def test_samplings_are_asked_for_streams(domains):
    def only_the_first(dataset, ops, seed):
        return epochs()(dataset.select([0]), ops, seed)

    steps = take(domains, 3, target_sampling=only_the_first)
    assert {name for _, names in steps for name in names["target"]} == {"0.png"}
    assert len({name for _, names in steps for name in names["source"]}) == 12
    # A domain's stream does not depend on the other's.
    plain = take(domains, 3)
    assert [names["source"] for _, names in steps] == [n["source"] for _, n in plain]


def test_streams_are_further_examples_of_the_source(domains, streams):
    steps = take(domains, 5, streams=streams)
    batch, names = steps[0]
    assert set(batch) == set(names) == {"source", "target", "paste", "template"}
    assert set(batch["template"]) == {"image", "label"}
    assert set(batch["paste"]) == {"image", "label", "class"}
    assert batch["paste"]["class"].shape == (4,)
    assert batch["paste"]["class"].dtype == np.int32
    for batch, names in steps:
        for entry in ("paste", "template"):
            assert batch[entry]["image"].shape == (4, 8, 12, 3)
            ids = [int(name.removesuffix(".png")) % 13 for name in names[entry]]
            np.testing.assert_array_equal(batch[entry]["label"][:, 0, 0], ids)
        np.testing.assert_array_equal(
            batch["paste"]["label"][:, 0, 0], batch["paste"]["class"]
        )
    # 13 classes: the first 13 of 20 crops show each once.
    drawn = np.concatenate([batch["paste"]["class"] for batch, _ in steps])
    assert sorted(drawn[:13]) == list(range(13))


def test_a_stream_changes_no_other(domains, streams):
    both = take(domains, 3, streams=streams)
    for subset in ({}, {"template": uniform()}, {"paste": streams["paste"]}):
        for some in (take(domains, 3, streams=subset),
                     take((domains[0], None), 3, streams=subset)):  # fmt: skip
            for (batch, names), (whole, whole_names) in zip(some, both, strict=True):
                for entry in batch:
                    assert names[entry] == whole_names[entry]
                    for key, x in batch[entry].items():
                        np.testing.assert_array_equal(x, whole[entry][key])
    twins = take(domains, 3, streams={"one": uniform(), "two": uniform()})
    assert all(names["one"] != names["two"] for _, names in twins)


@pytest.mark.parametrize("name", ["source", "target", "", "long tail", "a.b"])
def test_a_stream_needs_a_name_of_its_own(domains, name):
    with pytest.raises(UserError, match=f'data.streams cannot have "{name}"'):
        take(domains, 1, streams={name: uniform()})


def test_a_mistake_in_a_stream_says_in_which(tmp_path):
    source = make(tmp_path / "s", 6)
    counts = class_counts(source, None)

    def draws(**options):
        return {"streams": {"paste": long_tail(lambda: counts, **options)}}

    with pytest.raises(UserError, match=r"^data\.streams\.paste: .*min_pixels=999"):
        take((source, None), 1, **draws(min_pixels=999))
    for file in (tmp_path / "s").glob("*_label.png"):
        cv2.imwrite(
            str(file), np.full((12, 18), 12, np.uint8)
        )  # since they were counted
    lost = r"^data\.streams\.paste: class .* is lost in all 1 images"
    for options in ({}, {"workers": 1}):
        with pytest.raises(UserError, match=lost):
            take((source, None), 1, **draws(), **options)


def test_weights_of_a_manifest_reach_the_batch(tmp_path):
    make(tmp_path / "s", 2)
    path = tmp_path / "s/weighted.jsonl"
    path.write_text(
        '{"image": "0.png", "label": "0_label.png", "weight": 0.5}\n'
        '{"image": "1.png", "label": "1_label.png", "weight": 2}\n'
    )
    source = manifest(path, label_space="crosscity13")
    batch, names = take((source, None), 1)[0]
    assert batch["source"]["weight"].dtype == np.float32
    expected = [{"0.png": 0.5, "1.png": 2.0}[name] for name in names["source"]]
    assert batch["source"]["weight"].tolist() == expected


@pytest.mark.parametrize(
    "options", [dict(threads=0), dict(threads=2), dict(threads=1, workers=1)]
)
def test_a_damaged_file_is_named_when_its_turn_comes(tmp_path, options):
    source = make(tmp_path / "s", 6)
    options = dict(batch_size=1, **options)
    order = [names["source"][0] for _, names in take((source, None), 6, batch_size=1)]
    image = tmp_path / "s" / order[3]
    whole = take((source, None), 3, batch_size=1)
    image.write_bytes(image.read_bytes()[:200])
    iterator = train_iterator(source, None, source_ops=OPS, seed=0, **options)
    with iterator as steps:
        for expected in whole:
            assert same(expected, next(steps))
        with pytest.raises(UserError) as caught:
            next(steps)
    assert str(caught.value).startswith(f"file {image} cannot be decoded")
    assert "\n" not in str(caught.value)


@pytest.fixture
def full_pipes(tmp_path):
    """full_pipes(workers) -> an iterator whose batches, 480 kB, overfill a pipe.

    What waits for ever, or for grain's 25 seconds, fails.
    """

    def late(*_):
        raise TimeoutError

    def begin(workers):
        source = make(tmp_path / "s", 4, size=(200, 300))
        options = dict(source_ops=(), batch_size=2, seed=0, threads=1)
        return train_iterator(source, None, workers=workers, **options)

    handler = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield begin
    signal.alarm(0)
    signal.signal(signal.SIGALRM, handler)


def test_closing_ends_workers_that_have_more_to_send(full_pipes):
    before = multiprocessing.active_children()
    with full_pipes(2) as steps:
        next(steps)
        assert len(multiprocessing.active_children()) == len(before) + 2
    assert multiprocessing.active_children() == before


def test_a_killed_worker_is_an_error_and_no_wait(full_pipes):
    before = multiprocessing.active_children()
    with full_pipes(1) as steps:
        next(steps)
        (worker,) = set(multiprocessing.active_children()) - set(before)
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(UserError, match=r"killed by signal 9.* fewer workers"):
            for _ in range(9):  # a few may have been on their way
                next(steps)


def test_impossible_requests_are_refused(domains, tmp_path):
    with pytest.raises(UserError, match="batch_size=3 cannot be split evenly over 2"):
        take(domains, 1, batch_size=3, num_hosts=2)
    with pytest.raises(UserError, match="batch_size=0"):
        take(domains, 1, batch_size=0)
    with pytest.raises(UserError, match="threads=-1"):
        take(domains, 1, threads=-1)
    with pytest.raises(UserError, match="workers=-1"):
        take(domains, 1, workers=-1)
    with pytest.raises(UserError, match="source dataset has no labels"):
        take((domains[1], None), 1)
    with pytest.raises(UserError, match="must not reach training"):
        take((domains[0], domains[0]), 1)


def test_images_of_two_sizes_need_a_geometry(tmp_path):
    source = make(tmp_path / "s", 2)
    cv2.imwrite(str(tmp_path / "s/1.png"), np.zeros((9, 18, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "s/1_label.png"), np.zeros((9, 18), np.uint8))
    with pytest.raises(UserError, match=r"[01]\.png is (9|12) x 18 and") as caught:
        take((source, None), 1, source_ops=())
    assert "resizes or crops to one size" in str(caught.value)
    batch, _ = take((source, None), 1, source_ops=advent(size=(6, 9)))[0]
    assert batch["source"]["label"].shape == (4, 6, 9)


def test_an_exception_that_cannot_be_sent_keeps_its_sentence():
    missing = pipeline._sendable(MissingLabels("2 images have no label.", None, [0]))
    assert type(missing) is UserError and str(missing) == "2 images have no label."
    locked = pipeline._sendable(ValueError("no", threading.Lock()))
    assert type(locked) is RuntimeError and "ValueError" in str(locked)
    plain = UserError("as it is.")
    assert pipeline._sendable(plain) is plain
