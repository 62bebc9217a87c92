"""A run with a mean teacher: its state, what is evaluated, how it goes on."""

import jax
import numpy as np
import pytest
from conftest import BALANCED, write_network
from ml_collections import ConfigDict

from uda_jax import train
from uda_jax.checkpoints import Checkpoints
from uda_jax.errors import UserError
from uda_jax.evaluate_run import evaluate_run
from uda_jax.metrics import Report
from uda_jax.trained import load_run
from uda_jax.weights import load_weights_file
from uda_jax.writers import read_history


@pytest.fixture(scope="module")
def config(tiny, tmp_path_factory):
    config = tiny(BALANCED, steps=4, checkpoint_every=2)
    config.optimizer = ConfigDict(
        dict(name="adamw", learning_rate=1e-3, weight_decay=0.01, head_multiplier=10.0)
    )
    config.evaluate_teacher = True
    config.evaluate_every = 2
    config.frozen_from, _ = write_network(tmp_path_factory.mktemp("frozen"), config)
    return config


def restored(workdir):
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    names = ("params", "opt_state", "memory")
    parts = checkpoints.restore_parts(checkpoints.find("latest"), names)
    checkpoints.close()
    return parts


def count(tree):
    return sum(np.size(x) for x in jax.tree.leaves(tree))


def test_a_run_with_a_teacher(config, tmp_path, capsys):
    student = train.fit(config, tmp_path / "run")
    teacher = Report.load(tmp_path / "run/report_teacher.json")
    assert f"mIoU {100 * teacher.miou:.2f} of the teacher" in capsys.readouterr().out
    assert (teacher.confusion != student.confusion).any()
    rows = [r for r in read_history(tmp_path / "run") if "eval/teacher_miou" in r]
    assert [r["step"] for r in rows] == [2, 4]
    assert rows[-1]["eval/teacher_miou"] == pytest.approx(teacher.miou)
    parts = restored(tmp_path / "run")
    loaded = load_run(tmp_path / "run", "teacher")
    assert loaded.step == 4
    again = evaluate_run(config, tmp_path / "run", "teacher")
    assert (again.confusion == teacher.confusion).all()
    assert {r.provenance["checkpoint"] for r in (again, teacher)} == {"teacher"}
    converted = load_weights_file(tmp_path / "run", copy="teacher")
    jax.tree.map(np.testing.assert_array_equal, converted.params, loaded.params)
    with pytest.raises(UserError, match="which has no imagenet to convert"):
        load_weights_file(tmp_path / "run", copy="imagenet")
    # Adam's two moments of the student, counters and flags: nothing of the others.
    assert parts["params"].keys() == {"segmentor"}
    moments = 2 * count(parts["params"])
    assert moments <= count(parts["opt_state"]) < 1.01 * moments


def test_features_stay_near_those_of_trained_weights(config, tmp_path):
    config = config.copy_and_resolve_references()
    config.frozen_from = ""
    with pytest.raises(
        UserError, match="needs trained features that the run's own stay"
    ):
        train.fit(config, tmp_path / "run")


def test_only_a_method_with_a_teacher_has_one(config, tmp_path):
    config = config.copy_and_resolve_references()
    config.method = ConfigDict(dict(name="source_only", view="none"))
    config.frozen_from = ""
    with pytest.raises(UserError, match='but method "source_only" has no teacher'):
        train.fit(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
