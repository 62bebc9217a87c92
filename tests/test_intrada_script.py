"""scripts/intrada.sh with a program that only writes down how it was called."""

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
