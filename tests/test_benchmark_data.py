"""The figures of `scripts/benchmark.py data`."""

import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import benchmark_data


def test_ratios_are_of_the_same_round():
    times = {
        "original PNG": [(40.0, 80.0), (60.0, 100.0), (50.0, 90.0)],
        "prepared PNG": [(4.0, 8.0), (5.0, 20.0), (10.0, 10.0)],
    }
    sizes = {"original PNG": 3.0, "prepared PNG": 1.0}
    first, second = benchmark_data.summarise(times, 2, sizes)
    assert first["ratio"] == first["ratio_min"] == first["ratio_max"] == 1
    assert first["images_per_second"] == pytest.approx(20)
    ratios = second["ratio_min"], second["ratio"], second["ratio_max"]
    assert ratios == (5, 9, 10)
    assert second["cpu_ms"] == 10 and second["megabytes"] == 1.0
    row = benchmark_data.table([second]).splitlines()[-1]
    assert row == "| prepared PNG | 2 | 200 | 10.0 ms | 9.0 (5.0 to 10.0) | 1.00 |"
