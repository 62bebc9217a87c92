"""The tables of `scripts/results.py`."""

import json
import sys

import numpy as np
import pytest
from conftest import ROOT

from uda_jax.errors import UserError
from uda_jax.metrics import Report

sys.path.insert(0, str(ROOT / "scripts"))
import results


def write_run(workdir, seed, right, protocol="whole image"):
    """A run that has `right` of 10 pixels of each class: IoU right / (20 - right)."""
    workdir.mkdir()
    confusion = np.array([[right, 10 - right], [10 - right, right]])
    report = Report(
        confusion,
        ("road", "sky"),
        (0, 1),
        num_images=1,
        provenance={"protocol": protocol},
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


def test_an_ensemble_has_no_seed(runs, tmp_path):
    both = write_run(tmp_path / "both", 5, 6)
    (tmp_path / "both" / "config.json").unlink()
    rows = results.read_rows([f"before={runs[0][0]}", f"both={both}"])
    assert rows["both"][0].miou == pytest.approx(3 / 7)
