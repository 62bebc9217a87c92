from small_files import ids, image, refused, values, write

from uda_jax.data.sources import acdc, camvid, crosscity, dark_zurich, parking
from uda_jax.labels import IGNORE

SPACE = dict(label_space="cityscapes19")


# ACDC and Dark Zurich


def write_adverse(root, folder, name, value):
    write(root / f"rgb_anon/{folder}/{name}_rgb_anon.png", image())
    label = root / f"gt/{folder}/{name}_gt_labelTrainIds.png"
    write(label, ids(value))
    write(label.with_name(f"{name}_gt_labelIds.png"), ids(7))
    write(label.with_name(f"{name}_gt_labelColor.png"), image())


CONDITIONS = {
    "fog": "GP0475",
    "night": "GOPR0351",
    "rain": "GP0400",
    "snow": "GOPR0122",
}


def nested_acdc(root):
    for value, (condition, sequence) in enumerate(CONDITIONS.items()):
        folder = f"{condition}/train/{sequence}"
        write_adverse(root, folder, f"{sequence}_frame_000161", value)
        clear = f"rgb_anon/{condition}/train_ref/{sequence}/x_rgb_ref_anon.png"
        write(root / clear, image())
    return root


def flat_acdc(root):
    for value, sequence in enumerate(CONDITIONS.values()):
        write_adverse(root, "train", f"{sequence}_frame_000161", value)
    return root


def test_acdc_as_published(tmp_path):
    root = nested_acdc(tmp_path)
    dataset = acdc(root, **SPACE)
    assert dataset.names[0] == "GP0475_frame_000161"
    assert values(dataset) == [0, 1, 2, 3]
    assert values(acdc(root, **SPACE, conditions=("snow", "night"))) == [3, 1]
    assert values(acdc(root, **SPACE, label_files="label_ids")) == [0] * 4


def test_acdc_flattened(tmp_path):
    root = flat_acdc(tmp_path)
    assert sorted(values(acdc(root, **SPACE))) == [0, 1, 2, 3]
    refused(
        lambda: acdc(root, **SPACE, conditions=("fog",)),
        "no folders of conditions",
        "conditions=()",
    )
    # What DAFormer's instructions leave: both trees in one folder.
    nested_acdc(root)
    assert values(acdc(root, **SPACE)) == [0, 1, 2, 3]


def test_acdc_mistakes(tmp_path):
    root = nested_acdc(tmp_path)
    refused(lambda: acdc(root, **SPACE, split="train_ref"), 'did you mean "train"')
    refused(lambda: acdc(root, **SPACE, conditions=("mist",)), "fog, night, rain, snow")
    refused(lambda: acdc(root, **SPACE, conditions="night"), 'give ("night",)')
    refused(lambda: acdc(root, **SPACE, conditions=("fog", "fog")), "given twice")
    refused(lambda: acdc(root, **SPACE, split="val"), "no folder fog/val", "unpack it")
    refused(lambda: acdc(root / "gt", **SPACE), "rgb_anon does not exist")


def test_dark_zurich(tmp_path):
    for split, name in (("train", "GOPR0351_frame_1"), ("val", "GOPR0356_frame_2")):
        write_adverse(tmp_path, f"{split}/night/{name[:8]}", name, 5)
    write_adverse(tmp_path, "train/day/GOPR0345", "GOPR0345_frame_3", 5)
    write(tmp_path / "rgb_anon/val_ref/day/a/b_rgb_ref_anon.png", image())
    assert values(dark_zurich(tmp_path, **SPACE, split="val")) == [5]
    train = dark_zurich(tmp_path, **SPACE, split="train", labels=False)
    assert train.names == ("GOPR0351_frame_1",)
    refused(lambda: dark_zurich(tmp_path, **SPACE, split="test"), "test does not exist")


def test_dark_zurich_flattened(tmp_path):
    write_adverse(tmp_path, "val", "GOPR0356_frame_2", 5)
    write_adverse(tmp_path, "train/day/GOPR0345", "GOPR0345_frame_3", 5)
    assert values(dark_zurich(tmp_path, **SPACE, split="val")) == [5]
    refused(lambda: dark_zurich(tmp_path, **SPACE, split="train"), "no images match")


# The other cities


def test_crosscity_as_png(tmp_path):
    write(tmp_path / "Rio/Images/Test/pano_00002_0_180.jpg", image())
    write(tmp_path / "Rio/Images/Test/pano_00003_0_180.png", image())
    for number in (2, 3):
        path = tmp_path / f"Rio/Labels/Test/pano_0000{number}_0_180_eval.png"
        write(path, ids(33))
    rio = crosscity(tmp_path, **SPACE, city="Rio", split="Test")
    assert rio.names == ("Rio/pano_00002_0_180", "Rio/pano_00003_0_180")
    assert values(rio) == [18, 18]


def test_parking(tmp_path):
    for split, time, value in (("train", "1645", 4), ("val", "1646.25", IGNORE)):
        write(tmp_path / f"image/{split}/{time}.png", image())
        write(tmp_path / f"label/{split}/{time}.png", ids(value))
    space = dict(label_space="parking7")
    assert values(parking(tmp_path, **space)) == [4]
    val = parking(tmp_path, **space, split="val")
    assert val.names == ("1646.25",) and values(val) == [IGNORE]
    refused(
        lambda: parking(tmp_path, **space, split="test"), "choose one of train, val"
    )
    refused(lambda: parking(tmp_path, **SPACE), '"cityscapes19" has no class of these')


def test_a_dataset_goes_with_every_space_that_shares_classes(tmp_path):
    write(tmp_path / "val/images/0016E5_1.png", image())
    write(tmp_path / "val/labels/0016E5_1.png", ids(8))
    assert values(camvid(tmp_path, **SPACE, split="val")) == [13]  # car


def test_folders_that_cannot_be_read(tmp_path, monkeypatch):
    folder = tmp_path / "Rio/Images/Test"
    folder.mkdir(parents=True)

    def walk(path, onerror, followlinks):
        onerror(PermissionError(13, "Permission denied", str(path)))
        return []

    monkeypatch.setattr("os.walk", walk)  # the tests may run as root, who reads all
    refused(
        lambda: crosscity(tmp_path, **SPACE, city="Rio", split="Test"),
        f"folder {folder} cannot be read (Permission denied)",
        "permissions",
    )
