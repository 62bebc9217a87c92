"""What is refused before a run begins, and the folder of a run."""

import json

import pytest
from conftest import TUFL, shrink

from uda_jax import train
from uda_jax.benchmarks import base_config
from uda_jax.errors import UserError
from uda_jax.runs import (
    check_config,
    check_workdir,
    make_model,
    open_workdir,
    read_config,
)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("steps", 0, "steps=0 is too small"),
        ("checkpoint_every", -1, "checkpoint_every=-1"),
        ("label_space", "cityscape19", 'did you mean "cityscapes19"'),
        ("label_space", "camvid11", "is not in label space"),
        ("benchmark", "minicty", 'did you mean "minicity"'),
        ("evaluation.mode", "hole", 'did you mean "whole"'),
        ("evaluation.mode", "sliding", "needs window"),
        ("evaluation.size", (4,), "evaluation needs size"),
        ("evaluation.batch_size", 0, "evaluation.batch_size=0"),
    ],
)
def test_what_would_fail_late_fails_early(tiny, field, value, words):
    config = tiny()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=words):
        check_config(config)


def test_a_method_without_its_target(tiny, tmp_path):
    config = tiny(TUFL)
    config.target.reader = ""
    with pytest.raises(UserError, match="reader is empty"):
        train.fit(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_config_field_is_part_of_a_run(tmp_path):
    config = shrink(base_config("minicity"))
    assert config.init_new_heads is False
    open_workdir(tmp_path / "run", config)
    config.init_new_heads = True  # it changes the numbers of the run
    with pytest.raises(UserError, match="init_new_heads: False -> True"):
        open_workdir(tmp_path / "run", config)
    assert make_model(config).backbone == "cp/resnet/"


@pytest.mark.parametrize("commit", ["0123abc", None])
def test_a_run_of_another_version_is_said(tmp_path, commit):
    workdir = tmp_path / "run"
    config = shrink(base_config("minicity"))
    open_workdir(workdir, config)
    old = json.loads((workdir / "config.json").read_text())
    del old["frozen_from"], old["data"]["streams"]
    (workdir / "config.json").write_text(json.dumps(old))
    words = r"another version of this library \(it differs"
    if commit:
        (workdir / "provenance.json").write_text(json.dumps([{"commit": commit}]))
        words = "version of this library, commit 0123abc, .it differs"
    words += r" in frozen_from, data.streams\).*uda_jax.convert .*for init_from"
    for look in (read_config, lambda folder: check_workdir(folder, config)):
        with pytest.raises(UserError, match=words) as caught:
            look(workdir)
        assert str(caught.value).count(". ") == 0
