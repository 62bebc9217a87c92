"""One round after the other with a fixed network, without training in between."""

import json
import os
import resource
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import write_minicity
from ml_collections import ConfigDict

from uda_jax import files, rounds, selection
from uda_jax.annotation import LabelsWanted
from uda_jax.benchmarks import open_dataset
from uda_jax.data.dataset import Files
from uda_jax.errors import UserError
from uda_jax.metrics import Report

METHOD = {"name": "ss_ada", "class_weights": "iou"}
MIX = jnp.asarray(np.random.default_rng(5).normal(size=(3, 13)), jnp.float32)
FORWARD = jax.tree_util.Partial(lambda mix, image: image @ mix, MIX)
REPORT = Report(np.eye(13, dtype=int), tuple(map(str, range(13))), tuple(range(13)), 1)


@pytest.fixture
def config(tiny):
    config = tiny(METHOD, steps=4)
    config.evaluation.size = (48, 64)
    config.rounds = ((0, 1), (2, 2), (3, 1))
    config.active = ConfigDict({"strategy": "entropy_iou_sum", "labels": "dataset"})
    return config


def take_all(config, workdir):
    """What every round gives."""
    return [
        rounds.take(config, workdir, now, FORWARD, lambda: REPORT)
        for now in rounds.rounds_of(config)
    ]


def tree(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_killed_before_any_of_its_writes_it_ends_as_one_that_was_not(
    config, tmp_path, monkeypatch
):
    config.rounds = ((0, 1), (2, 2))
    taken = take_all(config, tmp_path / "whole")
    whole = tree(tmp_path / "whole")
    replace, pick = os.replace, selection.pick
    picked = []
    monkeypatch.setattr(
        selection, "pick", lambda *a: picked.append(a[2].number) or pick(*a)
    )
    for kill_at in range(len(whole)):
        left = [kill_at]

        def killed(*paths, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            replace(*paths)

        workdir = tmp_path / str(kill_at)
        monkeypatch.setattr(files.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            take_all(config, workdir)
        monkeypatch.setattr(files.os, "replace", replace)
        chosen = len(list(workdir.rglob("selected.jsonl")))
        picked.clear()
        again = take_all(config, workdir)
        assert picked == [0, 1][chosen:]  # nothing is picked twice
        assert tree(workdir) == whole
        for (one, memory), (other, known) in zip(taken, again, strict=True):
            assert one.labelled.names == other.labelled.names
            assert one.unlabelled == other.unlabelled
            jax.tree.map(np.testing.assert_array_equal, memory, known)


def test_workdir_and_data_may_move(config, minicity, tmp_path):
    shutil.copytree(minicity, tmp_path / "city")
    config.target.root = str(tmp_path / "city/target")
    before = take_all(config, tmp_path / "run")
    (tmp_path / "elsewhere/far").mkdir(parents=True)
    (tmp_path / "run").rename(tmp_path / "elsewhere/far/run")
    (tmp_path / "city").rename(tmp_path / "town")
    config.target.root = str(tmp_path / "town/target")
    for now, (division, _) in zip(rounds.rounds_of(config), before, strict=True):
        workdir = tmp_path / "elsewhere/far/run"
        after = rounds.division_before(config, workdir, now.step + 1)
        assert after.labelled.names == division.labelled.names
        assert after.unlabelled == division.unlabelled
        truth = open_dataset(config.target, after.labelled.label_space)
        for i, name in enumerate(after.labelled.names):
            expected = truth.label(truth.names.index(name))
            np.testing.assert_array_equal(after.labelled[i]["label"], expected)


def test_a_simulation_opens_the_labels_that_it_picked_and_no_other(
    config, tmp_path, monkeypatch
):
    opened, raw_label = set(), Files.raw_label

    def seen(self, index):
        opened.add(Path(self.labels[index]).stem)
        return raw_label(self, index)

    monkeypatch.setattr(Files, "raw_label", seen)
    division, _ = take_all(config, tmp_path / "run")[-1]
    picked = {name.split("/")[-1] for name in division.labelled.names}
    assert len(picked) == 4
    assert {stem.removesuffix("_eval") for stem in opened} == picked


def test_a_person_is_told_how_to_go_on(config, tmp_path, monkeypatch):
    config.rounds, config.active.labels = ((2, 2),), "person"
    monkeypatch.setattr("sys.argv", ["/x/uda_jax/main.py", "--config", "a b.py"])
    with pytest.raises(LabelsWanted) as error:
        take_all(config, tmp_path / "run")
    assert str(error.value).endswith("\n    python -m uda_jax.main --config 'a b.py'")


def test_what_is_gone_is_named(config, minicity, tmp_path):
    shutil.copytree(minicity, tmp_path / "city")
    config.target.root = str(tmp_path / "city/target")
    division, _ = take_all(config, tmp_path / "run")[-1]
    rest = tmp_path / "list.txt"
    listed = [name.split("/")[-1] for name in division.unlabelled]
    rest.write_text("\n".join(listed) + "\n")
    config.target.list_file = str(rest)
    with pytest.raises(UserError, match="no target image now: restore"):
        rounds.division_before(config, tmp_path / "run", 4)
    config.target.list_file = ""
    next((tmp_path / "run/rounds/labels").rglob("*.png")).unlink()
    with pytest.raises(UserError, match=r"1 of 4 images .* have no label"):
        rounds.division_before(config, tmp_path / "run", 4)
    (tmp_path / "run/rounds/2/labelled.jsonl").unlink()
    with pytest.raises(UserError, match="round 2 is not finished"):
        rounds.division_before(config, tmp_path / "run", 4)


def test_labels_that_a_later_round_would_miss_are_missed_at_once(config, tmp_path):
    root = write_minicity(tmp_path / "city")
    next(root.glob("target/Minicity/Labels/Train/*")).unlink()
    config.target.root = str(root / "target")
    config.rounds = ((2, 2),)
    with pytest.raises(UserError, match="1 of 6 images"):
        rounds.division_before(config, tmp_path / "run", 0)


@pytest.mark.slow
def test_memory_is_flat_in_the_number_of_images(
    config, minicity, tmp_path, monkeypatch
):
    count, resident = 10_000, {}
    (tmp_path / "images").mkdir()
    photos = sorted((minicity / "target/Minicity/Images/Train").iterdir())[:2]
    for number in range(count):
        (tmp_path / f"images/{number:05d}.png").hardlink_to(photos[number % 2])
    config.target = ConfigDict({"reader": "folder", "root": str(tmp_path)})
    config.rounds, config.active.labels = ((2, 100),), "person"
    look_at = selection.look_at

    def watched(*arguments, **options):
        found = look_at(*arguments, **options)
        for done, each in enumerate(found, 1):
            if done in (1_000, count):
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                resident[done] = pages * resource.getpagesize() / 2**20
            yield each

    monkeypatch.setattr(selection, "look_at", watched)
    with pytest.raises(LabelsWanted, match="100 of 100 labels are missing"):
        take_all(config, tmp_path / "run")
    assert resident[count] - resident[1_000] < 50, resident  # MiB
    picked = (tmp_path / "run/rounds/0/selected.jsonl").read_text().splitlines()
    # Every second image is the same: equal scores, the first hundred by name.
    numbers = [int(json.loads(line)["name"]) for line in picked]
    assert numbers == [2 * i + numbers[0] for i in range(100)]
