import dataclasses
import json
import os

import cv2
import numpy as np
import pytest

from uda_jax.class_weights import class_weights, from_frequencies
from uda_jax.data.daformer_statistics import read_daformer, write_daformer
from uda_jax.data.dataset import make_dataset
from uda_jax.data.statistics import ClassCounts, class_counts
from uda_jax.errors import UserError
from uda_jax.labels import LABEL_SPACES, get_label_space

# Cityscapes' label ids: 7 road, 8 sidewalk, 26 car, 31 train, 4 none.
LABELS = ([[7, 7, 8], [4, 26, 26]], [[31, 31, 31], [7, 7, 7]], [[4, 4, 4], [4, 4, 4]])
# Road, sidewalk, car, train.
COUNTS = [[2, 1, 2, 0], [3, 0, 0, 3], [0, 0, 0, 0]]


def write(folder, labels=LABELS, space="cityscapes19"):
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i}_gtFine_labelIds.png" for i in range(len(labels))]
    for i, (path, label) in enumerate(zip(paths, labels, strict=True)):
        assert cv2.imwrite(str(path), np.array(label, np.uint8))
        os.utime(path, (0, 1000 + i))
    names = [str(i) for i in range(len(labels))]
    return make_dataset(space, "cityscapes", folder, names, paths, paths)


@pytest.fixture
def dataset(tmp_path):
    return write(tmp_path / "labels")


def of(counts, *names):
    return counts.counts[:, counts.label_space.train_ids(names)].tolist()


@pytest.mark.parametrize("threads", [1, 4])
def test_counts_by_hand(dataset, threads):
    counts = class_counts(dataset, None, threads=threads)
    assert counts.names == dataset.names
    assert counts.counts.dtype == np.int64 and counts.counts.shape == (3, 19)
    assert of(counts, "road", "sidewalk", "car", "train") == COUNTS
    assert counts.counts.sum() == 11  # ignored pixels are in no column
    assert counts.totals[0] == 5
    assert counts.frequencies[0] == 5 / 11 and np.isclose(counts.frequencies.sum(), 1)


def test_nothing_but_ignored_pixels_has_no_frequencies(dataset):
    counts = class_counts(dataset.select([2]), None)
    assert not counts.frequencies.any()


def test_large_labels_are_counted_exactly(tmp_path):
    # More than 2^24 pixels, where float32 stops counting.
    label = np.full((4200, 4100), 7, np.uint8)
    label[0, :3] = 8
    counts = class_counts(write(tmp_path / "large", [label]), None)
    assert of(counts, "road", "sidewalk") == [[4200 * 4100 - 3, 3]]


def test_progress_counts_every_label(dataset):
    seen = []
    class_counts(dataset, None, progress=lambda *numbers: seen.append(numbers))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def forbid_reading(monkeypatch, dataset):
    def fail(*_):
        raise AssertionError("a label was read")

    monkeypatch.setattr(type(dataset.store), "raw_label", fail)


def test_the_second_time_no_label_is_read(dataset, tmp_path, monkeypatch):
    first = class_counts(dataset, tmp_path)
    assert [p.suffix for p in (tmp_path / "statistics").iterdir()] == [".npz"]
    forbid_reading(monkeypatch, dataset)
    assert np.array_equal(class_counts(dataset, tmp_path).counts, first.counts)
    # One file serves every label space.
    smaller = dataclasses.replace(dataset, label_space=LABEL_SPACES["crosscity13"])
    counts = class_counts(smaller, tmp_path)
    assert counts.counts.shape == (3, 13)
    assert of(counts, "road", "sidewalk", "car") == [row[:3] for row in COUNTS]


def test_a_changed_label_is_counted_anew(dataset, tmp_path):
    class_counts(dataset, tmp_path)
    changed = write(tmp_path / "labels", [[[8]], LABELS[1], LABELS[2]])
    assert of(class_counts(changed, tmp_path), "sidewalk") == [[1], [0], [0]]
    # As are some of the labels, or the same in another order.
    turned = class_counts(changed.select([1, 0]), tmp_path)
    assert turned.names == ("1", "0") and of(turned, "sidewalk") == [[0], [1]]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "length", "other", "type"])
def test_a_damaged_file_is_replaced(dataset, tmp_path, damage):
    good = class_counts(dataset, tmp_path)
    (path,) = (tmp_path / "statistics").iterdir()
    data = path.read_bytes()
    content = dict(np.load(path))
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        middle = data.index(b"raw_counts") + 60
        path.write_bytes(
            data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]
        )
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "length":
        np.savez(path, **{**content, "raw_counts": content["raw_counts"][:2]})
    elif damage == "other":
        np.savez(path, **{**content, "fingerprint": "0" * 16})
    else:
        np.savez(path, **{**content, "raw_counts": content["raw_counts"] * 1.5})
    counted = []
    again = class_counts(dataset, tmp_path, progress=lambda *n: counted.append(n))
    assert len(counted) == 3
    assert np.array_equal(again.counts, good.counts)
    assert np.array_equal(np.load(path)["raw_counts"], content["raw_counts"])
    assert os.listdir(path.parent) == [path.name]


def test_an_id_outside_the_coding_is_found_in_files_and_in_the_cache(
    dataset, tmp_path, monkeypatch
):
    small = dataclasses.replace(dataset, coding={4: "", 7: "road", 8: "sidewalk"})
    with pytest.raises(UserError, match=r"0_gtFine_labelIds\.png contains the ids 26"):
        class_counts(small, tmp_path)
    assert not (tmp_path / "statistics").exists()
    class_counts(dataset, tmp_path)
    forbid_reading(monkeypatch, dataset)
    with pytest.raises(UserError, match=r"0_gtFine_labelIds\.png contains the ids 26"):
        class_counts(small, tmp_path)


def test_prepared_data_brings_its_counts_along(dataset):
    @dataclasses.dataclass
    class Records:
        raw_counts: np.ndarray
        has_labels: bool = True

        def where(self, index):
            return "", f"label {index}"

    raw = np.zeros((3, 256), np.int64)
    raw[1, 26] = 2**40
    prepared = dataclasses.replace(dataset, store=Records(raw))
    assert of(class_counts(prepared, None), "car", "road") == [
        [0, 0],
        [2**40, 0],
        [0, 0],
    ]
    with pytest.raises(UserError, match="prepare it anew"):
        class_counts(dataclasses.replace(dataset, store=Records(raw[:2])), None)


def test_without_labels_there_is_nothing_to_count(dataset):
    store = dataclasses.replace(dataset.store, labels=())
    with pytest.raises(UserError, match="without labels"):
        class_counts(dataclasses.replace(dataset, store=store), None)


def test_a_folder_that_cannot_be_written_is_named(dataset, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        class_counts(dataset, tmp_path / "file")


def test_weights_from_frequencies():
    assert np.allclose(from_frequencies([0, 0.5, 1]), [10.492059, 2.127643, 1.347823])
    for classes in (13, 16, 19):
        published = class_weights("small", classes)
        frequencies = np.exp(1 / published.astype(np.float64)) - 1.10
        assert np.all((frequencies > 0) & (frequencies < 0.4))
        assert 0.8 < frequencies.sum() < 1.07
        assert np.allclose(from_frequencies(frequencies), published, rtol=1e-6)
    for wrong in ([1.1], [-0.1], [np.nan]):
        with pytest.raises(UserError, match="from 0 to 1"):
            from_frequencies(wrong)


# DAFormer's three files.


def test_daformer_files_by_hand(dataset, tmp_path):
    write_daformer(class_counts(dataset, None), dataset, tmp_path)
    read = lambda name: json.loads((tmp_path / name).read_text())
    files = [str(tmp_path / f"labels/{i}_gtFine_labelTrainIds.png") for i in range(3)]
    assert read("sample_class_stats.json") == [
        {"0": 2, "1": 1, "13": 2, "file": files[0]},
        {"0": 3, "16": 3, "file": files[1]},
        {"file": files[2]},
    ]
    assert read("sample_class_stats_dict.json") == {
        files[0]: {"0": 2, "1": 1, "13": 2},
        files[1]: {"0": 3, "16": 3},
        files[2]: {},
    }
    assert read("samples_with_class.json") == {
        "0": [[files[0], 2], [files[1], 3]],
        "1": [[files[0], 1]],
        "13": [[files[0], 2]],
        "16": [[files[1], 3]],
    }


@pytest.mark.parametrize("space", ["cityscapes19", "cityscapes16", "crosscity13"])
def test_daformer_files_are_read_back(tmp_path, space):
    dataset = write(tmp_path / "labels", space=space)
    counts = class_counts(dataset, None)
    write_daformer(counts, dataset, tmp_path)
    for path in (tmp_path, tmp_path / "sample_class_stats.json"):
        again = read_daformer(path, dataset)
        assert np.array_equal(again.counts, counts.counts)
        assert again.names == counts.names and again.label_space is counts.label_space
    # A part of the data set, in another order.
    part = read_daformer(tmp_path, dataset.select([1, 0]))
    assert np.array_equal(part.counts, counts.counts[[1, 0]])


def test_daformer_files_name_classes_not_columns(dataset, tmp_path):
    # Car is 13 of 19 classes and 9 of CrossCity's 13; train, 16, it lacks.
    write_daformer(class_counts(dataset, None), dataset, tmp_path)
    small = dataclasses.replace(dataset, label_space=LABEL_SPACES["crosscity13"])
    counts = read_daformer(tmp_path, small)
    assert of(counts, "road", "car") == [[2, 2], [3, 0], [0, 0]]
    assert counts.counts.sum() == 8


def test_daformer_paths_count_by_their_last_part(dataset, tmp_path):
    path = tmp_path / "sample_class_stats.json"
    rows = [
        {"13": 5, "file": f"elsewhere/train/aachen/{i}_gtFine_labelTrainIds.png"}
        for i in (2, 1, 7, 0)
    ]
    path.write_text(json.dumps(rows))
    assert of(read_daformer(path, dataset), "car") == [[5], [5], [5]]


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "cannot be opened"),
        ("[{", "not JSON"),
        ("{}", "not a list"),
        ('[{"0": 1}]', "has the entry"),
        ('[{"19": 1, "file": "a.png"}]', "from 0 to 18"),
        ('[{"0": -1, "file": "a.png"}]', "has the entry"),
        ('[{"0": 1.5, "file": "a.png"}]', "has the entry"),
        ('[{"0": 1, "file": "0_gtFine_labelTrainIds.png"}]', "no entry for 2 of 3"),
        ('[{"file": "0_gtFine.png"}, {"file": "x/0_gtFine.png"}]', "two entries"),
    ],
)
def test_wrong_daformer_files_are_explained(dataset, tmp_path, content, message):
    if content is not None:
        (tmp_path / "sample_class_stats.json").write_text(content)
    with pytest.raises(UserError, match=message):
        read_daformer(tmp_path / "sample_class_stats.json", dataset)


def test_daformer_files_need_cityscapes_classes_and_label_files(dataset, tmp_path):
    counts = class_counts(dataset, None)
    parking = dataclasses.replace(dataset, label_space=get_label_space("parking7"))
    with pytest.raises(UserError, match="parking7"):
        read_daformer(tmp_path, parking)
    with pytest.raises(UserError, match="original folders"):
        write_daformer(counts, dataclasses.replace(dataset, store=None), tmp_path)
    with pytest.raises(UserError, match="other examples"):
        write_daformer(counts, dataset.select([0]), tmp_path)


def test_counts_have_a_column_for_each_class(dataset):
    with pytest.raises(ValueError, match="int64"):
        ClassCounts(("a",), np.zeros((1, 3), np.int64), dataset.label_space)
