"""The curves of `scripts/acquisition_curves.py`."""

import json
import sys

import numpy as np
import pytest
from conftest import ROOT

from uda_jax.errors import UserError
from uda_jax.metrics import Report

sys.path.insert(0, str(ROOT / "scripts"))
import acquisition_curves


def write_run(workdir, before, last):
    """A run with 5, 10 and 20 of 100 images; `before` the second and third round."""
    steps, labelled = (0, 3, 7), (0, 5, 10)
    for n, miou in enumerate((None, *before)):
        folder = workdir / f"rounds/{n}"
        folder.mkdir(parents=True)
        facts = {"step": steps[n], "labelled_before": labelled[n], "images": 100}
        (folder / "round.json").write_text(json.dumps({**facts, "miou_before": miou}))
        (folder / "selected.jsonl").write_text("{}\n" * (5, 5, 10)[n])
    confusion = np.array([[last, 10 - last], [10 - last, last]])
    Report(confusion, ("a", "b"), (0, 1), 1).save(workdir / "report.json")
    return str(workdir)


def test_points_are_before_the_rounds_and_at_the_end(tmp_path):
    runs = [write_run(tmp_path / f"{i}", (0.2, x), 5) for i, x in enumerate((0.2, 0.3))]
    curves = acquisition_curves.read([f"random={','.join(runs)}", f"one={runs[0]}"])
    shares, scores = curves["random"]
    assert shares == [5, 10, 20]
    np.testing.assert_allclose(scores, [[20, 20, 100 / 3], [20, 30, 100 / 3]])
    lines = acquisition_curves.table(curves, {"all": np.array([50.0])}).splitlines()
    assert lines[0] == "| labelled | random | one |"
    assert lines[3] == "| 10 % | 25.0 ± 7.1 | 20.0 |"
    assert lines[-1] == "All: 50.0."
    assert acquisition_curves.picture(curves, {}).startswith(b"\x89PNG")


def test_with_ends_a_run_is_one_point(tmp_path):
    runs = [
        write_run(tmp_path / f"a{i}", (0.2, 0.2), last) for i, last in ((0, 5), (1, 9))
    ]
    small = [write_run(tmp_path / f"b{i}", (0.2,), 4) for i in range(2)]
    argument = f"x={small[0]},{runs[0]},{runs[1]},{small[1]}"
    (shares, scores) = acquisition_curves.read([argument], ends=True)["x"]
    assert shares == [10, 20]
    iou = lambda last: 100 * last / (20 - last)
    np.testing.assert_allclose(scores, [[iou(4), iou(5)], [iou(4), iou(9)]])
    with pytest.raises(UserError, match='shares of "x" have not as many runs'):
        acquisition_curves.read([f"x={small[0]},{runs[0]},{runs[1]}"], ends=True)


def test_runs_that_do_not_go_together(tmp_path):
    run = write_run(tmp_path / "a", (0.2, 0.2), 5)
    other = write_run(tmp_path / "b", (0.2,), 5)
    with pytest.raises(UserError, match="not the same rounds"):
        acquisition_curves.read([f"x={run},{other}"])
    Report(np.eye(2, dtype=int), ("a", "b"), (0, 1), 1).save(tmp_path / "report.json")
    with pytest.raises(UserError, match="has no rounds"):
        acquisition_curves.read([f"x={tmp_path}"])


def test_kept_curves_and_lines_come_back(tmp_path):
    runs = [write_run(tmp_path / f"{i}", (0.2, 0.3), 5) for i in range(2)]
    curves = acquisition_curves.read([f"random={runs[0]}"])
    lines = acquisition_curves.read_lines([f"all={','.join(runs)}"])
    record = tmp_path / "kept.json"
    acquisition_curves.keep(record, curves, lines, ends=False)
    again = acquisition_curves.read(["random", f"new={runs[1]}"], record=record)
    line = acquisition_curves.read_lines(["all"], record)
    assert acquisition_curves.table(again, line) == acquisition_curves.table(
        {**curves, "new": curves["random"]}, lines
    )
    read = acquisition_curves.read
    for get, words in (
        (lambda: read(["other"], record=record), 'no curve "other" is kept'),
        (lambda: read(["all"], record=record), '"all" is no curve in'),
        (lambda: read(["random"], True, record), "was kept without --ends"),
        (
            lambda: acquisition_curves.read_lines(["random"], record),
            '"random" is no line in',
        ),
    ):
        with pytest.raises(UserError, match=words):
            get()
