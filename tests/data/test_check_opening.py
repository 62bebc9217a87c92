"""What a check opens, and what it says of what is not there."""

import os

import pytest
from conftest import ROOT, write_cityscapes, write_minicity

from uda_jax.data import check


def opened(*argv):
    """The reports, and the problems of what could not be opened."""
    return check.open_all(check.plan_of(*check.parse(argv)))


@pytest.fixture
def labels(tmp_path):
    """The labels of three images of Cityscapes' layout."""
    write_cityscapes(tmp_path / "data", "val", 3)
    return sorted(tmp_path.glob("data/gtFine/val/*/*_labelIds.png"))


def cityscapes(tmp_path, *argv):
    argv = [*argv, "--label_space=cityscapes19", "--option=split=val"]
    return opened("--reader=cityscapes", f"--root={tmp_path / 'data'}", *argv)


def test_a_missing_label_leaves_the_others(tmp_path, labels):
    labels[1].unlink()
    (report,), problems = cityscapes(tmp_path)
    assert problems == [] and len(report.dataset) == 3
    (problem,) = report.problems
    assert "_leftImg8bit.png has no label" in problem and str(labels[1]) in problem
    check.walk(report, range(3), thumbnails=3, threads=1, advance=lambda: None)
    assert report.problems == [problem] and report.pixels.any()
    assert sum(report.image_sizes.values()) == 3
    assert sum(report.label_sizes.values()) == 2
    assert [t.label is None for t in report.thumbnails] == [False, True, False]


def test_labels_that_are_all_missing_are_one_problem(tmp_path, labels):
    for label in labels:
        label.unlink()
    (report,), (problem,) = cityscapes(tmp_path)
    assert problem.startswith("cityscapes: 3 of 3 images")
    assert not report.dataset.has_labels and not report.problems


def test_labels_that_cannot_be_listed_leave_the_images(tmp_path, labels):
    os.rename(labels[0], str(labels[0]).replace("labelIds", "labelTrainIds"))
    (report,), (problem,) = cityscapes(tmp_path)
    assert 'set label_files="train_ids"' in problem
    assert len(report.dataset) == 3 and not report.dataset.has_labels


def test_labels_that_nobody_reads_may_be_missing(tmp_path, labels):
    labels[1].unlink()
    (report,), problems = cityscapes(tmp_path, "--no_labels")
    assert not problems and not report.problems and not report.dataset.has_labels


def test_minicity_is_drawn_where_it_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("uda_jax.data.minicity.write", write_minicity)
    reports, problems = opened("--benchmark=minicity")
    assert [r.role for r in reports] == ["source", "validation", "target", "test"]
    assert "drawing minicity into data/minicity" in capsys.readouterr().out
    # Of a config, where its test images are looked for, as a run would.
    argv = [f"--config={ROOT / 'configs/source_only_minicity.py'}"]
    argv += ["--config.test.root=elsewhere/target"]
    reports, problems = opened(*argv)
    assert (tmp_path / "elsewhere/target").is_dir() and not problems
