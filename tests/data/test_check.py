import json
import os
import signal
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest
from conftest import ROOT, write_cityscapes, write_crosscity, write_minicity, write_png
from PIL import Image

from uda_jax.data import check
from uda_jax.data.check_page import print_summary
from uda_jax.data.expected import expected, known_overlap
from uda_jax.errors import UserError
from uda_jax.labels import own_label_space
from uda_jax.metrics import Report


def run(tmp_path, *argv):
    """Exit code and check.json."""
    code = check.main([*argv, f"--out={tmp_path / 'out'}", "--threads=2"])
    return code, json.loads((tmp_path / "out/check.json").read_text())


def folder_of(pair):
    return "--reader=folder", f"--root={pair / 'data'}", "--label_space=parking7"


def one(tmp_path, reader, *options, label_space="cityscapes19", root=None):
    argv = [f"--reader={reader}", f"--root={root or tmp_path / 'data'}"]
    argv += [f"--label_space={label_space}", *(f"--option={o}" for o in options)]
    code, facts = run(tmp_path, *argv)
    return code, facts["sets"][reader]


@pytest.fixture
def pair(tmp_path):
    """A folder data set of three examples, and where its files are."""
    for i, name in enumerate(("a", "b", "c")):
        image = np.full((4, 6, 3), 50 * i, np.uint8)
        write_png(tmp_path / f"data/images/{name}.png", image)
        label = np.zeros((4, 6), np.uint8)
        label[0] = (2, 2, 2, 255, 255, i)
        write_png(tmp_path / f"data/labels/{name}.png", label)
    return tmp_path


# What is found in one data set


def test_histogram_by_hand(pair):
    code, found = one(pair, "folder", "coding=train_ids", label_space="parking7")
    assert code == 0 and found["problems"] == []
    assert found["examples"] == found["checked"] == 3 and found["expected"] is None
    assert found["image_sizes"] == found["label_sizes"] == {"4 x 6": 3}
    rows = {row["name"]: row for row in found["classes"]}
    # Three labels of 24 pixels: 54 + 1 of 0, one of 1, 9 + 1 of 2, six ignored.
    assert rows["background"] == dict(
        name="background", pixels=55, share=55 / 66, images=3
    )
    assert (rows["parking line"]["pixels"], rows["parking line"]["images"]) == (1, 1)
    assert (rows["white line"]["pixels"], rows["white line"]["images"]) == (10, 3)
    assert found["ignored_pixels"] == 6
    assert found["absent"] == ["yellow line", "zebra crossing", "arrow", "slope"]


def test_every_broken_file_has_its_sentence(pair, capsys):
    data = pair / "data"
    image = data / "images/a.png"
    image.write_bytes(image.read_bytes()[:60])
    (data / "labels/b.png").write_text("no picture")
    label = np.full((4, 6), 200, np.uint8)
    write_png(data / "labels/c.png", label)
    write_png(data / "images/d.png", np.zeros((4, 6, 3), np.uint8))
    write_png(data / "labels/d.png", np.zeros((2, 3), np.uint8))
    code, found = one(pair, "folder", label_space="parking7")
    assert code == 1 and found["checked"] == 4
    cut, other, unknown, size = found["problems"]
    assert "images/a.png" in cut and "cut off" in cut
    assert "labels/b.png" in other and "neither a PNG" in other
    assert "labels/c.png" in unknown and "200" in unknown
    assert "d.png is 2 x 3 but" in size and "is 4 x 6" in size
    assert found["label_sizes"] == {"4 x 6": 1, "2 x 3": 1}
    assert "4 problems" in capsys.readouterr().out


def test_missing_labels_do_not_hide_the_others(pair):
    labels = pair / "data/labels"
    (labels / "b.png").unlink()
    write_png(labels / "c.png", np.full((4, 6), 200, np.uint8))
    write_png(pair / "data/images/d.png", np.zeros((4, 6, 3), np.uint8))
    code, found = one(pair, "folder", label_space="parking7")
    assert code == 1 and found["examples"] == found["checked"] == 4
    assert found["label_sizes"] == {"4 x 6": 1} and found["labels"]
    first, second, unknown = found["problems"]
    assert f"b.png has no label (expected {labels / 'b.png'})" in first
    assert "d.png has no label" in second and "200" in unknown
    # Every missing one, however few are decoded.
    code, facts = run(pair, *folder_of(pair), "--limit=1")
    assert facts["sets"]["folder"]["problems"] == [first, second]


def test_unknown_ids_do_not_hide_a_wrong_size(pair):
    write_png(pair / "data/labels/b.png", np.full((2, 3), 200, np.uint8))
    _, found = one(pair, "folder", label_space="parking7")
    ids, size = found["problems"]
    assert "contains the ids 200" in ids and "b.png is 2 x 3 but" in size


def test_names_of_classes_are_no_markup(tmp_path, capsys):
    names = ("x [/y]", "crop [wet]", ":car:")
    rows = [(i, name, (i, 0, 0)) for i, name in enumerate(names)]
    write_png(tmp_path / "images/a.png", np.zeros((4, 6, 3), np.uint8))
    write_png(tmp_path / "labels/a.png", np.zeros((4, 6), np.uint8))
    row = dict(reader="folder", root=str(tmp_path))
    plan = check.Plan("[/b]", own_label_space("field [1]", rows), {"[/r]": row}, ())
    reports, problems = check.open_all(plan)
    check.walk(reports[0], [0], thumbnails=1, threads=1, advance=lambda: None)
    print_summary(plan.name, reports, [], problems)
    printed = capsys.readouterr().out
    scores = Report(np.eye(3, dtype=np.int64), names, (0, 1, 2), 1).table()
    assert all(name in printed and name in scores for name in names)
    assert "[/b]" in printed and "[/r]" in printed


def test_labels_without_any_class_are_a_problem(pair):
    for name in "abc":
        write_png(pair / f"data/labels/{name}.png", np.full((4, 6), 255, np.uint8))
    code, found = one(pair, "folder", label_space="parking7")
    assert code == 1 and "no label holds a class of parking7" in found["problems"][0]


def test_images_alone(pair):
    (pair / "data/labels/a.png").write_text("never read")
    code, facts = run(pair, *folder_of(pair), "--no_labels")
    found = facts["sets"]["folder"]
    assert code == 0 and found["classes"] == [] and found["label_sizes"] == {}


def test_whatever_a_decoder_raises_is_reported(pair, monkeypatch):
    def broken(*_):
        raise MemoryError("too large")

    monkeypatch.setattr("uda_jax.data.dataset.read_image", broken)
    code, found = one(pair, "folder", label_space="parking7")
    assert code == 1 and len(found["problems"]) == 3
    assert "(MemoryError: too large)" in found["problems"][0]


# Counts


@pytest.mark.parametrize(
    "row, counts",
    [
        (dict(reader="gta5", split="train"), (12_403,)),
        (dict(reader="gta5"), (24_966,)),
        (dict(reader="gta5", split="val", list_file="split.mat"), (6_382,)),
        (dict(reader="gta5", split="train", list_file="some.txt"), None),
        (dict(reader="synthia", split="val"), (400,)),
        (dict(reader="cityscapes"), (2_975,)),
        (dict(reader="cityscapes", split="val", fraction=0.3), (167,)),
        (dict(reader="cityscapes", split="train_Rome"), None),
        (dict(reader="crosscity", city="Rio"), (3_200,)),
        (dict(reader="crosscity", city="Lima"), None),
        (dict(reader="acdc", split="val"), (406,)),
        (dict(reader="acdc", split="val", conditions=("fog",)), None),
        (dict(reader="dark_zurich", split="test"), (151,)),
        (dict(reader="parking"), (140, 110)),
        (dict(reader="camvid", split="test", sequences=("0001TP",)), (62,)),
        (dict(reader="camvid", split="train"), (367,)),
        (dict(reader="cityscapes_weather", weather=("foggy",)), (8_925,)),
        (
            dict(reader="cityscapes_weather", weather=("foggy",), betas=(0.02,)),
            (2_975,),
        ),
        (dict(reader="cityscapes_weather", split="val"), (2_688,)),
        (dict(reader="folder"), None),
    ],
)
def test_expected(row, counts):
    known = expected({"root": "x", **row})
    assert (known and known.counts) == counts


def test_minicity_says_its_own_numbers(tmp_path):
    facts = dict(source=6, source_val=1, target=6, test=3)
    (tmp_path / "minicity.json").write_text(json.dumps(facts))
    row = dict(reader="cityscapes", root=str(tmp_path / "source"), split="val")
    assert expected(row).counts == (1,)


def test_a_wrong_count_fails_however_few_are_decoded(tmp_path):
    write_cityscapes(tmp_path / "data", "val", 3)
    argv = [
        "--reader=cityscapes",
        f"--root={tmp_path / 'data'}",
        "--label_space=cityscapes19",
        "--option=split=val",
    ]
    code, facts = run(tmp_path, *argv)
    assert code == 1 and "3 examples, but 500 are expected" in facts["problems"][0]
    code, limited = run(tmp_path, *argv, "--limit=2")
    assert code == 1 and limited["problems"] == facts["problems"]
    assert limited["sets"]["cityscapes"]["checked"] == 2


# A benchmark


@pytest.fixture
def street(tmp_path, monkeypatch):
    """minicity in small, where the benchmark looks for it."""
    monkeypatch.chdir(tmp_path)
    root = write_minicity(tmp_path / "data/minicity")
    # Nowhere the names of training images.
    for path in root.glob("source/*/val/town/*"):
        path.rename(path.with_name(path.name.replace("000000", "000050")))
    for index in range(3):
        for kind, end in (("Images", ""), ("Labels", "_eval")):
            folder = root / f"target/Minicity/{kind}/Test"
            (folder / f"pic_{index}{end}.png").rename(folder / f"x_{index}{end}.png")
    facts = dict(source=6, source_val=1, target=6, test=3)
    (root / "minicity.json").write_text(json.dumps(facts))
    return root


def test_a_benchmark_that_is_well(street, tmp_path, capsys):
    code, facts = run(tmp_path, "--benchmark=minicity")
    assert code == 0 and facts["well"] and facts["overlaps"] == []
    assert list(facts["sets"]) == ["source", "validation", "target", "test"]
    assert facts["sets"]["source"]["labels"] and not facts["sets"]["target"]["labels"]
    printed = capsys.readouterr().out
    assert "minicity: well; 16 examples" in printed and "checking: 16 of 16" in printed
    picture = Image.open(tmp_path / "out/check.png")
    assert picture.width == 1496 and picture.height > 400
    page = (tmp_path / "out/check.html").read_text()
    assert page.count("<img") == 6 * 2 + 1 * 2 + 6 + 3 * 2  # images, and labels
    assert "http" not in page and "vegetation" in page


def test_overlap_by_content_and_by_name(street, tmp_path):
    target = street / "target/Minicity/Images"
    picture = (target / "Test/x_1.png").read_bytes()
    (target / "Train/pic_4.png").unlink()  # the count stays right
    (target / "Train/other.png").write_bytes(picture)
    (target / "Train/pic_5.png").rename(target / "Train/x_2.png")
    code, facts = run(tmp_path, "--benchmark=minicity", "--limit=1")
    (overlap,) = facts["overlaps"]
    assert code == 1 and overlap["roles"] == ["target", "test"]
    assert overlap["names"] == [
        ["Minicity/other", "Minicity/x_1"],
        ["Minicity/x_2", "Minicity/x_2"],
    ]
    assert "2 examples are in target and in test" in facts["problems"][0]


def test_crosscitys_own_overlap_is_no_mistake(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_crosscity(tmp_path / "data/crosscity", "Rio", "Train", 2, seed=9)
    write_crosscity(tmp_path / "data/crosscity", "Rio", "Test", 1)
    write_cityscapes(tmp_path / "data/cityscapes", "train", 1, seed=30)
    argv = ["--benchmark=cityscapes_to_rio", "--limit=3"]
    code, facts = run(tmp_path, *argv)
    (overlap,) = facts["overlaps"]
    assert "known" in overlap["harmless"] and len(overlap["names"]) == 1
    # The validation images are not there, and of the others there are too few.
    assert code == 1 and facts["problems"][0].startswith("validation: split")
    assert all("are expected" in problem for problem in facts["problems"][1:])


def test_known_overlaps():
    row = lambda city, split: dict(reader="crosscity", root="x", city=city, split=split)
    assert known_overlap(row("Taipei", "Train"), row("Taipei", "Test")) == 89
    assert known_overlap(row("Rio", "Train"), row("Rome", "Test")) == 0
    assert known_overlap(row("Lima", "Train"), row("Lima", "Test")) == 0
    assert known_overlap(row("all", "Train"), row("all", "Test")) == 164


def test_an_oracle_may_train_on_one_data_set_twice(street, tmp_path):
    code, facts = run(tmp_path, "--benchmark=minicity_oracle")
    assert code == 0 and not [o for o in facts["overlaps"] if not o["harmless"]]
    assert [o["roles"] for o in facts["overlaps"]] == [["source", "target"]]


def test_a_config_and_its_fields(street, tmp_path):
    config = ROOT / "configs/source_only_minicity.py"
    (street / "source").rename(tmp_path / "elsewhere")
    field = f"--config.source.root={tmp_path / 'elsewhere'}"
    _, facts = run(tmp_path, f"--config={config}:source", field)
    assert list(facts["sets"]) == ["source", "target", "test"]
    assert facts["sets"]["source"]["row"]["root"] == str(tmp_path / "elsewhere")
    assert facts["name"] == "source_only_minicity_source"
    with pytest.raises(UserError, match=r'sorce.root .did you mean "source"'):
        run(tmp_path, f"--config={config}", "--config.sorce.root=x")
    with pytest.raises(UserError, match=r'variant "orakle".*oracle'):
        run(tmp_path, f"--config={config}:orakle")


# Commands


@pytest.mark.parametrize(
    "argv, sentence",
    [
        (["--benchmark=minicit"], 'benchmark "minicit" is unknown .did you mean'),
        (["--reader=gta"], 'reader "gta" is unknown .did you mean "gta5"'),
        (["--reader=gta5"], "--root is missing"),
        (["--reader=gta5", "--root=x"], "--label_space is missing"),
        (["--benchmark=minicity", "--root=x"], "--root is of --reader"),
        (["--benchmark=minicity", "--limt=3"], '"--limt=3" is no option'),
        (["--benchmark=minicity", "--limit=-3"], "--limit=-3 must be"),
        (["--benchmark=minicity", "--threads=0"], "--threads=0 must be"),
        (["--config=none.py"], "config file none.py cannot be opened"),
        (["--benchmark=own"], 'benchmark "own" has no data .* with --config'),
        (["--benchmark=cityscapes_to_rio"], "folder data/cityscapes"),
    ],
)
def test_commands_that_cannot_be_carried_out(argv, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=sentence):
        check.main(argv)
    assert list(tmp_path.iterdir()) == []


def test_options_of_readers_are_typed(pair):
    parse = lambda *o: check.plan_of(
        check.parse(
            ["--reader=acdc", "--root=x", "--label_space=cityscapes19"]
            + [f"--option={option}" for option in o]
        )[0],
        [],
    ).rows["acdc"]
    row = parse("split=val", "conditions=fog,night")
    assert row["conditions"] == ("fog", "night") and row["split"] == "val"
    assert parse("conditions=fog")["conditions"] == ("fog",)
    with pytest.raises(UserError, match="write NAME=VALUE"):
        parse("fog")
    with pytest.raises(UserError, match='no option "kind"'):
        one(pair, "folder", "kind=1", label_space="parking7")


def test_out_that_cannot_be_written(pair):
    (pair / "out").write_text("a file")
    with pytest.raises(UserError, match="out is a file"):
        one(pair, "folder", label_space="parking7")


def test_a_missing_folder_is_exit_code_2(pair):
    command = [sys.executable, "-m", "uda_jax.data.check", "--reader=folder"]
    command += ["--label_space=parking7", f"--out={pair / 'report'}"]
    done = subprocess.run([*command, "--root=none"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("uda_jax: folder none")


def test_stopping_leaves_no_report(pair, monkeypatch, capsys):
    """Ctrl-C in the middle: the threads end, and nothing is half-written."""
    from uda_jax.data import dataset

    read = dataset.read_image

    def slow(path):
        if path.endswith("b.png"):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
        return read(path)

    monkeypatch.setattr(dataset, "read_image", slow)
    argv = ["check", "--reader=folder", f"--root={pair / 'data'}"]
    argv += ["--label_space=parking7", f"--out={pair / 'out'}", "--threads=1"]
    monkeypatch.setattr(sys, "argv", argv)
    before = threading.active_count()
    # A suite that runs in the background may have been started with SIGINT ignored.
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as stopped:
            check.run()
    finally:
        signal.signal(signal.SIGINT, ours)
    assert stopped.value.code == 130
    assert "nothing was written" in capsys.readouterr().err
    assert not (pair / "out").exists() and threading.active_count() == before


def test_the_sheet_shows_what_was_read(pair):
    """The middle of the first picture, and the colours of its label below."""
    for name in "abc":
        write_png(pair / f"data/images/{name}.png", np.full((40, 60, 3), 90, np.uint8))
        write_png(pair / f"data/labels/{name}.png", np.full((40, 60), 3, np.uint8))
    one(pair, "folder", label_space="parking7")
    sheet = cv2.imread(str(pair / "out/check.png"))[..., ::-1]
    pixels = {tuple(int(v) for v in pixel) for pixel in sheet[:, 120]}
    assert (90, 90, 90) in pixels and (111, 74, 0) in pixels  # yellow line
