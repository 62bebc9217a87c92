import copy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from ml_collections import config_dict
from trees import write_tree

from uda_jax import benchmarks
from uda_jax.benchmark_table import BENCHMARKS
from uda_jax.benchmarks import (
    base_config,
    evaluated_classes,
    open_dataset,
    open_datasets,
)
from uda_jax.data.sources import SOURCES
from uda_jax.errors import UserError
from uda_jax.factories import keywords
from uda_jax.labels import IGNORE, LABEL_SPACES
from uda_jax.training_data import open_training_data


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array)


def camvid(root):
    for split, sequence in [
        ("train", "0006R0"),
        ("train", "0016E5"),
        ("train", "0001TP"),
        ("val", "0016E5"),
        ("test", "0001TP"),
        ("test", "Seq05VD"),
    ]:
        for frame in range(2):
            name = f"{sequence}_{split}{frame}"
            write(root / split / f"images/{name}.png", np.zeros((4, 6, 3), np.uint8))
            write(root / split / f"labels/{name}.png", np.full((4, 6), 3, np.uint8))


@pytest.fixture
def camvid_config(tmp_path):
    camvid(tmp_path)
    config = base_config("camvid_day_to_dusk")
    for row in (config.source, config.target, config.test):
        row.root = str(tmp_path)
    return config


@pytest.mark.parametrize("name", BENCHMARKS)
def test_rows_are_arguments_of_their_readers(name):
    benchmark = BENCHMARKS[name]
    if name != "own":
        space = LABEL_SPACES[benchmark.label_space]
        assert space.train_ids(benchmark.classes)
        assert all(map(space.train_ids, benchmark.also.values()))
    rows = [benchmark.source, benchmark.target, benchmark.test]
    if benchmark.validation:
        rows.append(benchmark.validation)
    for row in rows:
        allowed = {"reader", "root", *keywords(SOURCES[row["reader"]])}
        assert set(row) <= allowed - {"labels", "label_space"}
        assert not Path(row["root"]).is_absolute()


@pytest.mark.parametrize("name", sorted(set(BENCHMARKS) - {"own"}))
def test_no_training_row_is_the_test_row(name):
    benchmark = BENCHMARKS[name]
    for row in (benchmark.source, benchmark.target):
        assert (row["root"], row["split"]) != (
            benchmark.test["root"],
            benchmark.test["split"],
        )


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_field_can_be_overridden(name):
    config = base_config(name).lock()
    same_fields = base_config("minicity")
    assert set(config) == set(same_fields)
    assert set(config.evaluation) == set(same_fields.evaluation)

    def leaves(node):
        for value in node.values():
            if isinstance(value, config_dict.ConfigDict):
                yield from leaves(value)
            else:
                yield value

    assert all(value is not None for value in leaves(config))


def published():
    """Benchmarks whose data a test can lay out: all but the built-in and the user's."""
    return [n for n, row in BENCHMARKS.items() if "mini" not in n and n != "own"]


@pytest.mark.parametrize("name", published())
def test_every_benchmark_comes_from_its_folders_to_a_batch(name, tmp_path):
    config = base_config(name)
    for role in ("source", "target", "test"):
        write_tree(config[role], tmp_path / role)
    if config.data.sampling.name == "rare_class":
        config.data.sampling.min_pixels = 1  # of labels of 96 x 128 pixels
    config.data.threads, config.data.prepared = 0, str(tmp_path / "prepared")
    for domain in ("source", "target"):
        sizes = {"size", "crop_size", "resize"} & set(config.data[domain])
        for key in sizes:
            config.data[domain][key] = (48, 64)
    data = open_training_data(config, needs_target=True, workdir=tmp_path / "run")
    with data.batches(0) as batches:
        batch, _ = next(batches)
    source, target = batch["source"], batch["target"]
    shape = source["label"].shape
    assert source["image"].shape == (*shape, 3) == target["image"].shape
    assert "label" not in target
    space = LABEL_SPACES[config.label_space]
    seen = set(np.unique(source["label"])) - {IGNORE}
    assert seen and max(seen) < space.num_classes
    test = data.test[0]
    assert test["label"].shape == test["image"].shape[:2] == (96, 128)


def test_synthia_is_scored_on_16_and_13_classes():
    for name, of in (("maxsquare", 16), ("advent", 16), ("daformer", 19)):
        config = base_config(f"synthia_to_cityscapes_{name}")
        assert LABEL_SPACES[config.label_space].num_classes == of
        classes, also = evaluated_classes(config)
        assert len(classes) == 16 and len(also["13 classes"]) == 13
        assert set(also["13 classes"]) < set(classes)


def test_the_table_is_not_changed_through_a_config():
    before = copy.deepcopy(BENCHMARKS["minicity"])
    config = base_config("minicity")
    config.source.root = "elsewhere"
    config.evaluation.mode = "sliding"
    assert BENCHMARKS["minicity"] == before


def test_opens_the_split_of_each_role(camvid_config):
    source, target, test = open_datasets(camvid_config)
    assert {name.split("_")[0] for name in source.names} == {"0006R0", "0016E5"}
    assert {name.split("_")[0] for name in target.names} == {"0001TP"}
    assert {name.split("_")[0] for name in test.names} == {"0001TP"}
    assert len(source) == 4 and len(target) == len(test) == 2
    assert "label" in source[0] and "label" in test[0]
    assert "label" not in target[0]
    assert not set(target.store.images) & set(test.store.images)


def test_a_run_without_a_target(camvid_config):
    camvid_config.target.reader = ""
    source, target, _ = open_datasets(camvid_config)
    assert target is None and len(source) == 4


def test_validation_row_opens(tmp_path):
    camvid(tmp_path)
    row = {**BENCHMARKS["camvid_day_to_dusk"].validation, "root": str(tmp_path)}
    assert len(open_dataset(row, "camvid11")) == 2


def test_mistakes_are_explained(camvid_config):
    with pytest.raises(UserError, match='did you mean "minicity"'):
        base_config("minicty")
    row = {**camvid_config.test, "splitt": "val"}
    with pytest.raises(UserError, match=r'no option "splitt" .did you mean "split"'):
        open_dataset(row, "camvid11")
    with pytest.raises(UserError, match=r'"camvi" is unknown .did you mean "camvid"'):
        open_dataset({**camvid_config.test, "reader": "camvi"}, "camvid11")
    with pytest.raises(UserError, match='"labels" cannot be set'):
        open_dataset({**camvid_config.target, "labels": True}, "camvid11")
    with pytest.raises(UserError, match='label space "camvid" is unknown'):
        open_dataset(camvid_config.test, "camvid")


def test_minicity_is_drawn_once(tmp_path, monkeypatch, capsys):
    drawn = []

    def write_few(root):
        drawn.append(root)
        image, label = np.zeros((4, 6, 3), np.uint8), np.full((4, 6), 7, np.uint8)
        name = "town/town_000000_000019"
        write(root / f"source/leftImg8bit/train/{name}_leftImg8bit.png", image)
        write(root / f"source/gtFine/train/{name}_gtFine_labelIds.png", label)
        for split in ("Train", "Test"):
            write(root / f"target/Minicity/Images/{split}/a.png", image)
            write(root / f"target/Minicity/Labels/{split}/a_eval.png", label)

    monkeypatch.setattr(benchmarks.minicity, "write", write_few)
    monkeypatch.chdir(tmp_path)
    for name in ("minicity", "minicity_oracle"):
        source, target, test = open_datasets(base_config(name))
        assert len(source) == len(target) == len(test) == 1
        assert not target.has_labels
    assert drawn == [Path("data/minicity")]
    assert capsys.readouterr().out.count("\n") == 1
    # The oracle learns from labels of the target's training images, no others.
    assert source.store.images == target.store.images != test.store.images


def test_tuples_can_be_overridden_on_the_command_line():
    script = (
        "from absl import app; from ml_collections import config_flags\n"
        "import uda_jax.benchmarks as b\n"
        "c = b.base_config('minicity')\n"
        "flag = config_flags.DEFINE_config_dict('config', c, lock_config=True)\n"
        "def main(_):\n"
        "    geometry = flag.value.data.source\n"
        "    assert geometry.resize == (128, 256), geometry.resize\n"
        "    assert geometry.scales == (1.0,), geometry.scales\n"
        "app.run(main)\n"
    )
    data = "--config.data.source"
    flags = [f"{data}.resize=128,256", f"{data}.scales=(1.0,)"]
    subprocess.run([sys.executable, "-c", script, *flags], check=True, timeout=60)
