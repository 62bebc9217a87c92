"""scripts/intrada.sh with a program that only writes down how it was called."""

import json
import shutil
import subprocess

import pytest
from conftest import ROOT


@pytest.fixture
def script(tmp_path):
    """script(*arguments) -> (exit code, stderr, lines of what was called)."""
    (tmp_path / "scripts").mkdir()
    for name in ("intrada.sh", "setup.sh"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", tmp_path / ".venv/uda_jax_installed")
    python.write_text(
        '#!/bin/sh\necho "$@" >> calls\n'
        'case "$*" in *"-m uda_jax.rank"*) [ ! -e broken ] ;; esac\n'
    )
    python.chmod(0o755)

    def run(*arguments):
        done = subprocess.run(
            ["bash", str(tmp_path / "scripts/intrada.sh"), *arguments],
            capture_output=True,
            text=True,
        )
        calls = tmp_path / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        return done.returncode, done.stderr, lines

    run.folder = tmp_path
    return run


def test_three_stages_and_whose_the_options_are(script):
    options = (
        *("--config.seed=1", "--config.source.root=/s", "--easy_fraction=0.5"),
        *("--normalize", "--from_inter", "--config.data.source.crop_size=8,8"),
    )
    code, err, calls = script("configs/c.py:self", "runs/w", *options)
    assert (code, err) == (0, "")
    _, inter, rank, last = calls  # first the config is looked at
    assert inter == (
        "-m uda_jax.main --config configs/c.py:inter --workdir runs/w/inter "
        "--config.seed=1 --config.source.root=/s --config.data.source.crop_size=8,8"
    )
    assert rank == (
        "-m uda_jax.rank --workdir runs/w/inter --output runs/w/rank "
        "--easy_fraction=0.5 --normalize"
    )
    assert last == (
        "-m uda_jax.main --config configs/c.py:self --workdir runs/w/self "
        "--config.seed=1 --config.init_from=runs/w/inter "
        "--config.init_new_heads=False --config.source.root=runs/w/rank/easy.jsonl "
        "--config.target.root=runs/w/rank/hard.jsonl"
    )


def test_it_stops_where_a_stage_fails(script):
    (script.folder / "broken").touch()
    code, _, calls = script("configs/c.py", "runs/w")
    assert code != 0
    assert len(calls) == 3 and "uda_jax.rank" in calls[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("configs/c.py",), "usage: bash scripts/intrada.sh CONFIG WORKDIR"),
        (("configs/c.py", "w", "--config.seed", "1"), "write --name=value"),
        (("configs/c.py:inter", "w"), "is stage 1: name a stage 3"),
    ],
)
def test_mistakes_show_before_anything_is_run(script, arguments, words):
    code, err, calls = script(*arguments)
    assert code == 2 and words in err and not calls


@pytest.mark.slow
def test_the_real_stages_and_again(minicity, tmp_path):
    """The whole of it on tiny images; repeated, no stage does anything twice."""
    workdir = tmp_path / "w"
    roots = [f"--config.{x}.root={minicity}/source" for x in ("source", "validation")]
    roots += [f"--config.{x}.root={minicity}/target" for x in ("target", "test")]
    command = [
        *("bash", ROOT / "scripts/intrada.sh", "configs/intrada_minicity.py", workdir),
        *(*roots, "--config.init_from=", "--config.steps=2", "--easy_fraction=0.5"),
        *("--config.data.threads=0", "--config.model.width=0.125"),
    ]
    run = lambda: subprocess.run(command, capture_output=True, text=True)
    first = run()
    assert first.returncode == 0, first.stderr
    assert "6 images ranked: 3 easy, 3 hard" in first.stdout
    config = json.loads((workdir / "intra/config.json").read_text())
    assert config["source"]["root"] == str(workdir / "rank/easy.jsonl")
    for part in ("source", "target"):
        assert config[part]["reader"] == "manifest"
    reports = [workdir / stage / "report.json" for stage in ("inter", "intra")]
    assert reports[0].read_text() != reports[1].read_text()
    files = {p: p.stat().st_mtime_ns for p in (workdir / "rank/labels").rglob("*.png")}
    assert len(files) == 6
    (workdir / "rank/scores.csv").unlink()  # as if it had been stopped there
    rows = len((workdir / "inter/metrics.jsonl").read_text().splitlines())
    second = run()
    assert second.returncode == 0, second.stderr
    assert (workdir / "rank/scores.csv").exists()
    assert files == {path: path.stat().st_mtime_ns for path in files}
    assert len((workdir / "inter/metrics.jsonl").read_text().splitlines()) == rows
