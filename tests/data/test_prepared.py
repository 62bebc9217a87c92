"""Prepared sets read like the files that they were made from."""

import dataclasses
import json
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import RAW_IDS, draw, write_cityscapes, write_png
from small_files import refused

from uda_jax.data.fingerprint import fingerprint
from uda_jax.data.geometry import GEOMETRIES, advent, split_fixed
from uda_jax.data.ops import apply
from uda_jax.data.pipeline import train_iterator
from uda_jax.data.prepare import prepare
from uda_jax.data.prepared import find_prepared, prepared
from uda_jax.data.tfds_cityscapes import tfds_cityscapes
from uda_jax.data.sources import cityscapes, folder, manifest
from uda_jax.data.statistics import class_counts

HALF = advent(size=(48, 64))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Five labelled examples in originals/, prepared at half their size in sets/."""
    root = tmp_path_factory.mktemp("prepared")
    write_cityscapes(root / "originals", "train", 5)
    prepare(originals(root), HALF, root / "sets", name="cityscapes")
    return root


def originals(root, label_space="cityscapes19", labels=True):
    return cityscapes(root / "originals", label_space=label_space, labels=labels)


def found(root, ops=HALF, **options):
    dataset, reason = find_prepared(originals(root, **options), ops, root / "sets")
    assert dataset is not None and reason == ""
    return dataset


def not_found(dataset, ops, sets, *parts, **options):
    other, reason = find_prepared(dataset, ops, sets, **options)
    assert other is None and "\n" not in reason
    for part in parts:
        assert part in reason
    return reason


def same(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key])
        assert np.asarray(value).dtype == np.asarray(second[key]).dtype


# What is read


@pytest.mark.parametrize(
    "row",
    [
        ("maxsquare", dict(size=(48, 64))),
        ("tufl", dict(resize=(60, 90), crop_size=(32, 48), scales=(0.75, 1.5))),
        ("tufl", dict(resize=(60, 90), crop_size=(32, 48), frozen=True)),
        ("daformer", dict(resize=(80, 160), crop_size=(64, 64), cat_max_ratio=0.75)),
        ("ss_ada", dict(crop_size=(64, 64))),  # nothing is fixed: the size stays
    ],
)
def test_png_gives_exactly_what_the_originals_give(row, root, tmp_path):
    name, options = row
    ops = GEOMETRIES[name](**options)
    fixed, rest = split_fixed(ops)
    before = originals(root).select([3, 0])
    prepare(before, fixed, tmp_path, name="cityscapes")
    after, _ = find_prepared(before, fixed, tmp_path)
    for index in range(2):
        for seed in range(3):
            rngs = [np.random.default_rng(seed) for _ in range(2)]
            same(apply(ops, before[index], rngs[0]), apply(rest, after[index], rngs[1]))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("maxsquare", {"size": (48, 64)}),
        ("tufl", {"resize": (48, 64), "crop_size": (32, 32), "frozen": True}),
    ],
)
def test_the_same_batches(root, tmp_path, name, options):
    ops = GEOMETRIES[name](**options)
    fixed, rest = split_fixed(ops)
    prepare(originals(root), fixed, tmp_path, name="cityscapes")
    after, _ = find_prepared(originals(root), fixed, tmp_path)

    def batches(dataset, ops, threads):
        options = dict(batch_size=2, seed=3, threads=threads)
        with train_iterator(dataset, None, source_ops=ops, **options) as iterator:
            return [next(iterator) for _ in range(4)]

    wanted = batches(originals(root), ops, 0)
    for threads in (0, 2):
        for (a, names), (b, others) in zip(
            wanted, batches(after, rest, threads), strict=True
        ):
            assert names == others
            same(a["source"], b["source"])


def test_jpeg_is_close(root, tmp_path):
    # Smooth, as photographs are.
    ramp = np.linspace(0, 255, 64)[None, :, None] * np.ones((48, 1, 3))
    write_png(tmp_path / "images/a.png", ramp.astype("uint8"))
    dataset = folder(tmp_path, label_space="crosscity13", labels=False)
    prepare(dataset, (), tmp_path / "sets", format="jpeg")
    after, _ = find_prepared(dataset, (), tmp_path / "sets")
    difference = after[0]["image"].astype(int) - dataset[0]["image"]
    assert 0 < np.abs(difference).max() <= 4


def test_png_comes_before_jpeg(root, tmp_path):
    dataset = originals(root).select([0])
    prepare(dataset, HALF, tmp_path, name="cityscapes", format="jpeg")
    assert "-jpeg-" in find_prepared(dataset, HALF, tmp_path)[0].store.name
    prepare(dataset, HALF, tmp_path, name="cityscapes", format="png")
    assert "-png-" in find_prepared(dataset, HALF, tmp_path)[0].store.name


def test_one_set_serves_every_label_space(root):
    for space in ("cityscapes19", "cityscapes16", "crosscity13"):
        fixed = apply(HALF, originals(root, space)[2], None)
        same(found(root, label_space=space)[2], fixed)


def test_labels_of_another_size(tmp_path):
    image, label = draw(0)
    write_png(tmp_path / "images/a.png", image)
    write_png(tmp_path / "labels/a.png", label[:80, :100])
    dataset = folder(tmp_path, label_space="cityscapes19", coding="label_ids")
    refused(lambda: prepare(dataset, HALF, tmp_path / "sets"), "80 x 100", "96 x 128")
    dataset = dataclasses.replace(dataset, sizes_may_differ=True)
    for ops in (HALF, ()):
        prepare(dataset, ops, tmp_path / "sets")
        after, _ = find_prepared(dataset, ops, tmp_path / "sets")
        assert after.sizes_may_differ == (not ops)
        same(after[0], apply(ops, dataset[0], None))


def test_weights(tmp_path):
    for name in "ab":
        write_png(tmp_path / f"{name}.png", draw(0)[0])
    rows = [{"image": "b.png", "weight": 0.25}, {"image": "a.png", "weight": 2}]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = dict(label_space="crosscity13", labels=False)
    dataset = manifest(tmp_path / "list.jsonl", **options)
    place = prepare(dataset, HALF, tmp_path / "sets", name="manifest")
    after = prepared(place, **options)
    assert after.names == ("b.png", "a.png")
    assert [after[i]["weight"] for i in range(2)] == [0.25, 2.0]
    records = tfds.builder_from_directory(place).as_data_source("train")
    assert [records[i]["weight"] for i in range(2)] == [0.25, 2.0]
    assert records[0]["name"] == b"b.png" and records[0]["image"].shape == (48, 64, 3)


def test_pickled_and_from_threads(root):
    dataset = found(root)
    copy = pickle.loads(pickle.dumps(dataset))
    with ThreadPoolExecutor(8) as pool:
        for i, item in enumerate(pool.map(lambda i: copy[i % 5], range(40))):
            same(item, dataset[i % 5])


def test_statistics_are_those_of_the_original_labels(root):
    before, after = originals(root), found(root)
    raw = np.stack(
        [np.bincount(before.raw_label(i).ravel(), None, 256) for i in (4, 1)]
    )
    np.testing.assert_array_equal(after.select([4, 1]).store.raw_counts, raw)
    wanted = class_counts(before, None)
    np.testing.assert_array_equal(class_counts(after, None).counts, wanted.counts)
    assert wanted.counts.sum() == 5 * 96 * 128


def test_fingerprints(root):
    before, after = originals(root), found(root)
    assert fingerprint(after) == fingerprint(before)
    part = after.select([1, 2])
    assert part.names == before.names[1:3]
    same(part[1], after[2])
    assert fingerprint(part) not in (
        fingerprint(after),
        fingerprint(after.select([2, 1])),
    )
    assert fingerprint(after.select(range(5))) == fingerprint(after)
    same(part.select([1])[0], after[2])


# Labels never leak


def test_a_target_without_labels_reads_a_set_with_labels(root):
    target = found(root, labels=False)
    assert set(target[0]) == {"image", "name"} and not target.has_labels
    assert target.store.raw_counts is None
    assert fingerprint(target) == fingerprint(originals(root, labels=False))
    with train_iterator(
        found(root), target, source_ops=(), target_ops=(), batch_size=1, seed=0
    ) as batches:
        assert set(next(batches)[0]["target"]) == {"image"}


def test_a_source_does_not_take_a_set_without_labels(root, tmp_path):
    prepare(originals(root, labels=False), HALF, tmp_path, name="cityscapes")
    not_found(originals(root), HALF, tmp_path, "was prepared without labels")
    place = next(tmp_path.glob("*/*/1.0.0"))
    assert not (place / "class_counts.npz").exists()
    refused(lambda: prepared(place, label_space="cityscapes19"), "without labels")
    assert "label" not in prepared(place, label_space="cityscapes19", labels=False)[0]


# What does not fit


def test_a_set_that_does_not_fit_is_not_taken(root, tmp_path):
    dataset, sets = originals(root), root / "sets"
    assert not_found(dataset, HALF, tmp_path / "nowhere") == ""
    not_found(dataset, advent(size=(24, 32)), sets, "48, 64", "24, 32")
    not_found(dataset, advent(size=(48, 64), filter="area"), sets, "filter='area'")
    path = dataset.store.labels[2]
    before = os.stat(path)
    os.utime(path, (0, 0))
    not_found(dataset, HALF, sets, "changed", "prepare the data again")
    assert found(root, labels=False)  # its images have not changed
    os.utime(path, (before.st_atime, before.st_mtime))
    assert found(root)


def test_folders_that_are_no_sets(root, tmp_path):
    refused(
        lambda: prepared(tmp_path, label_space="cityscapes19"), "metadata.json", "end"
    )


def test_examples_that_came_or_went(root, tmp_path):
    dataset = originals(root)
    prepare(dataset.select(range(4)), HALF, tmp_path, name="cityscapes")
    holds = "holds 4 examples, the data set now has"
    not_found(dataset, HALF, tmp_path, f"{holds} 5: prepare the data again")
    not_found(dataset.select([0]), HALF, tmp_path, f"{holds} 1")
    not_found(dataset.select([1, 0, 2, 3]), HALF, tmp_path, "another order")
    assert not_found(dataset.select([4]), HALF, tmp_path) == ""  # other data


def test_the_reason_is_that_of_the_closest_set(root, tmp_path):
    dataset = originals(root)
    sets = [
        (dataset.select([0, 1]), HALF, "holds 2 examples"),
        (dataset, advent(size=(24, 32)), "was made with"),
        (originals(root, labels=False), HALF, "without labels"),
    ]
    for other, ops, reason in sets:
        prepare(other, ops, tmp_path, name="cityscapes")
        not_found(dataset, HALF, tmp_path, reason)
    place = prepare(dataset, HALF, tmp_path, name="cityscapes")
    (place / "features.json").unlink()
    not_found(dataset, HALF, tmp_path, "features.json is missing")


def test_sets_of_other_readers_are_not_looked_at(root, tmp_path):
    dataset = originals(root)
    place = prepare(dataset, HALF, tmp_path, name="gta5")
    assert find_prepared(dataset, HALF, tmp_path, reader="gta5")[0]
    (place / "metadata.json").unlink()
    not_found(dataset, HALF, tmp_path, "metadata.json is missing", reader="gta5")
    assert not_found(dataset, HALF, tmp_path, reader="cityscapes") == ""


def test_damaged_parts(root, tmp_path):
    dataset = originals(root).select([0, 1])
    place = prepare(dataset, HALF, tmp_path, name="cityscapes")
    after, _ = find_prepared(dataset, HALF, tmp_path)
    (place / "class_counts.npz").write_bytes(b"PK")
    refused(lambda: class_counts(after, None), "class_counts.npz is damaged")
    (place / "class_counts.npz").unlink()  # resized labels are not counted instead
    refused(lambda: class_counts(after, None), "or gone")
    wrong = dataclasses.replace(after.store, indices=(0, 7))
    broken = dataclasses.replace(after, store=wrong)
    refused(lambda: broken[1], "record 7", str(place), "prepare the data again")


def test_the_reader(root):
    place = next((root / "sets").glob("*/*/1.0.0"))
    dataset = prepared(place, label_space="crosscity13")
    assert dataset.names == originals(root).names
    same(dataset[1], found(root, label_space="crosscity13")[1])
    refused(lambda: prepared(place, label_space="parking7"), "no class of these")


# tensorflow-datasets' own


class Cityscapes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The features of tensorflow-datasets' cityscapes/semantic_segmentation."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="semantic_segmentation")]  # noqa: RUF012
    IMAGES = 3

    def _info(self):
        features = {
            "image_id": tfds.features.Text(),
            "image_left": tfds.features.Image(shape=(96, 128, 3)),
            "segmentation_label": tfds.features.Image(shape=(96, 128, 1)),
        }
        features = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, manager):
        return {"validation": self._generate_examples()}

    def _generate_examples(self):
        for i in range(self.IMAGES):
            name = f"town_{i:06d}_000019"
            yield (
                name,
                {
                    "image_id": name,
                    "image_left": self.files(f"leftImg8bit/*/*/{name}*"),
                    "segmentation_label": self.files(f"gtFine/*/*/{name}*"),
                },
            )


@pytest.fixture
def tfds_folder(root, tmp_path, capsys):
    Cityscapes.files = lambda self, p: str(next((root / "originals").glob(p)))
    builder = Cityscapes(data_dir=tmp_path)
    builder.download_and_prepare(file_format="array_record")
    return tmp_path / "cityscapes/semantic_segmentation/1.0.0"


def test_tfds_cityscapes(root, tfds_folder, monkeypatch):
    options = dict(label_space="crosscity13", split="validation")
    dataset = tfds_cityscapes(tfds_folder, **options)
    before = originals(root, "crosscity13")
    assert sorted(dataset.names) == list(before.names[:3])
    for i, name in enumerate(dataset.names):
        same(dataset[i], before[before.names.index(name)])
    # Names come from the file that the first call wrote.
    monkeypatch.setattr("uda_jax.data.tfds_cityscapes.open_split", None)
    again = tfds_cityscapes(tfds_folder, **options)
    assert again.names == dataset.names and fingerprint(again) == fingerprint(dataset)
    assert "label" not in tfds_cityscapes(tfds_folder, **options, labels=False)[0]
    assert set(np.unique(again.raw_label(0))) <= set(RAW_IDS)
    # It can be prepared, as any other.
    place = prepare(again, HALF, tfds_folder.parent / "sets", name="tfds_cityscapes")
    after, _ = find_prepared(again, HALF, tfds_folder.parent / "sets")
    assert str(place) == after.store.folder
    same(after[1], apply(HALF, again[1], None))


def test_tfds_folders_that_cannot_be_used(root, tfds_folder):
    space = dict(label_space="crosscity13")
    refused(lambda: tfds_cityscapes(tfds_folder, **space), "split of", "validation")
    refused(lambda: tfds_cityscapes(root, **space), "dataset_info.json")
    place = next((root / "sets").glob("*/*/1.0.0"))
    refused(lambda: tfds_cityscapes(place, **space), 'no feature "image_id"')
    path = tfds_folder / "dataset_info.json"
    path.write_text(path.read_text().replace("array_record", "tfrecord"))
    refused(
        lambda: tfds_cityscapes(tfds_folder, **space, split="validation"),
        "tfrecord",
        'file_format="array_record"',
    )
