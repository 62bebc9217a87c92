"""The network that labels the target of a mix: where it is from, and that it stays."""

import shutil

import jax
import numpy as np
import pytest
from conftest import STAGE_TWO, STREAMS, write_network
from ml_collections import ConfigDict
from test_train import STEPS, final_numbers, interrupt, losses

from uda_jax import summary, train
from uda_jax.errors import UserError
from uda_jax.labels import get_label_space
from uda_jax.runs import load_weights, make_model


@pytest.fixture(scope="module")
def config(tiny):
    """As in test_train.py, where its program is compiled too."""
    config = tiny(STAGE_TWO, steps=STEPS)
    config.data.streams = ConfigDict(STREAMS)
    config.checkpoint_every = 1
    for geometry in (config.data.source, config.data.target):
        geometry.crop_size = (32, 32)
    return config


@pytest.fixture(scope="module", autouse=True)
def lean():
    """Runs that share one compiled step; only their ends would differ."""
    programs, original = [], train.make_train_step

    def once(*args, **options):
        programs.append(programs[0] if programs else original(*args, **options))
        return programs[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "make_train_step", once)
        patch.setattr(summary, "finish", lambda *_: None)
        yield


def assert_frozen(workdir, params):
    numbers = final_numbers(workdir)
    for path, value in jax.tree_util.tree_leaves_with_path(params):
        name = f"['memory']['mix']['pseudo']['params']{jax.tree_util.keystr(path)}"
        np.testing.assert_array_equal(numbers[name], value, err_msg=name)


def two_steps(config, workdir, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt(patch, at_step=3)
        with pytest.raises(KeyboardInterrupt):
            train.fit(config, workdir)


def test_the_frozen_network_labels_and_stays(config, tmp_path, monkeypatch, capsys):
    config = config.copy_and_resolve_references()
    config.init_from, start = write_network(tmp_path / "start", config, 1)
    config.frozen_from, frozen = write_network(
        tmp_path / "frozen", config, 2, bias=100.0
    )
    two_steps(config, tmp_path / "run", monkeypatch)
    out = capsys.readouterr().out
    assert f"from {config.init_from}" in out
    assert f"from {config.frozen_from}" in out.split("frozen network: ")[1]
    # Sure of every pixel, as only that network is.
    assert [row["mix/confident"] for row in losses(tmp_path / "run")] == [1.0, 1.0]
    assert_frozen(tmp_path / "run", frozen)
    kernel = start["head"]["branch_0"]["kernel"]
    trained = final_numbers(tmp_path / "run")[
        "['params']['segmentor']['head']['branch_0']['kernel']"
    ]
    assert 0 < np.abs(trained - kernel).max() < 0.5

    # A run that goes on has it in its checkpoint.
    shutil.rmtree(tmp_path / "frozen")
    with monkeypatch.context() as patch:
        interrupt(patch, at_step=4)
        with pytest.raises(KeyboardInterrupt):
            train.fit(config, tmp_path / "run")
    assert losses(tmp_path / "run")[-1]["mix/confident"] == 1.0
    assert_frozen(tmp_path / "run", frozen)


def test_without_one_the_start_labels(config, tmp_path, monkeypatch):
    config = config.copy_and_resolve_references()
    config.init_from, start = write_network(tmp_path / "start", config, 3, bias=100.0)
    two_steps(config, tmp_path / "run", monkeypatch)
    assert [row["mix/confident"] for row in losses(tmp_path / "run")] == [1.0, 1.0]
    assert_frozen(tmp_path / "run", start)


def test_a_frozen_network_that_cannot_be_had(config, tmp_path):
    config = config.copy_and_resolve_references()
    config.frozen_from = str(tmp_path / "nothing")
    with pytest.raises(
        UserError, match=r"^frozen_from=.*nothing is neither a file nor"
    ):
        train.fit(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    path, _ = write_network(tmp_path / "frozen", config, 2)
    config.frozen_from = path
    other = config.copy_and_resolve_references()
    other.label_space = "cityscapes19"
    model = make_model(other)
    own = model.init(jax.random.key(0))
    with pytest.raises(UserError, match=r"frozen_from=.*number of classes"):
        load_weights(path, *own, option="frozen_from")
    model = make_model(config)
    own = model.init(jax.random.key(0))
    row = {**config.model, "input_form": "caffe"}
    with pytest.raises(UserError, match=r"^frozen_from=.*input_form=imagenet where"):
        load_weights(
            path, *own, row=row, option="frozen_from",
            label_space=get_label_space("crosscity13"),
        )  # fmt: skip
