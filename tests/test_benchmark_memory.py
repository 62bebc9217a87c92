"""`scripts/benchmark.py memory`: rows that stay, and a missing compiler."""

import argparse
import json
import sys

import pytest
from conftest import ROOT

from uda_jax.errors import UserError

sys.path.insert(0, str(ROOT / "scripts"))
import benchmark_memory
import measuring

ROW = {"state_gib": 1.0, "temporary_gib": 2.0, "held_gib": 3.0, "tflop": 13.4}


@pytest.fixture
def compile_forms(tmp_path, monkeypatch):
    """(forms, version of the compiler) -> (rows that are kept, document)."""
    document, numbers = tmp_path / "performance.md", tmp_path / "performance.json"
    document.write_text("<!-- memory -->\nold\n<!-- /memory -->\n")
    numbers.write_text("{}")
    monkeypatch.setattr(measuring, "DOCUMENT", document)
    monkeypatch.setattr(measuring, "NUMBERS", numbers)
    compiled = []

    def compile_apart(form, backbone):
        if form == "bfloat16":
            raise SystemExit("out of memory")
        compiled.append(form)
        return {**ROW, "number": len(compiled)}

    def run(forms, version="1"):
        about = {"processor": "a", "cores": 2, "python": "3", "jax": version}
        monkeypatch.setattr(
            benchmark_memory,
            "compiler",
            lambda: {**about, "jaxlib": "1", "jax-cuda13-plugin": "1"},
        )
        arguments = argparse.Namespace(
            forms=forms, backbone="mit_b5", analyse=None, dry=False
        )
        try:
            benchmark_memory.memory_benchmark(arguments)
        finally:
            rows = json.loads(numbers.read_text())["memory"]["rows"]
            run.seen = {form: row["number"] for form, row in rows.items()}
        return run.seen, document.read_text()

    monkeypatch.setattr(benchmark_memory, "compile_apart", compile_apart)
    return run


def test_rows_of_one_compiler_stay_and_stand_in_order(compile_forms):
    compile_forms(["float32, remat"])
    rows, text = compile_forms(["float32"])
    assert rows == {"float32, remat": 1, "float32": 2}
    row = "1.00 GiB | 2.00 GiB | 3.00 GiB | 13.40 | 1.00 s |"
    assert text.index(f"| float32 | {row}") < text.index(f"| float32, remat | {row}")
    assert "RTX 2080 Ti" in text and "old" not in text
    assert compile_forms(["float32"], version="2")[0] == {"float32": 3}


def test_what_was_compiled_before_a_failure_is_kept(compile_forms):
    with pytest.raises(SystemExit, match="out of memory"):
        compile_forms(["float32", "bfloat16"])
    assert compile_forms.seen == {"float32": 1}


def test_the_compiler_must_be_installed(monkeypatch):
    def missing(name):
        raise benchmark_memory.PackageNotFoundError(name)

    monkeypatch.setattr(benchmark_memory, "version", missing)
    with pytest.raises(UserError, match=r'pip install -e "\.\[gpu\]"'):
        benchmark_memory.compiler()
