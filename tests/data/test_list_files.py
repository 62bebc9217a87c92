"""Every format in which the published programs list images."""

from pathlib import Path

import pytest
from small_files import refused

from uda_jax.data.sources import (
    acdc,
    camvid,
    cityscapes,
    cityscapes_weather,
    crosscity,
    gta5,
    parking,
    synthia,
)


def touch(root, *names):
    """Empty files: listing them decodes none."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.fixture
def read(tmp_path):
    """read(reader, text of the list) -> names."""

    def names(reader, text, **options):
        path = tmp_path / "list.txt"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        space = {"parking": "parking7", "camvid": "camvid11"}
        options["label_space"] = space.get(reader.__name__, "cityscapes19")
        return reader(tmp_path, **options, list_file=str(path), labels=False).names

    return names


@pytest.fixture
def towns(tmp_path):
    for name in ("aachen/aachen_0_1", "aachen/aachen_0_2", "ulm/ulm_0_1"):
        touch(tmp_path, f"leftImg8bit/train/{name}_leftImg8bit.png")
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [
        "ulm_0_1\naachen_0_2\n",
        "train_ulm_0_1\ntrain_aachen_0_2\n",  # MaxSquare
        "ulm/ulm_0_1_leftImg8bit.png\naachen/aachen_0_2_leftImg8bit.png",  # ADVENT
        "ulm/ulm_0_1\naachen/aachen_0_2\n",  # mmsegmentation
        "leftImg8bit/train/ulm/ulm_0_1_leftImg8bit.png "  # SS-ADA
        "gtFine/train/ulm/ulm_0_1_gtFine_labelTrainIds.png\n"
        "leftImg8bit/train/aachen/aachen_0_2_leftImg8bit.png "
        "gtFine/train/aachen/aachen_0_2_gtFine_labelTrainIds.png\n",
        "\ufeffulm_0_1\r\n\r\n  ./aachen_0_2\r\n",
    ],
)
def test_lists_of_cityscapes(towns, read, text):
    assert read(cityscapes, text) == ("ulm_0_1", "aachen_0_2")


def test_a_fraction_of_a_list(towns, read):
    text = "ulm_0_1\naachen_0_2\naachen_0_1"
    assert read(cityscapes, text, fraction=0.5) == ("ulm_0_1", "aachen_0_1")


def test_lists_of_gta5(tmp_path, read):
    touch(tmp_path, *(f"images/{i:05d}.png" for i in (1, 10, 100)))
    both = ("00100", "00001")
    assert read(gta5, "100\n1\n") == both  # MaxSquare
    assert read(gta5, "00100.png\n00001.png\n") == both  # ADVENT
    assert read(gta5, "00100\n00001\n") == both  # mmsegmentation
    text = "".join(f"images/{n}.png labels/{n}_labelTrainIds.png\n" for n in both)
    assert read(gta5, text) == both  # SS-ADA


@pytest.mark.parametrize("ending", ["9.png", "9_labelTrainIds.png", "_1.png", ".jpg"])
def test_labels_of_other_images(tmp_path, read, ending):
    touch(tmp_path, "images/00001.png", "images/000019.png")
    line = f"images/00001.png labels/00001{ending}"
    refused(
        lambda: read(gta5, line), f"the label labels/00001{ending}", "as a manifest"
    )


def test_lists_made_for_another_root(tmp_path, read):
    touch(tmp_path, "images/00001.png")
    refused(
        lambda: read(gta5, "data/gta5/images/00001.png"),
        '"data/gta5/images/00001.png"',
        "folders are not those",
        'write "images/00001.png"',
    )
    for city in ("Rio", "Rome"):
        touch(tmp_path, f"{city}/Images/Train/pano_2.jpg")
    line = "../NTHU/Rome/Images/Train/pano_2.jpg"
    refused(
        lambda: read(crosscity, line, city="all"),
        'write "Rome/Images/Train/pano_2.jpg"',
    )


def test_lists_of_synthia(tmp_path, read):
    touch(tmp_path, "RGB/0000000.png", "RGB/0000017.png")
    assert read(synthia, "17\n0\n") == ("0000017", "0000000")
    refused(lambda: read(synthia, "."), "no image")
    assert read(synthia, "0000017.png\n") == ("0000017",)


def test_lists_of_crosscity(tmp_path, read):
    for name in ("Rio/Images/Train/pano_2_0.jpg", "Rio/Images/Train/pano_3_0.x.png"):
        touch(tmp_path, name, name.replace("Rio", "Rome"))
    rio = dict(city="Rio")
    assert read(crosscity, "pano_3_0\n", **rio) == ("Rio/pano_3_0",)
    assert read(crosscity, "pano_3_0.x.png\npano_2_0.jpg\n", **rio) == (
        "Rio/pano_3_0",
        "Rio/pano_2_0",
    )
    every = dict(city="all")
    assert read(crosscity, "Rome/Images/Train/pano_2_0.jpg", **every) == (
        "Rome/pano_2_0",
    )
    refused(
        lambda: read(crosscity, "\npano_2_0\n", **every),
        "line 2 of list file",
        "names 2 images",
        "behind its folder",
    )


def test_lists_of_the_others(tmp_path, read):
    touch(tmp_path, "image/train/1645.png", "image/train/1646.25.png")
    pair = "image/train/1646.25.png label/train/1646.25.png"
    assert read(parking, pair) == ("1646.25",)
    touch(tmp_path, "rgb_anon/train/GP_1_rgb_anon.png")
    assert read(acdc, "GP_1\n") == read(acdc, "GP_1_rgb_anon.png\n") == ("GP_1",)
    touch(tmp_path, "test/images/0001TP_1.jpg")
    assert read(camvid, "0001TP_1.png", split="test") == ("0001TP_1",)
    fog = "leftImg8bit_foggy/train/ulm/ulm_0_1_leftImg8bit_foggy_beta_0.02.png"
    touch(tmp_path, fog, fog.replace("0.02", "0.01"))
    for line in (fog, Path(fog).name, "ulm_0_1_foggy_beta_0.02"):
        names = read(cityscapes_weather, line, weather=("foggy",))
        assert names == ("ulm_0_1_foggy_beta_0.02",)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ("is empty", "one image per line")),
        ("ulm_0_1\nulm_0_7\nbonn", ("2 of 3 lines", 'line 2, "ulm_0_7"', "train")),
        ("aachen/ulm_0_1", ("1 of 1 lines", "no image")),
        ("val_ulm_0_9", ("no image",)),
        ("a b c", ('line 1, "a b c"',)),
        ("/", ("no image",)),
        (".", ("no image",)),
        ("ulm_0_1 gtFine/train/ulm/ulm_0_2.png", ("the label", "as a manifest")),
        ("ulm_0_1 pseudo/ulm/ulm_0_1.png", ("line 1", "pseudo/ulm", "gtFine/train")),
        ("ulm_0_1\n\nulm/ulm_0_1", ("lines 1 and 3", "same image", "remove one")),
        (b"\xff\xfe\x00", ("cannot be read as UTF-8",)),
        ("9" * 5000, ("no image",)),
    ],
)
def test_mistakes_in_lists(towns, read, text, parts):
    refused(lambda: read(cityscapes, text), "list.txt", *parts)


def test_lists_that_are_missing(towns):
    options = dict(label_space="cityscapes19", list_file="lists/train.txt")
    refused(
        lambda: cityscapes(towns, **options),
        "list file lists/train.txt does not exist",
        "one image per line",
    )
