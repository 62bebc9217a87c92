import json
import pickle

import numpy as np
import pytest
from PIL import Image
from small_files import ids, image, refused, write

from uda_jax.data.sources import camvid, cityscapes, crosscity, folder, manifest
from uda_jax.errors import UserError
from uda_jax.labels import IGNORE


@pytest.fixture
def city(tmp_path):
    """A Cityscapes folder with four training images in two towns."""
    for i, town in enumerate(["ulm", "ulm", "aachen", "aachen"]):
        name = f"{town}_{i:06d}_000019"
        write(tmp_path / f"leftImg8bit/train/{town}/{name}_leftImg8bit.png", image())
        label = tmp_path / f"gtFine/train/{town}/{name}_gtFine_labelIds.png"
        write(label, ids((7, 11, 26, 4)[i]))
        write(label.with_name(f"{name}_gtFine_color.png"), image())
    return tmp_path


@pytest.fixture
def nthu(tmp_path):
    for name, city in [("pic_1", "Rio"), ("pic_2", "Rio"), ("pic_1", "Rome")]:
        write(tmp_path / city / f"Images/Test/{name}.x.jpg", image())
        write(tmp_path / city / f"Labels/Test/{name}_eval.png", ids(33))
        write(tmp_path / city / f"Images/Train/{name}.jpg", image())
    return tmp_path


@pytest.fixture
def pair(tmp_path):
    """A folder dataset of one image and its label, to be damaged."""
    write(tmp_path / "images/a.png", image())
    write(tmp_path / "labels/a.png", ids(2))
    return tmp_path


def open_pair(root, **options):
    return folder(root, label_space="crosscity13", **options)


# What is read


def test_cityscapes(city):
    dataset = cityscapes(city, label_space="crosscity13")
    assert len(dataset) == 4 and dataset.label_space.name == "crosscity13"
    assert dataset.names == (
        "aachen_000002_000019",
        "aachen_000003_000019",
        "ulm_000000_000019",
        "ulm_000001_000019",
    )
    item = dataset[0]
    assert set(item) == {"image", "label", "name"}
    assert item["image"].shape == (4, 6, 3) and item["image"].dtype == np.uint8
    assert item["image"][0, 0].tolist() == [10, 20, 30]  # RGB
    assert item["label"].dtype == np.uint8
    values = [int(dataset[i]["label"][0, 0]) for i in range(4)]
    assert values == [9, IGNORE, 0, 2]  # car, static, road, building


def test_the_same_file_in_19_classes(city):
    assert cityscapes(city, label_space="cityscapes19")[0]["label"][0, 0] == 13


def test_a_fraction_of_cityscapes(city):
    half = cityscapes(city, label_space="crosscity13", fraction=0.5)
    assert half.names == ("aachen_000002_000019", "ulm_000000_000019")
    # int(1 / 0.6) is 1
    assert len(cityscapes(city, label_space="crosscity13", fraction=0.6)) == 4


def test_crosscity(nthu):
    dataset = crosscity(nthu, label_space="crosscity13", city="Rio", split="Test")
    assert dataset.names == ("Rio/pic_1", "Rio/pic_2")
    assert np.all(dataset[1]["label"] == 12)


def test_all_cities(nthu):
    dataset = crosscity(nthu, label_space="crosscity13", city="all", split="Test")
    assert dataset.names == ("Rio/pic_1", "Rio/pic_2", "Rome/pic_1")


def test_unlabelled_training_images_need_no_labels(nthu):
    options = dict(label_space="crosscity13", city="Rio", split="Train")
    dataset = crosscity(nthu, **options, labels=False)
    assert len(dataset) == 2 and set(dataset[0]) == {"image", "name"}
    with pytest.raises(UserError, match=r"Labels/Train does not exist"):
        crosscity(nthu, **options)
    for name in ("pic_1", "pic_2"):
        write(nthu / f"Rio/Labels/Train/{name}_eval.png", ids())
    assert "label" in crosscity(nthu, **options)[0]
    assert "label" not in crosscity(nthu, **options, labels=False)[0]


def test_camvid(tmp_path):
    for name, value in [("0006R0_f1", 0), ("0016E5_1", 11), ("0001TP_1", 10)]:
        write(tmp_path / f"train/images/{name}.jpg", image())
        write(tmp_path / f"train/labels/{name}.png", ids(value))
    options = dict(label_space="camvid11", split="train")
    assert len(camvid(tmp_path, **options)) == 3
    day = camvid(tmp_path, **options, sequences=("0006R0", "0016E5"))
    assert day.names == ("0006R0_f1", "0016E5_1")
    assert [int(day[i]["label"][0, 0]) for i in range(2)] == [0, IGNORE]
    with pytest.raises(UserError, match='did you mean "0006R0"'):
        camvid(tmp_path, **options, sequences=("0006R",))


def test_folder_suffixes_and_subfolders(tmp_path):
    write(tmp_path / "rgb/x/1_rgb.png", image())
    write(tmp_path / "rgb/x/1_depth.png", image())
    write(tmp_path / "ids/x/1_ids.png", ids(33))
    dataset = open_pair(
        tmp_path,
        images="rgb",
        labels_dir="ids",
        image_suffix="_rgb.png",
        label_suffix="_ids.png",
        coding="label_ids",
    )
    assert dataset.names == ("x/1",) and np.all(dataset[0]["label"] == 12)


def test_train_ids_pass_unchanged(pair):
    write(pair / "labels/a.png", np.array([[0, 12, IGNORE] * 2] * 4, np.uint8))
    assert open_pair(pair)[0]["label"][0].tolist() == [0, 12, IGNORE] * 2


def test_palette_labels_are_indices(pair):
    label = Image.fromarray(ids(2), mode="P")
    label.putpalette([v for i in range(256) for v in (255 - i, i, 7)])
    label.save(pair / "labels/a.png")
    assert np.all(open_pair(pair)[0]["label"] == 2)


def test_labels_in_capitals(pair):
    (pair / "labels/a.png").rename(pair / "labels/a.PNG")
    (pair / "images/a.png").rename(pair / "images/a.PNG")
    assert np.all(open_pair(pair)[0]["label"] == 2)


def test_manifest(tmp_path):
    write(tmp_path / "i/a.png", image())
    write(tmp_path / "l/a.png", ids(5))
    path = tmp_path / "list.jsonl"
    path.write_text(json.dumps({"image": "i/a.png", "label": "l/a.png"}) + "\n\n")
    dataset = manifest(path, label_space="crosscity13")
    assert dataset.names == ("i/a.png",) and np.all(dataset[0]["label"] == 5)
    assert set(manifest(path, label_space="crosscity13", labels=False)[0]) == {
        "image",
        "name",
    }


def test_datasets_can_be_pickled(city):
    dataset = cityscapes(city, label_space="crosscity13")
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy[2]["label"], dataset[2]["label"])


# What is refused, in one sentence that names the file and the remedy


def test_missing_folders(tmp_path):
    space = dict(label_space="crosscity13")
    refused(
        lambda: cityscapes(tmp_path / "no/where", **space),
        str(tmp_path / "no/where/leftImg8bit"),
        "set the dataset's root",
    )
    refused(lambda: crosscity(tmp_path / "no", city="Rio", **space), f"{tmp_path}/no")
    refused(lambda: camvid(tmp_path / "no", label_space="camvid11", split="val"), "no")
    refused(lambda: open_pair(tmp_path), str(tmp_path / "images"))
    refused(lambda: manifest(tmp_path / "l.jsonl", **space), "l.jsonl does not exist")


def test_empty_folders(tmp_path, pair):
    (tmp_path / "c/leftImg8bit").mkdir(parents=True)
    refused(
        lambda: cityscapes(tmp_path / "c", label_space="crosscity13"),
        "leftImg8bit is empty",
        "unpack",
    )
    (pair / "images/a.png").unlink()
    refused(lambda: open_pair(pair), "no images match", str(pair / "images"))
    (tmp_path / "e.jsonl").write_text("\n")
    empty = tmp_path / "e.jsonl"
    refused(lambda: manifest(empty, label_space="crosscity13"), "e.jsonl")


def test_images_without_labels_are_counted(city):
    for town in ("ulm", "aachen"):
        next((city / "gtFine/train" / town).glob("*labelIds.png")).unlink()
    refused(
        lambda: cityscapes(city, label_space="crosscity13"),
        "2 of 4 images",
        "the first is aachen_00000",
        "_gtFine_labelIds.png",
        "add the labels",
    )
    assert len(cityscapes(city, label_space="crosscity13", labels=False)) == 4


def test_unknown_splits_and_cities(city, nthu):
    refused(
        lambda: cityscapes(city, label_space="crosscity13", split="tran"),
        'did you mean "train"',
    )
    refused(
        lambda: crosscity(nthu, label_space="crosscity13", city="Roma", labels=False),
        'did you mean "Rome"',
        "Rio",
    )
    refused(
        lambda: crosscity(nthu, label_space="crosscity13", city="Rio", split="test"),
        'did you mean "Test"',
    )
    refused(
        lambda: cityscapes(city, label_space="crosscity13", fraction=0), "fraction=0"
    )


def test_label_spaces_of_another_dataset(city, pair):
    refused(
        lambda: cityscapes(city, label_space="parking7"),
        '"parking7" has no class of these labels',
        "crosscity13",
    )
    refused(lambda: cityscapes(city, label_space="crosscity"), "crosscity13")
    refused(lambda: open_pair(pair, coding="trainids"), 'did you mean "train_ids"')


def test_sizes_that_differ(pair):
    write(pair / "labels/a.png", ids(2, height=5))
    refused(
        lambda: open_pair(pair)[0],
        "labels/a.png is 5 x 6",
        "images/a.png is 4 x 6",
        "resize",
    )


def noise(shape):
    return np.random.default_rng(0).integers(0, 13, shape, np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_cut_off_images(pair, suffix, capfd):
    (pair / "images/a.png").unlink()
    path = write(pair / f"images/a{suffix}", noise((40, 60, 3)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(lambda: open_pair(pair)[0], str(path), "damaged or cut off", "copy it")
    assert capfd.readouterr().err == ""  # nothing beside the sentence


def test_cut_off_labels(pair):
    write(pair / "images/a.png", noise((40, 60, 3)))
    path = write(pair / "labels/a.png", noise((40, 60)))
    assert open_pair(pair)[0]
    path.write_bytes(path.read_bytes()[:-30])
    refused(lambda: open_pair(pair)[0], str(path), "damaged or cut off")


@pytest.mark.parametrize("which", ["images", "labels"])
def test_damaged_files(pair, which):
    write(pair / "images/a.png", noise((40, 60, 3)))
    write(pair / "labels/a.png", noise((40, 60)))
    path = pair / which / "a.png"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    refused(lambda: open_pair(pair)[0], str(path), "damaged")


@pytest.mark.parametrize("content", [b"", b"GIF89a....", b"<html>404</html>"])
def test_files_that_are_no_images(pair, content):
    (pair / "images/a.png").write_bytes(content)
    refused(lambda: open_pair(pair)[0], "images/a.png", "neither a PNG nor a JPEG")


def test_files_that_vanish(pair):
    dataset = open_pair(pair)
    (pair / "images/a.png").unlink()
    refused(lambda: dataset[0], "images/a.png", "cannot be opened")


def test_ids_outside_of_the_table(city, pair):
    path = next((city / "gtFine/train/aachen").glob("*labelIds.png"))
    label = ids(7)
    label[0, :2] = 34, 200
    write(path, label)
    dataset = cityscapes(city, label_space="crosscity13")
    index = [str(path) == p for p in dataset.store.labels].index(True)
    refused(lambda: dataset[index], str(path), "34, 200", "known: 0-33, 255")
    write(pair / "labels/a.png", ids(13))
    refused(lambda: open_pair(pair)[0], "labels/a.png", "13", "known: 0-12, 255")


def test_labels_in_colour(pair):
    write(pair / "labels/a.png", image())
    refused(lambda: open_pair(pair)[0], "labels/a.png", "colours (3 channels)")
    write(pair / "labels/a.png", ids(2).astype(np.uint16))
    refused(lambda: open_pair(pair)[0], "labels/a.png", "16-bit")


def test_labels_as_jpeg(pair):
    (pair / "labels/a.png").unlink()
    write(pair / "labels/a.jpg", ids(2))
    refused(lambda: open_pair(pair, label_suffix=".jpg")[0], "a.jpg is not a PNG")


def test_images_that_are_not_rgb(pair):
    write(pair / "images/a.png", ids())
    refused(lambda: open_pair(pair)[0], "a.png has 1 channel of 8 bits", "convert")
    write(pair / "images/a.png", np.zeros((4, 6, 4), np.uint8))
    refused(lambda: open_pair(pair)[0], "has 4 channels of 8 bits")
    write(pair / "images/a.png", image().astype(np.uint16))
    refused(lambda: open_pair(pair)[0], "has 3 channels of 16 bits")


@pytest.mark.parametrize("name", ["b.tif", "c/b.BMP", "b.webp"])
def test_images_of_other_formats(pair, name):
    (pair / "images/c").mkdir()
    (pair / "images" / name).touch()
    refused(lambda: open_pair(pair), f"images/{name}, the first of 1", "convert them")


def test_links_that_repeat_a_folder(pair):
    (pair / "images/again").symlink_to(pair / "images")
    refused(lambda: open_pair(pair), "images/again are the same", "remove the link")


def test_two_images_for_one_label(pair):
    write(pair / "images/a.jpg", image())
    refused(lambda: open_pair(pair), 'the name "a"', "rename")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("{", ("line 1", "not JSON")),
        ('{"label": "a.png"}', ("line 1", 'no "image"')),
        ('\n{"image": "a.png", "lable": "a.png"}', ("line 2", 'mean "label"')),
        ('{"image": "a.png", "weight": "1"}', ('"weight"', "number")),
        ('{"image": "a.png", "weight": NaN}', ('"weight"', "nan", "number")),
        ('{"image": "a.png"}\n{"image": "b.png", "weight": 1}', ("1 of 2 lines",)),
        ('{"image": "a.png"}', ('no "label"', "a.png")),
        ('{"image": "c.png", "label": "a.png"}', ("c.png", "do not exist")),
        ('{"image": "a.png", "label": "c.png"}', ("have no label", "c.png")),
    ],
)
def test_manifest_mistakes(tmp_path, text, parts):
    write(tmp_path / "a.png", image())
    write(tmp_path / "b.png", image())
    path = tmp_path / "list.jsonl"
    path.write_text(text)
    refused(lambda: manifest(path, label_space="crosscity13"), *parts)
