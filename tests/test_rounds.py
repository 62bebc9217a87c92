"""Rounds: which images get labels when, from the data set and from a person."""

import csv
import io
import json
import shutil
import zipfile

import numpy as np
import pytest
from conftest import draw, write_minicity, write_png
from ml_collections import ConfigDict
from PIL import Image

from uda_jax import (
    annotation,
    annotation_files,
    round_files,
    selection,
    train,
    visualize,
)
from uda_jax.annotation import LabelsWanted
from uda_jax.benchmarks import open_dataset
from uda_jax.data.images import read_raw_label
from uda_jax.errors import UserError
from uda_jax.labels import LABEL_SPACES
from uda_jax.visualize import colorize

SPACE = LABEL_SPACES["crosscity13"]
SS_ADA = {"name": "ss_ada", "min_kept": 100, "class_weights": "iou"}


@pytest.fixture(scope="module")
def config(tiny):
    config = tiny(SS_ADA, steps=4)
    config.data.partner = True
    config.evaluation.size = (48, 64)
    config.rounds = ((0, 1), (2, 2), (3, 1))
    config.active = ConfigDict({"strategy": "entropy_iou_sum", "labels": "dataset"})
    return config


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("rounds") / "run"
    train.fit(config, workdir)
    return workdir


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def names(path):
    return [row["name"] for row in rows(path)]


def test_a_round_leaves_what_its_docstring_says(config, whole):
    folder = whole / "rounds"
    picked = [names(folder / f"{n}/selected.jsonl") for n in range(3)]
    assert [len(p) for p in picked] == [1, 2, 1]
    assert len({name for p in picked for name in p}) == 4  # none twice
    pool = open_dataset(config.target, SPACE)
    for n in range(3):
        labelled = open_dataset(
            {"reader": "manifest", "root": str(folder / f"{n}/labelled.jsonl")}, SPACE
        )
        assert len(labelled) == sum(map(len, picked[: n + 1]))
        left = [row for row in rows(folder / f"{n}/unlabelled.jsonl") if "image" in row]
        assert len(left) == len(pool) - len(labelled)
        for kind, count in (("labelled", len(labelled)), ("unlabelled", len(left))):
            row = {**config.target, "list_file": str(folder / f"{n}/{kind}.txt")}
            listed = open_dataset(row, SPACE).names
            assert len(listed) == count
            mine = {name for p in picked[: n + 1] for name in p}
            assert (set(listed) == mine) == (kind == "labelled")
        for item in map(labelled.__getitem__, range(len(labelled))):
            same = [
                i
                for i in range(len(pool))
                if np.array_equal(pool[i]["image"], item["image"])
            ]
            np.testing.assert_array_equal(item["label"], pool[same[0]]["label"])
    facts = json.loads((folder / "1/round.json").read_text())
    assert facts["step"] == 2 and facts["labelled_before"] == 1
    assert 0 <= facts["miou_before"] <= 1 and len(facts["class_iou"]) == 13
    with open(folder / "1/scores.csv", newline="") as file:
        table = list(csv.DictReader(file))
    scores = [float(row["score"]) for row in table]
    assert scores == sorted(scores, reverse=True) and len(table) == 5
    assert [row["name"] for row in table if row["selected"] == "1"] == picked[1]
    assert (folder / "1/selected.png").stat().st_size > 1000
    assert not (folder / "0/scores.csv").exists()  # the first round looks at nothing


@pytest.mark.slow  # the round alone, killed before any write: test_round_taking.py
def test_stopped_in_a_round_it_selects_once_and_goes_on_exactly(
    config, whole, tmp_path, monkeypatch
):
    """Killed after the selection of round 1, before its labels are written."""
    write = round_files.write_division

    def killed(config, folder, number, *rest):
        if number == 1:
            raise KeyboardInterrupt
        write(config, folder, number, *rest)

    monkeypatch.setattr(round_files, "write_division", killed)
    with pytest.raises(KeyboardInterrupt):
        train.fit(config, tmp_path / "run")
    monkeypatch.setattr(round_files, "write_division", write)
    picks = selection.pick
    seen = []
    monkeypatch.setattr(
        selection, "pick", lambda *a: seen.append(a[2].number) or picks(*a)
    )
    report = train.fit(config, tmp_path / "run")
    assert seen == [2]
    other = json.loads((whole / "report.json").read_text())
    np.testing.assert_array_equal(report.confusion, other["confusion"])
    for n in range(3):
        for name in ("selected.jsonl", "labelled.txt", "unlabelled.txt"):
            a, b = (w / f"rounds/{n}/{name}" for w in (whole, tmp_path / "run"))
            assert a.read_text() == b.read_text()
    log = lambda w: [
        {k: v for k, v in row.items() if not k.startswith("time/")}
        for row in rows(w / "metrics.jsonl")
        if row["step"] > 2
    ]
    assert log(tmp_path / "run") == log(whole)


@pytest.fixture
def city(tmp_path):
    root = write_minicity(tmp_path / "city")
    # Nobody has labelled the target.
    shutil.move(root / "target/Minicity/Labels/Train", tmp_path / "truth")
    return root


def test_with_a_person(config, city, tmp_path):
    """Stops, gets a palette PNG and a coloured one, misses one, then goes on."""
    config = config.copy_and_resolve_references()
    config.rounds, config.active.labels = ((2, 3),), "person"
    image, _ = draw(77)
    own = np.full(image.shape[:2], 2, np.uint8)
    write_png(tmp_path / "own/images/x.png", image)
    write_png(tmp_path / "own/labels/x.png", own)
    config.labelled = ConfigDict(dict(reader="folder", root=str(tmp_path / "own")))
    for row in (config.source, config.validation):
        row.root = str(city / "source")
    for row in (config.target, config.test):
        row.root = str(city / "target")
    workdir = tmp_path / "run"
    folder = workdir / "rounds/0"
    with pytest.raises(LabelsWanted, match=r"3 of 3 labels are missing"):
        train.fit(config, workdir)
    picked = names(folder / "selected.jsonl")
    for name in picked:
        photo = folder / f"annotate/images/{name}.png"
        assert Image.open(photo).size == (128, 96)
        predicted = Image.open(folder / f"annotate/predicted/{name}.png")
        assert predicted.mode == "P" and predicted.size == (128, 96)
        shapes = json.loads((folder / f"annotate/labelme/{name}.json").read_text())
        assert {s["label"] for s in shapes["shapes"]} <= set(SPACE.classes)
    truth = lambda name: read_raw_label(
        tmp_path / "truth" / f"{name.split('/')[-1]}_eval.png"
    )
    to_train = np.full(256, 255, np.uint8)
    for raw, train_id in open_dataset(config.source, SPACE).id_table.items():
        to_train[raw] = train_id
    labels = {name: to_train[truth(name)] for name in picked}
    done = lambda name: folder / f"finished/{name}.png"
    done(picked[0]).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels[picked[0]]).save(done(picked[0]))
    Image.fromarray(colorize(labels[picked[1]], SPACE.colors)).save(done(picked[1]))
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with pytest.raises(LabelsWanted, match=rf"1 of 3 labels are missing \({picked[2]}"):
        train.fit(config, workdir)
    assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    pool = open_dataset(config.target, SPACE, labels=False)
    chosen = pool.select([pool.names.index(name) for name in picked])
    collect = lambda: annotation.collect(folder, chosen, into=tmp_path / "labels")
    polygons = folder / f"annotate/labelme/{picked[2]}.json"
    content = json.loads(polygons.read_text())
    for change, words in (
        ({"label": "bla"}, 'has the class "bla", and there are road'),
        ({"points": []}, "needs three or more points"),
        ({"points": [[1, 2], [3, 4], [1e300, 0]]}, "needs three or more points"),
        ({"shape_type": "circle"}, "has a circle: draw polygons"),
    ):
        square = {"label": "road", "points": [[0, 0], [9, 0], [9, 9]], **change}
        done(picked[2]).with_suffix(".json").write_text(
            json.dumps({**content, "shapes": [square]})
        )
        with pytest.raises(LabelsWanted, match=words):
            collect()
    done(picked[2]).with_suffix(".json").unlink()
    wrong = labels[picked[2]].copy()
    wrong[0, 0] = 77
    for pixels, words in ((wrong, "has the id 77"), (wrong[:50], "is 50 x 128")):
        Image.fromarray(pixels).save(done(picked[2]))
        with pytest.raises(LabelsWanted, match=words):
            collect()
    Image.fromarray(labels[picked[2]]).save(done(picked[2]))
    assert train.fit(config, workdir).num_images == 3
    labelled = open_dataset(
        {"reader": "manifest", "root": str(folder / "labelled.jsonl")}, SPACE
    )
    assert len(labelled) == 4
    for i, path in enumerate(labelled.store.images):
        if path.endswith("own/images/x.png"):
            np.testing.assert_array_equal(labelled.label(i), own)
            continue
        name = next(n for n in picked if path.endswith(f"{n.split('/')[-1]}.png"))
        np.testing.assert_array_equal(labelled.label(i), labels[name])


def test_labels_in_every_form(tmp_path):
    rng = np.random.default_rng(0)
    label = np.kron(rng.integers(0, 13, (6, 8)), np.ones((12, 12), int)).astype("uint8")
    read = lambda path: annotation_files.read_finished(path, label.shape, SPACE)
    painted = tmp_path / "painted.png"
    painted.write_bytes(visualize.png(label, colors=SPACE.colors))
    np.testing.assert_array_equal(read(painted), label)
    # Programs that write a palette anew count its colours otherwise.
    image = Image.open(painted).convert("RGB").quantize(13)
    assert (np.array(image) != label).any()
    image.save(tmp_path / "anew.png")
    np.testing.assert_array_equal(read(tmp_path / "anew.png"), label)
    shapes = annotation_files.polygons(label, SPACE, "x.png")
    (tmp_path / "x.json").write_text(json.dumps(shapes))
    assert (read(tmp_path / "x.json") == label).mean() > 0.99
    cvat = annotation_files.Cvat(stream := io.BytesIO(), SPACE)
    cvat.add("a/b", label)
    cvat.close()
    with zipfile.ZipFile(stream) as file:
        table = file.read("labelmap.txt").decode().splitlines()
        assert table[0] == "background:0,0,0::" and table[1].startswith("road:128,64,")
        (tmp_path / "cvat.png").write_bytes(file.read("SegmentationClass/a/b.png"))
    np.testing.assert_array_equal(read(tmp_path / "cvat.png"), label)
    Image.new("RGB", label.shape[::-1], (1, 2, 3)).save(tmp_path / "other.png")
    with pytest.raises(UserError, match=r"the colour \(1, 2, 3\) at row 0, column 0"):
        read(tmp_path / "other.png")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rounds": (0, 25)}, "give pairs of whole numbers"),
        ({"rounds": ((1.5, 1),)}, "give pairs of whole numbers"),
        ({"method": {"name": "source_only"}}, 'rounds is not read by method "source_o'),
        ({"rounds": ((2, 1), (2, 1))}, "must rise"),
        ({"rounds": ((9, 1),)}, "below steps=4"),
        ({"rounds": ((0, 2), (2, 7))}, "label 9 images and the target has 6"),
        ({"rounds": ((0, 0),)}, "a count below 1"),
        ({"rounds": ()}, "rounds is empty"),
        ({"active": {"strategy": "entrpy", "labels": "dataset"}}, "entropy"),
        ({"active": {"strategy": "random"}}, "strategy and labels"),
        ({"active": {"strategy": "random", "labels": "person"}}, "step 0 has no"),
        ({"labelled": {"reader": "folder", "root": "x"}}, "leave labelled out"),
        (
            {"rounds": ((2, 1),), "active": {"strategy": "iou", "labels": "dataset"}},
            "of which the first round finds none",
        ),
        ({"rounds": ((0, 2),)}, "config has none after step 0"),
        (
            {"rounds": (), "active": {}},
            "class_weights=iou is measured at rounds, of which the config has none",
        ),
        (
            {
                "rounds": (),
                "active": {},
                "method": {**SS_ADA, "class_weights": "none", "class_threshold": True},
            },
            "method.class_threshold=True is measured at rounds",
        ),
        (
            {"rounds": (), "active": {}, "method": {"name": "minent"}},
            'data.partner is not read by method "minent", but by ss_ada alone',
        ),
    ],
)
def test_what_cannot_be(config, fields, words, tmp_path):
    config = config.copy_and_resolve_references()
    for name, value in fields.items():
        config[name] = ConfigDict(value) if isinstance(value, dict) else value
    with pytest.raises(UserError, match=words):
        train.fit(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
