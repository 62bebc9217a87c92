"""The command that labels and ranks the target: its files, its stops, its refusals."""

import contextlib
import csv
import json
import resource
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import devices, run_two, write_config, write_minicity
from ml_collections import ConfigDict

from uda_jax import label_files, labelling, rank, ranking, runs, train, trained
from uda_jax.acquisition import RARE
from uda_jax.benchmarks import open_dataset
from uda_jax.checkpoints import Checkpoints
from uda_jax.data.images import read_raw_label
from uda_jax.errors import UserError
from uda_jax.evaluate import make_forward
from uda_jax.labels import LABEL_SPACES

SPACE = LABEL_SPACES["crosscity13"]
# Its second view is the target's.
MINENT = {"name": "minent", "aux_weight": 0.0, "entropy_aux_weight": 0.0}
NEXT = "configs/intrada_minicity.py:intra"


@pytest.fixture(scope="module")
def world(tiny, tmp_path_factory):
    """A run that was never trained; its target has images and no label anywhere."""
    folder = tmp_path_factory.mktemp("world")
    root = write_minicity(folder / "city")
    shutil.rmtree(root / "target/Minicity/Labels/Train")
    config = tiny(MINENT, next=(f"rank {NEXT}",))
    config.source.root = config.validation.root = str(root / "source")
    config.target.root = config.test.root = str(root / "target")
    config.evaluation.size = (48, 64)
    config.model.backbone = "resnet18"  # which other processes know too
    params, batch_stats = runs.make_model(config).init(jax.random.key(3))
    # As large as makes some classes likelier than others.
    large = lambda x: x * np.sqrt(1 / np.prod(x.shape[:3])) / x.std()
    params = jax.tree.map(lambda x: large(x) if x.ndim == 4 else x, params)
    runs.open_workdir(folder / "run", config)
    checkpoints = Checkpoints(folder / "run/checkpoints")
    checkpoints.save(7, {"params": {"segmentor": params}, "batch_stats": batch_stats})
    checkpoints.close()
    return folder


@pytest.fixture(scope="module")
def whole(world):
    """(folder, division) of a ranking that nothing stopped."""
    return world / "whole", ranked(world, "whole")


def ranked(world, name, **options):
    return rank.rank(
        rank.load_network(world / "run", "latest"), world / name, **options
    )


def scores(folder):
    with open(folder / "scores.csv", newline="") as file:
        return list(csv.DictReader(file))


def target(world):
    config = runs.read_config(world / "run")
    return open_dataset(config.target, SPACE, labels=False)


def test_scores_and_labels_are_the_networks(world, whole):
    folder, _ = whole
    run = trained.load_run(world / "run")
    forward = make_forward(run.model, run.params, run.batch_stats)
    images = target(world)
    seen = labelling.look_at(
        forward, images, range(6), num_classes=13, size=(48, 64), batch_size=1
    )
    entropies = {}
    for index, one in seen:
        name = images.names[index]
        label = read_raw_label(folder / f"labels/{name}.png")
        assert label.shape == (48, 64)
        np.testing.assert_array_equal(label, one.label)
        entropies[name] = float(one.entropy)
    rows = scores(folder)
    assert [row["name"] for row in rows] == sorted(entropies, key=entropies.get)
    assert [row["part"] for row in rows] == ["easy"] * 4 + ["hard"] * 2
    assert [int(row["rank"]) for row in rows] == list(range(1, 7))
    for row in rows:
        assert float(row["score"]) == pytest.approx(entropies[row["name"]], rel=1e-5)
        assert float(row["labelled"]) == 1


def test_manifests_are_datasets_and_say_what_made_them(world, whole):
    folder, part = whole
    easy = open_dataset(
        {"reader": "manifest", "root": str(folder / "easy.jsonl")}, SPACE
    )
    hard = {"reader": "manifest", "root": str(folder / "hard.jsonl")}
    assert len(easy) == 4 and len(open_dataset(hard, SPACE, labels=False)) == 2
    item, images = easy[0], target(world)
    np.testing.assert_array_equal(item["image"], images[part.indices[0]]["image"])
    assert item["label"].shape == (48, 64) and item["image"].shape == (96, 128, 3)
    about = json.loads((folder / "easy.jsonl").read_text().splitlines()[0])["about"]
    assert about["network"] == str(world / "run") and about["step"] == 7
    assert about["normalize"] is False and about["easy_fraction"] == 0.67
    assert about["classes"] == list(SPACE.classes)
    # As IntraDA writes them: lists that the target's own reader takes.
    row = {**runs.read_config(world / "run").target.to_dict()}
    row["list_file"] = str(folder / "hard_split.txt")
    listed = open_dataset(row, SPACE, labels=False)
    assert listed.names == tuple(row.name for row in part.rows[4:])


def test_pictures(whole):
    folder, _ = whole
    for name in ("scores.png", "pictures.png"):
        assert (folder / name).stat().st_size > 1000
    assert len(list((folder / "colors").rglob("*.png"))) == 6


def test_no_stage_opens_a_label_of_the_target(world, whole, tmp_path):
    """Stage 1, and from easy to hard: there is none on the disk."""
    config = runs.read_config(world / "run")
    config.steps, config.next = 1, ()
    assert train.fit(config, tmp_path / "inter").num_images == 3
    for domain, part in (("source", "easy"), ("target", "hard")):
        root = str(whole[0] / f"{part}.jsonl")
        config[domain] = ConfigDict(dict(reader="manifest", root=root))
    assert train.fit(config, tmp_path / "intra").num_images == 3


def test_stopped_and_repeated_is_the_same_ranking(world, whole, monkeypatch):
    saved, write = [], label_files.save_image

    def until_the_third(output, name, *rest):
        if len(saved) == 3:
            raise KeyboardInterrupt
        saved.append(name)
        return write(output, name, *rest)

    monkeypatch.setattr(label_files, "save_image", until_the_third)
    with pytest.raises(KeyboardInterrupt):
        ranked(world, "stopped")
    folder = world / "stopped"
    unfinished = {"reader": "manifest", "root": str(folder / "easy.jsonl")}
    with pytest.raises(UserError, match="not finished: repeat its command"):
        open_dataset(unfinished, SPACE)
    done = label_files.read_progress(folder)
    with open(folder / "progress_0.jsonl", "a") as file:
        file.write('{"name": "Minicity/cut')  # by a kill
    lost = next(iter(done))
    (folder / done[lost].label).unlink()
    monkeypatch.setattr(label_files, "save_image", write)
    looked = count_looks(monkeypatch)
    ranked(world, "stopped")
    assert sum(looked) == 6 - len(done) + 1  # those left, and the lost one
    for name in ("scores.csv", "easy_split.txt", "hard_split.txt"):
        assert (folder / name).read_bytes() == (whole[0] / name).read_bytes()


def count_looks(monkeypatch):
    looked, look = [], label_files.look_at

    def spy(forward, images, indices, **options):
        looked.append(len(indices))
        return look(forward, images, indices, **options)

    monkeypatch.setattr(label_files, "look_at", spy)
    return looked


def test_another_division_looks_at_nothing_again(world, monkeypatch):
    ranked(world, "divided")
    looked = count_looks(monkeypatch)
    part = ranked(world, "divided", normalize=True, easy_fraction=1.0)
    assert not looked and part.easy == 6
    folder = world / "divided"
    assert not (folder / "hard.jsonl").exists()
    assert not (folder / "hard_split.txt").exists()
    lost = {"reader": "manifest", "root": str(folder / "hard.jsonl")}
    with pytest.raises(UserError, match=r"no part hard.jsonl: divide"):
        open_dataset(lost, SPACE, labels=False)
    for row in scores(folder):
        present = label_files.read_progress(folder)[row["name"]].present
        rare = sum(SPACE.classes[c] in RARE for c in present)
        factor = (5 - rare) / 5 + 0.5
        assert float(row["rare_factor"]) == pytest.approx(factor, rel=1e-5)
        assert float(row["score"]) == pytest.approx(
            factor * float(row["entropy"]), rel=1e-5
        )


def test_a_division_that_is_stopped_leaves_no_parts(world, monkeypatch):
    ranked(world, "redivided")
    folder, write = world / "redivided", ranking.write_atomically

    def until_hard(path, data):
        if path.name == "hard.jsonl":
            raise KeyboardInterrupt
        return write(path, data)

    monkeypatch.setattr(ranking, "write_atomically", until_hard)
    with pytest.raises(KeyboardInterrupt):
        ranked(world, "redivided", easy_fraction=0.5)
    with pytest.raises(UserError, match="not finished"):
        open_dataset({"reader": "manifest", "root": str(folder / "easy.jsonl")}, SPACE)


def test_a_network_that_diverged_is_refused(world):
    network = rank.load_network(world / "run", "latest")
    nothing = jax.tree.map(lambda x: x * np.nan, network.forward)
    with pytest.raises(UserError, match="are not finite: its training diverged"):
        rank.rank(network._replace(forward=nothing), world / "nan")


def test_a_ranking_of_a_manifests_images_stays_in_its_folder(world, whole, tmp_path):
    """Of the hard ones again: their names are paths that lead out of it."""
    network = rank.load_network(world / "run", "latest")
    root = str(whole[0] / "hard.jsonl")
    network.config.target = ConfigDict(dict(reader="manifest", root=root))
    before = {path for path in world.rglob("*") if path.is_file()}
    part = rank.rank(network, tmp_path / "again", easy_fraction=0.5)
    assert {path for path in world.rglob("*") if path.is_file()} == before
    for row in part.rows:
        assert ".." in row.name and row.label.startswith("labels/")
        assert (tmp_path / "again" / row.label).is_file()
    easy = {"reader": "manifest", "root": str(tmp_path / "again/easy.jsonl")}
    assert len(open_dataset(easy, SPACE)) == 1


def test_links_on_the_way_do_not_lead_astray(world, tmp_path):
    (tmp_path / "deep/er/real").mkdir(parents=True)
    (tmp_path / "runs").symlink_to(tmp_path / "deep/er/real")
    network = rank.load_network(world / "run", "latest")
    rank.rank(network, tmp_path / "runs/rank")
    row = {"reader": "manifest", "root": str(tmp_path / "runs/rank/easy.jsonl")}
    assert len(open_dataset(row, SPACE)) == 4


def test_other_weights_of_the_same_name_are_refused(world, whole):
    network = rank.load_network(world / "run", "latest")
    other = jax.tree.map(lambda x: x + 1, network.forward)
    with pytest.raises(UserError, match=r"another ranking \(weights: "):
        rank.rank(network._replace(forward=other), whole[0])
    # The same ones from another place are the same ranking.
    again = rank.rank(network._replace(name="elsewhere"), whole[0])
    assert [row.name for row in again.rows] == [row.name for row in whole[1].rows]


def test_unsure_pixels_can_stay_without_a_label(world):
    folder = world / "sure"
    rows = ranked(world, "sure", confidence=0.25).rows
    shares = [row.labelled for row in rows]
    assert 0 < min(shares) < 1
    for row in rows:
        label = read_raw_label(folder / row.label)
        assert (label < 13).mean() == pytest.approx(row.labelled)


def test_a_share_of_each_class_can_have_labels(world, whole):
    folder = world / "shares"
    rows = ranked(world, "shares", class_share=0.5).rows
    assert [row.name for row in rows] == [row.name for row in whole[1].rows]
    read = lambda kind, row: read_raw_label(folder / kind / f"{row.name}.png")
    labels, certain, kept = (
        np.stack([read(kind, row) for row in rows])
        for kind in ("labels", "certainty", "surest")
    )
    assert len(np.unique(labels)) > 1
    for c in np.unique(labels):
        mine = labels == c
        left, lost = certain[mine & (kept == c)], certain[mine & (kept == 255)]
        assert len(left) >= 0.5 * mine.sum()
        assert (left > left.min()).sum() < 0.5 * mine.sum()  # no more than need be
        assert not len(lost) or lost.max() < left.min()
        assert (kept[mine] == c).sum() + (kept[mine] == 255).sum() == mine.sum()
    easy = {"reader": "manifest", "root": str(folder / "easy.jsonl")}
    np.testing.assert_array_equal(open_dataset(easy, SPACE)[0]["label"], kept[0])
    about = json.loads((folder / "easy.jsonl").read_text().splitlines()[0])["about"]
    assert about["class_share"] == 0.5
    ranked(world, "shares", class_share=1.0)
    np.testing.assert_array_equal(read("surest", rows[0]), labels[0])
    assert float(scores(folder)[0]["labelled"]) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"class_share": 0.0}, r"--class_share=0.0 is outside \(0, 1\]"),
        ({"class_share": 0.5}, "another ranking .certainty: False -> True"),
        ({"confidence": 0.5}, "another ranking .confidence: 0.0 -> 0.5"),
        ({"confidence": 1.0}, r"outside \[0, 1\)"),
        ({"easy_fraction": 0.1}, "leaves no easy one"),
    ],
)
def test_what_cannot_be_is_refused(world, whole, options, words):
    before = sorted(p.name for p in whole[0].iterdir())
    with pytest.raises(UserError, match=words):
        ranked(world, "whole", **options)
    assert sorted(p.name for p in whole[0].iterdir()) == before


def test_a_folder_of_something_else_is_refused(world, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="no ranking"):
        rank.rank(rank.load_network(world / "run", "latest"), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_labels_of_other_classes_and_lost_labels_are_refused(world):
    ranked(world, "lost")
    row = {"reader": "manifest", "root": str(world / "lost/easy.jsonl")}
    with pytest.raises(UserError, match=r'"crosscity13" \(13 classes\), and the conf'):
        open_dataset(row, LABEL_SPACES["cityscapes19"])
    shutil.rmtree(world / "lost/labels")
    with pytest.raises(UserError, match=r"4 of 4 images in .* have no label"):
        open_dataset(row, SPACE)


def test_the_command(world, whole, tmp_path, capsys):
    """Weights of a file instead of a run: the same ranking."""
    config = runs.read_config(world / "run")
    run = trained.load_run(world / "run")
    config.init_from = str(world / "run")
    file = write_config(tmp_path / "config.py", config)
    command = [f"--config={file}", f"--output={tmp_path / 'rank'}"]
    rank.main(command)
    out = capsys.readouterr().out
    assert "6 images ranked: 4 easy, 2 hard" in out
    assert f"--config {NEXT} --workdir {tmp_path}/intra" in out
    assert f"--config.source.root={tmp_path}/rank/easy.jsonl" in out
    assert f"--config.target.root={tmp_path}/rank/hard.jsonl" in out
    assert scores(tmp_path / "rank")[0]["name"] == scores(whole[0])[0]["name"]
    assert run.step == 7
    for arguments, words in (
        ([f"--config={file}", "--checkpoint=best"], "--checkpoint is of a --workdir"),
        ([f"--config={file}", "--config.init_from="], "needs trained weights"),
        ([f"--workdir={world / 'run'}", "--config.seed=1"], "is no option"),
        ([f"--workdir={world / 'run'}", "--scales=1;2"], "write --scales=1,1.25"),
    ):
        with pytest.raises(UserError, match=words):
            rank.main([*arguments, f"--output={tmp_path / 'other'}"])
    assert not (tmp_path / "other").exists()
    command[1] += "_twice"
    rank.main([*command, "--flip", "--scales=1,1.5"])
    facts = json.loads((tmp_path / "rank_twice/ranking.json").read_text())
    look = facts["evaluation"]
    assert look["flip"] is True and look["scales"] == [1.0, 1.5]
    assert scores(tmp_path / "rank_twice")[0]["score"] != scores(whole[0])[0]["score"]


def test_two_processes_of_two_devices_rank_as_one(world, whole, tmp_path):
    arguments = (f"--workdir={world / 'run'}", f"--output={tmp_path / 'rank'}")
    outputs = run_two("uda_jax.rank", *arguments, env=devices(2))
    for code, _, err in outputs:
        assert code == 0, err
    assert "6 images ranked" in outputs[0][1] and "ranked" not in outputs[1][1]
    for number in range(2):
        lines = (tmp_path / f"rank/progress_{number}.jsonl").read_text().splitlines()
        assert len(lines) == 3
    for row, one in zip(scores(tmp_path / "rank"), scores(whole[0]), strict=True):
        assert (row["name"], row["part"]) == (one["name"], one["part"])
        assert float(row["score"]) == pytest.approx(float(one["score"]), rel=1e-5)
        label = f"labels/{row['name']}.png"
        np.testing.assert_array_equal(
            read_raw_label(tmp_path / "rank" / label), read_raw_label(whole[0] / label)
        )


def test_a_process_that_fails_does_not_leave_the_other_waiting(world, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "rank")
    for path in (tmp_path / "rank").glob("progress_*"):
        path.unlink()
    label = tmp_path / "rank" / whole[1].rows[0].label
    label.unlink()
    label.mkdir()  # cannot be written, by the one whose it is
    arguments = (f"--workdir={world / 'run'}", f"--output={tmp_path / 'rank'}")
    outputs = run_two("uda_jax.rank", *arguments)
    assert all(code not in (0, None) for code, _, _ in outputs)
    errors = "".join(err for _, _, err in outputs)
    assert label.name in errors and "another process of this run stopped" in errors


@pytest.mark.slow
def test_memory_is_flat_in_the_number_of_images(world, tmp_path, monkeypatch):
    count, resident = 10_000, {}
    (tmp_path / "images").mkdir()
    photos = sorted((world / "city/target/Minicity/Images/Train").iterdir())[:2]
    for number in range(count):
        (tmp_path / f"images/{number:05d}.png").hardlink_to(photos[number % 2])
    network = rank.load_network(world / "run", "latest")
    network.config.target = ConfigDict(dict(reader="folder", root=str(tmp_path)))

    @contextlib.contextmanager
    def watching(_):
        def tell(done, count):
            if done in (1_000, count):
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                resident[done] = pages * resource.getpagesize() / 2**20

        yield tell

    monkeypatch.setattr(label_files, "progress", watching)
    part = rank.rank(network, tmp_path / "rank")
    assert len(part.rows) == count and part.easy == 6_700
    assert resident[count] - resident[1_000] < 50, resident  # MiB
