"""The tables of `scripts/results.py`."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from conftest import ROOT

from uda_jax.errors import UserError
from uda_jax.metrics import Report

sys.path.insert(0, str(ROOT / "scripts"))
import results


def write_run(workdir, seed, right, protocol="whole image", names=()):
    """A run that has `right` of 10 pixels of each class: IoU right / (20 - right)."""
    workdir.mkdir()
    confusion = np.array([[right, 10 - right], [10 - right, right]])
    report = Report(
        confusion,
        ("road", "sky"),
        (0, 1),
        num_images=1,
        provenance={"protocol": protocol},
        confusions=confusion[None] if names else None,
        image_names=names,
    )
    report.save(workdir / "report.json")
    (workdir / "config.json").write_text(json.dumps({"seed": seed}))
    return str(workdir)


@pytest.fixture
def runs(tmp_path):
    """IoU 25 %, 1/3 and 25 % before, and 1/3, 3/7 and 1/3 after, of seeds 0, 1, 2."""
    before = [write_run(tmp_path / f"a{i}", i, n) for i, n in enumerate((4, 5, 4))]
    after = [write_run(tmp_path / f"b{i}", i, n) for i, n in enumerate((5, 6, 5))]
    return before, after


def test_gains_are_of_the_same_seed_with_their_standard_error(runs):
    before, after = runs
    rows = [f"before={','.join(before)}", f"after={','.join(after)}"]
    lines = results.table(results.read_rows(rows)).splitlines()
    # Standard deviations: 8.333 / root 3 and 9.524 / root 3; gains 8.333, 9.524, 8.333,
    # whose standard error is 1.1905 / 3.
    assert lines[2] == "| before | 27.8 ± 4.8 |  | 28 | 28 |"
    gain = "+8.7, s.e. 0.4 (+8.3, +9.5, +8.3)"
    assert lines[3] == f"| after | 36.5 ± 5.5 | {gain} | 37 | 37 |"


def test_refuses_runs_that_do_not_compare(runs, tmp_path):
    before, after = runs
    other = write_run(tmp_path / "c", 0, 5, protocol="mirrored too")
    for rows, words in (
        ([f"a={before[0]}", f"b={other}"], "was scored otherwise"),
        ([f"a={before[0]}", f"b={after[1]}"], "seed 1"),
        ([f"a={before[0]}", f"b={','.join(after)}"], "3 runs and the first row 1"),
        ([f"a={before[0]}", f"a={after[0]}"], "two rows"),
    ):
        with pytest.raises(UserError, match=words):
            results.read_rows(rows)


def test_another_report_is_of_each_seeds_own_images(runs):
    for folders in runs:
        for seed, folder in enumerate(folders):
            report = Report.load(f"{folder}/report.json")
            own = {"confusions": report.confusion[None], "image_names": (f"{seed}",)}
            dataclasses.replace(report, **own).save(f"{folder}/hard.json")
    row = lambda name, folders: f"{name}={','.join(folders)}"
    before, after = row("a", runs[0]), row("b", runs[1])
    plain = results.table(results.read_rows([before, after]))
    assert results.table(results.read_rows([before, after], "hard.json")) == plain
    runs[1][:2] = runs[1][1::-1]
    with pytest.raises(UserError, match=r"b1 is of other images, unlike .*a0"):
        results.read_rows([before, row("b", runs[1])], "hard.json")


def test_an_ensemble_has_no_seed(runs, tmp_path):
    both = write_run(tmp_path / "both", 5, 6)
    (tmp_path / "both" / "config.json").unlink()
    rows = results.read_rows([f"before={runs[0][0]}", f"both={both}"])
    assert rows["both"][0].miou == pytest.approx(3 / 7)


def write_rare(workdir, seed, right, pixels=(1000, 400, 40, 0, 10, 30, 200)):
    """A run that finds `right` of each class's pixels and takes the others for road.

    It sees a train where nobody labelled one.
    """
    pixels = np.array(pixels)
    found = (pixels * right).astype(int)
    confusion = np.diag(found)
    confusion[:, 0] += pixels - found
    confusion[0, [0, 3]] += [-1, 1]
    names = ("road", "wall", "pole", "train", "bike", "rider", "car")
    workdir.mkdir()
    Report(confusion, names, (0, 1, 2, 3, 4, 5), 1).save(workdir / "report.json")
    (workdir / "config.json").write_text(json.dumps({"seed": seed}))
    return str(workdir)


def test_rarest_third_is_of_the_evaluated_classes_that_are_labelled(tmp_path):
    before = [write_rare(tmp_path / f"a{i}", i, n) for i, n in enumerate((0.5, 0.4))]
    after = [write_rare(tmp_path / f"b{i}", i, n) for i, n in enumerate((0.7, 0.8))]
    rows = results.read_rows([f"a={','.join(before)}", f"b={','.join(after)}"])
    text = results.table(rows, rarest_third=True)
    head, _, first, second, *below = text.splitlines()
    assert head.startswith("| run | mIoU | gain | rarest third | its gain | road |")
    # Bike and rider: their IoU is the share found; gains +20 and +40.
    assert first.split(" | ")[3:5] == ["45.0 ± 7.1", ""]
    assert second.split(" | ")[3:5] == ["75.0 ± 7.1", "+30.0, s.e. 10.0 (+20.0, +40.0)"]
    assert below[0] == ""  # a paragraph of its own
    assert "2 of 6 classes" in below[1]
    assert below[1].endswith("bike (0.68 %), rider (2 %).")
    plain = results.table(rows).splitlines()
    assert len(plain) == 4 and "rarest" not in plain[0]
    # The other columns are as without it.
    assert first.split(" | ")[:3] == plain[2].split(" | ")[:3]
    assert first.split(" | ")[5:] == plain[2].split(" | ")[3:]


def test_rarest_third_of_single_runs_has_intervals_of_its_own():
    rows = {}
    for name, right in (("a", 30), ("b", 90)):
        # What is not right is taken for road: 20 equal images.
        one = [[900, 0, 0], [100 - right, right, 0], [100, 0, 300]]
        counts = np.array([one] * 20)
        names = ("road", "bike", "car")
        rows[name] = [Report(counts.sum(0), names, (0, 1, 2), 20, {}, counts)]
    text = results.table(rows, rarest_third=True)
    cells = text.splitlines()[3].split(" | ")
    assert cells[3] == "90.0 (90.0 to 90.0)"
    assert cells[4] == "+60.0 (+60.0 to +60.0)"


def test_refuses_a_rarest_third_that_means_two_things(tmp_path, runs):
    a = write_rare(tmp_path / "a", 0, 0.5)
    b = write_rare(tmp_path / "b", 0, 0.5, (1000, 400, 10, 0, 40, 30, 200))
    rows = results.read_rows([f"a={a}", f"b={b}"])
    with pytest.raises(UserError, match="different labels"):
        results.table(rows, rarest_third=True)
    with pytest.raises(UserError, match="2 classes have no rarest third"):
        results.table(results.read_rows([f"a={runs[0][0]}"]), rarest_third=True)


def test_the_command_writes_between_the_markers(tmp_path, monkeypatch):
    document = tmp_path / "results.md"
    document.write_text("x\n<!-- rare -->\nold\n<!-- /rare -->\ny\n")
    monkeypatch.setattr(results, "DOCUMENT", document)
    run = write_rare(tmp_path / "a", 0, 0.5)
    results.main(["--rarest-third", "rare", f"a={run}"])
    text = document.read_text()
    assert text.startswith("x\n<!-- rare -->\n| run | mIoU | gain | rarest third |")
    assert text.endswith("rider (2 %).\n<!-- /rare -->\ny\n")
    with pytest.raises(SystemExit):
        results.main(["--rarest-third", "rare"])


def test_a_kept_row_is_the_row_of_its_runs(runs, tmp_path):
    before, after = runs
    rows = results.read_rows([f"before={','.join(before)}", f"b={','.join(after)}"])
    record = tmp_path / "kept.json"
    results.keep(record, rows)
    results.keep(record, {"c": rows["b"]})  # the others stay
    again = results.read_rows([f"before={','.join(before)}", "b", "c"], record=record)
    assert results.table(again) == results.table({**rows, "c": rows["b"]})
    assert results.table(results.read_rows(["before", "b"], record=record)) == (
        results.table(rows)
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("c=other", '"b" of .* was scored otherwise'),
        ("c=turned", '"b" of .* .seed 0. stands where'),
        ("c=one", "3 runs and the first row 1"),
        ("c=images", '"b" of .* is of other images'),
        ("d", 'no row "d" is kept in .*, which has "b", "single"'),
        ("single", "is of a single run"),
    ],
)
def test_kept_rows_are_refused_like_others(runs, tmp_path, given, words):
    record = tmp_path / "kept.json"
    rows = results.read_rows([f"b={','.join(runs[1])}", f"single={runs[1][0]}"])
    named = lambda run: {**run.provenance, "images": "0123"}
    rows["b"] = [dataclasses.replace(run, provenance=named(run)) for run in rows["b"]]
    results.keep(record, rows)
    write = lambda i, name, seed, **options: write_run(
        tmp_path / f"{name}{i}", seed, 5, **options
    )
    given = {
        "c=other": lambda: [write(i, "o", i, protocol="mirrored") for i in range(3)],
        "c=turned": lambda: [write(i, "t", 2 - i) for i in range(3)],
        "c=one": lambda: [write(0, "s", 0)],
        "c=images": lambda: [write(i, "n", i, names=("x",)) for i in range(3)],
    }.get(given, lambda: given)()
    first = given if isinstance(given, str) else f"c={','.join(given)}"
    with pytest.raises(UserError, match=words):
        results.read_rows([first, "b"], record=record)


def test_a_damaged_record_is_said(runs, tmp_path):
    record = tmp_path / "kept.json"
    record.write_text("[1")
    with pytest.raises(UserError, match="is no record of a table"):
        results.read_rows(["b"], record=record)


def test_the_command_keeps_and_finds_rows(runs, tmp_path, monkeypatch):
    document = tmp_path / "results.md"
    document.write_text("<!-- x -->\n<!-- /x -->\n")
    monkeypatch.setattr(results, "DOCUMENT", document)
    before, after = (",".join(r) for r in runs)
    results.main(["x", f"a={before}", f"b={after}"])
    wanted = document.read_text()
    results.main(["x", "a", "b"])
    assert document.read_text() == wanted
    assert (tmp_path / "results/x.json").is_file()
