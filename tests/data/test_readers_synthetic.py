import numpy as np
import pytest
import scipy.io
from PIL import Image
from small_files import (
    ids,
    image,
    refused,
    values,
    write,
    write_palette,
    write_synthia,
)

from uda_jax.data.images import read_raw_label
from uda_jax.data.sources import gta5, synthia
from uda_jax.labels import IGNORE

SPACE = dict(label_space="cityscapes19")


@pytest.fixture
def gta(tmp_path):
    for number in range(1, 6):
        write(tmp_path / f"images/{number:05d}.png", image())
        label = ids(7, height=5 if number == 3 else 4)
        label[-1, -1] = 34  # the licence plate, unknown to Cityscapes
        write_palette(tmp_path / f"labels/{number:05d}.png", label)
    return tmp_path


def test_gta5(gta):
    dataset = gta5(gta, **SPACE)
    assert dataset.names == ("00001", "00002", "00003", "00004", "00005")
    assert np.unique(dataset.raw_label(0)).tolist() == [7, 34]
    assert np.unique(dataset[0]["label"]).tolist() == [0, IGNORE]


def test_gta5_labels_of_another_size_come_as_they_are(gta):
    item = gta5(gta, **SPACE)[2]
    assert item["image"].shape == (4, 6, 3) and item["label"].shape == (5, 6)


def test_gta5_converted_labels(gta):
    read = dict(**SPACE, label_files="train_ids")
    refused(lambda: gta5(gta, **read), 'set label_files="label_ids"')
    for number in range(1, 6):
        write(gta / f"labels/{number:05d}_labelTrainIds.png", ids(number))
    assert values(gta5(gta, **read)) == [1, 2, 3, 4, 5]


def column(*numbers):
    return np.array(numbers, np.float64)[:, None]  # MATLAB's


def test_gta5_official_splits(gta, tmp_path_factory):
    refused(
        lambda: gta5(gta, **SPACE, split="train"),
        f"{gta / 'split.mat'} does not exist",
        "download split.mat",
        'split="all"',
    )
    numbers = {"trainIds": column(5, 1), "valIds": column(2, 3), "testIds": column(4)}
    scipy.io.savemat(gta / "split.mat", numbers)
    assert gta5(gta, **SPACE, split="train").names == ("00001", "00005")
    assert gta5(gta, **SPACE, split="val").names == ("00002", "00003")
    assert gta5(gta, **SPACE, split="test").names == ("00004",)
    elsewhere = tmp_path_factory.mktemp("lists") / "split.mat"
    (gta / "split.mat").rename(elsewhere)
    found = gta5(gta, **SPACE, split="val", list_file=str(elsewhere))
    assert found.names == ("00002", "00003")


def test_gta5_split_files_that_are_wrong(gta):
    path = gta / "split.mat"
    read = lambda: gta5(gta, **SPACE, split="train")
    scipy.io.savemat(path, {"trainIds": column(1, 6, 7)})
    refused(read, "2 of the 3 images", "00006.png", "unpack all")
    scipy.io.savemat(path, {"train": column(1)})
    refused(read, str(path), "no numbers trainIds", "again")
    for content in (b"", b"<html>404</html>", b"\x89HDF" + bytes(600)):
        path.write_bytes(content)
        refused(read, str(path), "no numbers trainIds", "again")
    refused(lambda: gta5(gta, **SPACE, list_file=str(path)), "several splits")
    refused(lambda: gta5(gta, **SPACE, split="trian"), 'did you mean "train"')


def test_synthia(tmp_path):
    for number, raw in enumerate((3, 12, 22)):
        write(tmp_path / f"RGB/{number:07d}.png", image())
        write_synthia(tmp_path / f"GT/LABELS/{number:07d}.png", ids(raw))
    assert values(synthia(tmp_path, label_space="cityscapes16")) == [0, 14, IGNORE]
    assert values(synthia(tmp_path, label_space="crosscity13")) == [0, 11, IGNORE]
    refused(
        lambda: synthia(tmp_path, **SPACE, split="val"),
        "none of the 3 images",
        "number from 9000",
        'split="all"',
    )
    for number in range(3):
        name = f"GT/LABELS/{number:07d}_labelTrainIds.png"
        write(tmp_path / name, ids(17))
    converted = synthia(tmp_path, label_space="cityscapes16", label_files="train_ids")
    assert values(converted) == [14] * 3


def test_synthia_labels_that_lost_their_ids(tmp_path):
    write(tmp_path / "RGB/0000000.png", image())
    path = write(tmp_path / "GT/LABELS/0000000.png", image())
    refused(lambda: synthia(tmp_path, **SPACE)[0], str(path), "16 bits", "as they were")
    write_synthia(path, ids(23))
    refused(lambda: synthia(tmp_path, **SPACE)[0], "23", "known: 0-22")


def test_synthia_is_split_by_number(tmp_path):
    (tmp_path / "RGB").mkdir()
    split = lambda name: synthia(tmp_path, **SPACE, split=name, labels=False).names
    for number in (9000, 9399):
        (tmp_path / f"RGB/{number:07d}.png").touch()
    refused(lambda: split("train"), "number below 9000", 'split "train"')
    for number in (0, 8999):
        (tmp_path / f"RGB/{number:07d}.png").touch()
    assert split("train") == ("0000000", "0008999")
    assert split("val") == ("0009000", "0009399")
    assert split("all") == split("train") + split("val")
    (tmp_path / "RGB/first.png").touch()
    refused(lambda: split("val"), "first.png", "published names", 'split="all"')
    assert len(split("all")) == 5


def test_a_paletted_label_read_as_its_colours_would_be_wrong(gta):
    path = gta / "labels/00001.png"
    assert np.array(Image.open(path).convert("RGB"))[0, 0].tolist() == [248, 7, 7]
    assert read_raw_label(path)[0, 0] == 7
