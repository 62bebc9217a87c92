"""Runs that go on from others, and what follows a run."""

import json
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from conftest import MIX, NETWORK, SOURCE_ONLY, TUFL
from ml_collections import ConfigDict
from test_train import final_numbers, interrupt, losses

from uda_jax import (
    convert,
    convert_command,
    panels,
    stages,
    summary,
    torch_files,
    train,
)
from uda_jax.checkpoints import Checkpoints
from uda_jax.errors import UserError
from uda_jax.models import create_model
from uda_jax.runs import load_weights
from uda_jax.trained import load_run
from uda_jax.weights import load_weights_file

ADVENT = {
    "name": "advent",
    "adversarial_aux_weight": 0.0,
    "aux_weight": 0.0,
    "source_view": "none",
    "target_view": "none",
}
ADAM = {"name": "adam", "learning_rate": 1e-3, "weight_decay": 0.0}
DISCRIMINATOR = {"optimizer": ADAM, "schedule": {"name": "constant"}}


@pytest.fixture(scope="module")
def config(tiny):
    config = tiny(ADVENT, steps=4, checkpoint_every=1, discriminator=DISCRIMINATOR)
    # One that does not depend on the run's length.
    config.schedule = ConfigDict({"name": "constant"})
    config.data.source.crop_size = config.data.target.crop_size = (32, 32)
    return config


@pytest.fixture(scope="module", autouse=True)
def lean():
    """Runs that share one compiled step, as only their lengths differ, and no scores.

    What the steps change is the matter here; test_train.py looks at the rest.
    """
    programs, original = [], train.make_train_step

    def once(*args, **options):
        programs.append(programs[0] if programs else original(*args, **options))
        return programs[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "make_train_step", once)
        patch.setattr(summary, "assess", lambda *_: SimpleNamespace(miou=0.5))
        patch.setattr(summary, "finish", lambda *_: None)
        patch.setattr(panels, "make_panels", lambda *_: lambda *_: None)
        yield


@pytest.fixture(scope="module")
def whole_run(config, tmp_path_factory):
    """The workdir of four steps that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("stages") / "whole"
    train.fit(config, workdir)
    return workdir


def assert_same_numbers(workdir, other):
    numbers, wanted = final_numbers(workdir), final_numbers(other)
    assert numbers.keys() == wanted.keys()
    assert any("discriminator" in name for name in wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(numbers[name], value, err_msg=name)


def test_an_adversarial_run_logs_and_lists_both_networks(whole_run):
    row = losses(whole_run)[-1]
    assert row["optimizer/learning_rate"] == pytest.approx(0.01)
    assert row["optimizer/discriminator_learning_rate"] == pytest.approx(0.001)
    assert row["discriminator/main_source"] > 0 and row["loss/adversarial_main"] > 0
    table = (whole_run / "parameters.txt").read_text()
    assert "discriminator/main/conv1/kernel" in table


def test_continued_and_killed_is_as_if_it_had_not_stopped(
    config, whole_run, tmp_path, monkeypatch, capsys
):
    half, config = (config.copy_and_resolve_references() for _ in range(2))
    former, workdir = tmp_path / "former", tmp_path / "more"
    half.steps = 2
    train.fit(half, former)
    before = sorted(former.rglob("*"))
    config.continue_from = str(former)
    config.init_from, config.init_new_heads = "of/the/file", True
    with monkeypatch.context() as patch:
        interrupt(patch, at_step=4)
        with pytest.raises(KeyboardInterrupt):
            train.fit(config, workdir)
    out = capsys.readouterr().out
    assert f"{former} goes on here from its step 2 of 2" in out
    assert f"init_from=of/the/file is not used: the run goes on from {former}" in out
    assert sorted(former.rglob("*")) == before
    shutil.rmtree(former)  # with a checkpoint of its own it is not needed any more
    train.fit(config, workdir)
    assert "goes on from step 3" in capsys.readouterr().out
    assert_same_numbers(workdir, whole_run)
    rows = {row["step"]: row["loss/total"] for row in losses(workdir)}
    assert rows == {row["step"]: row["loss/total"] for row in losses(whole_run)[2:]}
    assert json.loads((workdir / "config.json").read_text())["continue_from"]
    first, second = json.loads((workdir / "provenance.json").read_text())
    assert "from its step 2" in first["weights"] and "step 3" in second["weights"]


def test_what_cannot_be_continued(config, whole_run, tmp_path):
    def changed(**changes):
        new = config.copy_and_resolve_references()
        new.steps, new.continue_from = 6, str(whole_run)
        new.update(changes)
        return new

    for words, changes in [
        ("steps=4, but continue_from=.* has done 4 already", {"steps": 4}),
        ("continue_from=no/run is not the workdir", {"continue_from": "no/run"}),
        (r"seed: 0 -> 1\): keep what it had there, or .* init_from", {"seed": 1}),
        (r"model\.width: 0\.125 -> 0\.25", {"model": {"width": 0.25}}),
        ("model.branches: 4 -> 2", {"model": {"branches": 2}}),
        ("label_space: crosscity13 -> ", {"label_space": "cityscapes19"}),
        (r"method\.name: advent -> minent", {"method": {"name": "minent"}}),
        (
            r"discriminator\.optimizer\.name: adam -> adamw",
            {"discriminator": {"optimizer": {"name": "adamw"}}},
        ),
    ]:
        with pytest.raises(UserError, match=words) as caught:
            stages.continue_run(changed(**changes), None)
        assert "\n" not in str(caught.value)
    # What only the arrays show, and that nothing is written.
    words = "of another network, method or optimizer: it lacks .*opt_state.* and has"
    with pytest.raises(UserError, match=words):
        train.fit(changed(optimizer={"head_multiplier": 10.0}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("multi_level", [True, False])
def test_a_network_with_and_one_without_auxiliary_head(tmp_path, multi_level):
    def network(multi_level):
        model = create_model(**{**NETWORK, "multi_level": multi_level}, num_classes=13)
        shapes = jax.eval_shape(model.init, jax.random.key(0))
        random = np.random.default_rng(multi_level)
        fill = lambda x: random.normal(size=x.shape).astype(np.float32)
        return model, *jax.tree.map(fill, shapes)

    model, params, stats = network(multi_level)
    tensors = convert.to_torch(params, stats, model.torch.to_torch)
    path = str(torch_files.write(tmp_path / "x.pth", tensors))
    _, *own = network(not multi_level)
    side = "has layer5.* beside" if multi_level else "lacks params/aux_head"
    with pytest.raises(UserError, match=f"{side}.*heads that fit .*init_new_heads="):
        load_weights(path, *own)
    new, _, line = load_weights(path, *own, new_heads=True)
    for part in ("backbone", "head"):
        jax.tree.map(np.testing.assert_array_equal, new[part], params[part])
    assert ("left out: 8 (layer5" in line) is multi_level
    assert ("initial values: 8 (params/aux_head" in line) is not multi_level


@pytest.mark.parametrize("method", ["advent", "source_only"])
def test_a_discriminator_and_its_optimizer_come_together(config, tmp_path, method):
    config = config.copy_and_resolve_references()
    if method == "advent":
        config.discriminator = ConfigDict()
    else:
        config.method = ConfigDict(SOURCE_ONLY)
    with pytest.raises(UserError, match="discriminator"):
        train.fit(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_segmentor_alone_starts_another_run(whole_run):
    run = load_run(whole_run)
    assert set(run.discriminators) == {"main"}
    own = jax.tree.map(np.zeros_like, (run.params, run.batch_stats))
    params, stats, origin = load_weights(str(whole_run), *own)
    jax.tree.map(np.testing.assert_array_equal, params, run.params)
    jax.tree.map(np.testing.assert_array_equal, stats, run.batch_stats)
    assert f"{whole_run}, step 4" in origin and "ended" not in origin


def test_weights_of_a_run_that_has_not_ended_say_so(whole_run, tmp_path):
    shutil.copytree(whole_run, tmp_path / "run")
    config = json.loads((tmp_path / "run/config.json").read_text())
    (tmp_path / "run/config.json").write_text(json.dumps({**config, "steps": 9}))
    run = load_run(whole_run)
    *_, origin = load_weights(str(tmp_path / "run"), run.params, run.batch_stats)
    assert origin.endswith("step 4 of 9, a run that has not ended")


def test_a_discriminator_becomes_a_file(whole_run, tmp_path, capsys):
    output, back = tmp_path / "D_main.pth", tmp_path / "back.safetensors"
    options = ["--part=discriminator/main", "--naming=adaptsegnet"]
    convert_command.main([str(whole_run), str(output), *options])
    assert "self-check: logits [1, 2, 4, 1]" in capsys.readouterr().out
    assert torch_files.read(output)["conv1.weight"].shape == (64, 13, 4, 4)
    convert_command.main([str(output), str(back)])
    params = load_run(whole_run).discriminators["main"]
    jax.tree.map(np.testing.assert_array_equal, load_weights_file(back).params, params)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("discriminator/aux", r"\(a run of advent\) has no part .*did you mean \"disc"),
        ("segmentor", "leave --part out"),
    ],
)
def test_parts_that_are_not_there(whole_run, part, words):
    with pytest.raises(UserError, match=words):
        load_weights_file(whole_run, part=part)


def test_best_survives_a_restart(tmp_path):
    state = {"x": np.zeros(2, np.float32)}
    first = Checkpoints(tmp_path / "checkpoints")
    first.save(2, state, 0.6)
    first.save(3, state)
    first.close()
    again = Checkpoints(tmp_path / "checkpoints")
    again.save(4, state, 0.5)
    again.save(5, state)
    again.wait()
    assert again.find("best") == 2 and again.steps() == [2, 5]
    again.close()


def test_a_ranking_comes_before_the_stages_that_learn_from_it(config, tmp_path):
    names = ("configs/intrada_minicity.py:intra", "configs/intrada_minicity.py:other")
    config = config.copy_and_resolve_references()
    config.next = tuple(f"rank {name}" for name in names)
    given = (
        "--config.seed=2 --config.test.root=/t --config.source.root=/s "
        "--config.target.root /g --config.model.width 0.5 --config.steps=9 "
        "--config.init_from=start.pth"
    )
    stages.check_stages(config)
    (command,) = stages.next_commands(config, tmp_path / "inter", given.split())
    words = f"--workdir {tmp_path}/inter --output {tmp_path}/rank"
    assert command == f"python -m uda_jax.rank {words}"
    (command,) = stages.next_commands(config, tmp_path / "mine", ())
    assert command.endswith(f"--output {tmp_path}/mine_rank")
    commands = stages.commands_after_ranking(config, tmp_path / "rank", given.split())
    for command, name in zip(commands, names, strict=True):
        folder = tmp_path / name.partition(":")[2]
        assert command == (
            f"python -m uda_jax.main --config {name} --workdir {folder} "
            f"--config.source.root={tmp_path}/rank/easy.jsonl "
            f"--config.target.root={tmp_path}/rank/hard.jsonl "
            "--config.seed=2 --config.test.root=/t --config.model.width=0.5 "
            "--config.init_from=start.pth"
        )


def test_the_next_commands(config, tmp_path):
    config = config.copy_and_resolve_references()
    config.next = ("configs/maxsquare.py:gta5", "configs/minent.py")
    workdir = tmp_path / "my runs" / "source"
    first, second = stages.next_commands(config, workdir)
    assert first == (
        "python -m uda_jax.main --config configs/maxsquare.py:gta5 --workdir "
        f"'{workdir.parent}/maxsquare_gta5' '--config.init_from={workdir}'"
    )
    assert f"--workdir '{workdir.parent}/minent'" in second
    # What the user chose of the data, seed and network, not the rest.
    given = "--config x.py --config.seed=3 --config.steps=9 --config.test.root /d"
    given += " --config.model.multi_level --config.data.prepared= --config.seedling=1"
    (command, _) = stages.next_commands(config, workdir, given.split())
    assert command == (
        f"{first} --config.seed=3 --config.test.root=/d --config.model.multi_level "
        "--config.data.prepared="
    )
    config.next = ("maxsquare",)
    with pytest.raises(UserError, match='next has "maxsquare", which is no config'):
        stages.check_stages(config)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "init_from and frozen_from are empty: name a run or a file"),
        (
            {"init_from": "a", "init_new_heads": True},
            "random heads, which would label .* in frozen_from",
        ),
        (
            {"frozen_from": "a", "continue_from": "b"},
            "frozen_from=a is not used, .* continue_from=b goes on",
        ),
        (
            {"frozen_from": "a", "method": {"mix": {}}},
            'frozen_from=a is not used, because method "tufl"',
        ),
        ({"init_from": "a"}, None),
        ({"frozen_from": "a"}, None),
        ({"init_from": "a", "init_new_heads": True, "frozen_from": "b"}, None),
        ({"continue_from": "a"}, None),
        ({"method": {"mix": {}}}, None),
    ],
)
def test_what_labels_the_target_of_a_mix_is_trained(tiny, tmp_path, changes, words):
    config = tiny({**TUFL, "mix": {}})
    config.method.mix = changes.pop("method", {"mix": MIX})["mix"]
    config.update(changes)
    if words is None:
        stages.check_stages(config)
        return
    with pytest.raises(UserError, match=words) as caught:
        train.fit(config, tmp_path / "run")
    assert str(caught.value).count(". ") == 0 and not (tmp_path / "run").exists()
