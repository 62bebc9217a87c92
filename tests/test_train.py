import dataclasses
import json
import re
import time

import jax
import numpy as np
import pytest
from conftest import (
    SOURCE_ONLY,
    STAGE_TWO,
    STREAMS,
    start,
    write_config,
    write_network,
)
from ml_collections import ConfigDict
from tensorboardX.proto import event_pb2

from uda_jax import convert, summary, torch_files, train, training_data
from uda_jax.checkpoints import Checkpoints
from uda_jax.errors import UserError
from uda_jax.evaluate_run import evaluate_run
from uda_jax.factories import build
from uda_jax.methods import METHODS
from uda_jax.metrics import Report
from uda_jax.optimizers import make_optimizer
from uda_jax.report import write_report
from uda_jax.runs import make_model
from uda_jax.stages import next_commands
from uda_jax.trained import load_run

STEPS = 24  # one program for the whole file, and long enough to be killed


@pytest.fixture(scope="session")
def config(tiny, tmp_path_factory):
    config = tiny(STAGE_TWO, steps=STEPS, checkpoint_every=4)
    config.data.streams = ConfigDict(STREAMS)
    config.frozen_from, _ = write_network(tmp_path_factory.mktemp("frozen"), config)
    config.evaluate_every = 12
    config.next = ("configs/tufl_minicity.py",)
    for geometry in (config.data.source, config.data.target):
        geometry.crop_size = (32, 32)  # small, so that 24 steps cost little
    return config


@pytest.fixture(scope="session")
def whole_run(config, tmp_path_factory):
    """The workdir of a run that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    train.fit(config, workdir)
    return workdir


def final_numbers(workdir):
    """Everything in the last checkpoint: weights, optimizer, memory, key, step."""
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    step = checkpoints.find("latest")
    names = ("step", "params", "batch_stats", "opt_state", "memory", "key")
    parts = checkpoints.restore_parts(step, names)
    checkpoints.close()
    rows = jax.tree_util.tree_leaves_with_path(parts)
    return {jax.tree_util.keystr(k): np.asarray(_raw(v)) for k, v in rows}


def _raw(x):
    is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(x) if is_key else x


def assert_same_run(workdir, other):
    numbers, wanted = final_numbers(workdir), final_numbers(other)
    assert numbers.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(numbers[name], value, err_msg=name)
    rows, wanted_rows = losses(workdir), losses(other)
    assert [r["step"] for r in rows] == list(range(1, STEPS + 1))
    for row, wanted_row in zip(rows, wanted_rows, strict=True):
        for key in row.keys() - {"time/images_per_second"}:
            assert row[key] == wanted_row[key], (row["step"], key)
    assert Report.load(workdir / "report.json").miou == (
        Report.load(other / "report.json").miou
    )


def losses(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if "loss/total" in row]


def interrupt(monkeypatch, at_step, error=KeyboardInterrupt):
    """fit() gets `error` instead of the batch of `at_step`."""
    original = training_data.train_iterator

    class Iterator:
        def __init__(self, *args, start_step, **options):
            self._it = original(*args, start_step=start_step, **options)
            self._step = start_step

        def __next__(self):
            self._step += 1
            if self._step == at_step:
                raise error
            return next(self._it)

        def close(self):
            self._it.close()

    monkeypatch.setattr(training_data, "train_iterator", Iterator)


def test_what_a_run_leaves_behind(whole_run, config):
    assert {p.name for p in whole_run.iterdir()} >= {
        *("config.json", "provenance.json", "metrics.jsonl", "report.json"),
        *("report.html", "checkpoints", "panels", "tensorboard", "parameters.txt"),
    }
    kernels = (whole_run / "parameters.txt").read_text()
    count = sum(x.size for x in jax.tree.leaves(load_run(whole_run).params))
    assert "segmentor/backbone/conv1/kernel" in kernels
    assert f"Total: {count:,}" in kernels
    rows = losses(whole_run)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert rows[0]["optimizer/learning_rate"] == pytest.approx(0.01)
    assert rows[-1]["loss/total"] < rows[0]["loss/total"]
    assert (whole_run / f"panels/{STEPS:07d}.png").stat().st_size > 1000
    report = Report.load(whole_run / "report.json")
    assert report.num_images == 3
    assert report.provenance["network"] == "deeplabv2"
    assert report.provenance["step"] == STEPS
    page = (whole_run / "report.html").read_text()
    assert "tufl with mix single on minicity" in page and "What comes next" in page
    assert next_commands(config, whole_run)[0] in page
    run = load_run(whole_run)
    assert run.step == STEPS and run.label_space.num_classes == 13
    assert json.loads((whole_run / "provenance.json").read_text())[0]["versions"]


def test_tensorboard_has_the_curves_and_the_panel(whole_run):
    (path,) = (whole_run / "tensorboard").iterdir()
    data, tags = path.read_bytes(), {}
    while data:  # TFRecord: length, its checksum, event, its checksum
        size = int.from_bytes(data[:8], "little")
        event = event_pb2.Event.FromString(data[12 : 12 + size])
        data = data[16 + size :]
        for value in event.summary.value:
            tags.setdefault(value.tag.split("/image")[0], []).append(event.step)
    assert tags["loss/total"] == list(range(1, STEPS + 1))
    assert tags["eval/miou"] == [12, 24]
    assert tags["panel"] == [STEPS]


@pytest.mark.slow  # the killed run below shows the same, and more
def test_interrupted_and_resumed_is_the_same_run(
    config, whole_run, tmp_path, monkeypatch, capsys
):
    with monkeypatch.context() as patch:
        interrupt(patch, at_step=7)
        with pytest.raises(KeyboardInterrupt):
            train.fit(config, tmp_path / "run")
    assert [row["step"] for row in losses(tmp_path / "run")] == list(range(1, 7))
    assert "goes on" not in capsys.readouterr().out
    steps = []
    original = train.make_train_step

    def spy(*args, **options):
        steps.append(original(*args, **options))
        return steps[-1]

    monkeypatch.setattr(train, "make_train_step", spy)
    train.fit(config, tmp_path / "run")
    assert "goes on from step 4" in capsys.readouterr().out
    assert_same_run(tmp_path / "run", whole_run)
    starts = json.loads((tmp_path / "run/provenance.json").read_text())
    assert len(starts) == 2
    assert steps[0]._cache_size() == 1  # compiled once


def test_killed_and_resumed_is_the_same_run(config, whole_run, tmp_path):
    file, workdir = write_config(tmp_path / "config.py", config), tmp_path / "run"
    process = start(file, workdir)
    metrics = workdir / "metrics.jsonl"
    deadline = time.monotonic() + 300
    saved = lambda: any(x.name.isdigit() for x in workdir.glob("checkpoints/*"))
    # Later than a whole checkpoint, and than steps that none has.
    while not (saved() and len(metrics.read_text().splitlines()) >= 6):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert process.returncode == -9
    assert not (workdir / "report.json").exists()
    assert len(losses(workdir)) < STEPS
    process = start(file, workdir)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "goes on from step" in out
    assert_same_run(workdir, whole_run)


def test_repeating_a_finished_run_does_not_train(
    config, whole_run, monkeypatch, capsys
):
    before = (whole_run / "metrics.jsonl").read_text()
    report = (whole_run / "report.json").read_text()
    interrupt(monkeypatch, at_step=STEPS + 1)
    train.fit(config, whole_run)
    out = capsys.readouterr().out
    assert f"goes on from step {STEPS}" in out
    assert out.endswith(f"next:   {next_commands(config, whole_run)[0]}\n")
    assert (whole_run / "metrics.jsonl").read_text() == before
    assert (whole_run / "report.json").read_text() == report


def test_evaluates_a_finished_run_again(config, whole_run, capsys):
    report = evaluate_run(config, whole_run, "latest")
    assert report.miou == Report.load(whole_run / "report.json").miou
    assert Report.load(whole_run / "evaluate_latest.json").provenance["step"] == STEPS
    assert "mIoU" in capsys.readouterr().out
    changed = config.copy_and_resolve_references()
    changed.optimizer.learning_rate = 1.0
    with pytest.raises(UserError, match="learning_rate: 0"):
        evaluate_run(changed, whole_run, "latest")


def test_a_run_without_a_teacher_says_so(whole_run):
    words = "is a run of .*, which has no teacher: choose the checkpoint latest or"
    with pytest.raises(UserError, match=words):
        load_run(whole_run, "teacher")


def test_evaluates_on_the_sources_validation_images(config, whole_run, capsys):
    report = evaluate_run(config, whole_run, "latest", "validation")
    path = whole_run / "evaluate_latest_validation.json"
    assert Report.load(path).num_images == report.num_images == 1
    assert report.provenance["images"] == "validation"
    config.validation = {}
    with pytest.raises(UserError, match="has no validation images"):
        evaluate_run(config, whole_run, "latest", "validation")


def test_scores_weights_that_no_run_trained(config, whole_run, tmp_path, capsys):
    config = config.copy_and_resolve_references()
    config.init_from = str(whole_run)
    evaluate_run(config, tmp_path / "new", "latest")
    report = evaluate_run(config, tmp_path / "new", "latest")  # and again
    assert report.miou == Report.load(whole_run / "report.json").miou
    assert [p.name for p in (tmp_path / "new").glob("*.json")] == [
        "evaluate_init_from.json"
    ]
    assert str(whole_run) in capsys.readouterr().out
    config.init_new_heads = True
    with pytest.raises(UserError, match="leaves heads untrained"):
        evaluate_run(config, tmp_path / "other", "latest")


def test_no_gain_over_other_classes(config, whole_run):
    config = config.copy_and_resolve_references()
    config.init_from = str(whole_run)
    report = Report.load(whole_run / "report.json")
    assert summary.baseline_of(config, report).miou == report.miou
    fewer = dataclasses.replace(report, classes=report.classes[:-1])
    others = dataclasses.replace(report, class_names=report.class_names[::-1])
    assert summary.baseline_of(config, fewer) is None
    assert summary.baseline_of(config, others) is None


def test_says_why_there_is_no_gain(whole_run):
    report = Report.load(whole_run / "report.json")
    assert "+0.00 points over runs/a (" in summary._over(report, report, "runs/a")
    other = dataclasses.replace(report, provenance={"protocol": "flipped"})
    over = summary._over(report, other, "runs/a")
    assert re.match(r"; not compared with runs/a \(.*otherwise \(flipped\)$", over)
    for baseline, compared in [(report, True), (other, False)]:
        page = write_report(
            whole_run / "compared", title="", report=report, config={},
            colors=np.zeros((13, 3), np.uint8), baseline=baseline,
        ).read_text()  # fmt: skip
        assert ("The line across a bar" in page) is compared
        assert ("not compared with before" in page) is not compared


def test_non_finite_loss_stops(config, tmp_path, monkeypatch):
    config = config.copy_and_resolve_references()
    config.log_every = 20
    original = train.make_train_step

    def broken(*args, **options):
        step = original(*args, **options)

        def run(state, batch):
            state, metrics = step(state, batch)
            if state.step == 7:
                metrics["loss/source"] = metrics["loss/source"] * np.nan
            return state, metrics

        run.trace = step.trace
        return run

    monkeypatch.setattr(train, "make_train_step", broken)
    with pytest.raises(UserError) as caught:
        train.fit(config, tmp_path / "run")
    text = str(caught.value)
    assert "step 7 " in text and "loss/source=nan" in text and "loss/total=" in text
    assert "source: town_0000" in text and "target: Minicity/pic_" in text
    assert load_run(tmp_path / "run").step == 4
    assert all(np.isfinite(x).all() for x in final_numbers(tmp_path / "run").values())


def test_init_from_says_what_was_loaded(
    config, whole_run, tmp_path, monkeypatch, capsys
):
    interrupt(monkeypatch, at_step=2)
    config = config.copy_and_resolve_references()
    config.init_from = str(whole_run)
    with pytest.raises(KeyboardInterrupt):
        train.fit(config, tmp_path / "run")
    out = capsys.readouterr().out
    run = load_run(whole_run)
    count = sum(x.size for x in jax.tree.leaves((run.params, run.batch_stats)))
    assert f"from {whole_run}, step {STEPS}" in out and f"{count:,}" in out


def test_init_from_is_what_the_steps_start_from(config, whole_run):
    _, _, state, origin = parts_of(config, init_from=str(whole_run))
    run = load_run(whole_run)
    jax.tree.map(np.testing.assert_array_equal, state.params["segmentor"], run.params)
    jax.tree.map(np.testing.assert_array_equal, state.batch_stats, run.batch_stats)
    assert str(whole_run) in origin and int(state.step) == 0


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("label_space", "cityscapes19", r"number of classes.*\[3, 3, 64, 13\] there"),
        ("model.width", 0.25, "of another network or another number of classes"),
        ("model.form", "mmseg", "of another network: it lacks"),
        ("model.multi_level", True, "lacks params/aux_head.*init_new_heads=True"),
    ],
)
def test_init_from_another_network(config, whole_run, tmp_path, field, value, words):
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict({field: value})
    config.init_from = str(whole_run)
    with pytest.raises(UserError, match=words):
        train.fit(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_training_starts_from_a_file_of_pytorch(tiny, tmp_path, capsys):
    config = tiny()  # as in test_main.py, where its program was compiled
    model = make_model(config)
    params, stats = model.init(jax.random.key(5))
    tensors = convert.to_torch(params, stats, model.torch.to_torch)
    heads = [name for name in tensors if "conv2d_list" in name]
    tensors |= {name: tensors[name][:7] for name in heads}  # seven classes
    path = torch_files.write(tmp_path / "other.pth", tensors)
    config.init_from = str(path)
    with pytest.raises(UserError, match="another number of classes"):
        train.fit(config, tmp_path / "run")
    config.init_new_heads = True
    train.fit(config, tmp_path / "run")
    out = capsys.readouterr().out
    assert f"{len(tensors) - len(heads)} arrays of {len(tensors)} (" in out
    assert f"initial values: {len(heads)} (params/head/branch_0/bias, " in out
    assert (tmp_path / "run" / "report.html").exists()
    config.init_from = ""
    with pytest.raises(UserError, match="init_from is empty"):
        train.fit(config, tmp_path / "other")


def parts_of(config, init_from=""):
    model = make_model(config)
    method = build(METHODS, "method", config.method, model.forward, 13)
    optimizer, _ = make_optimizer(
        config.optimizer, config.schedule, steps=config.steps, model=model
    )
    size = config.data.source.crop_size
    batch = {"source": {"image": np.zeros((1, *size, 3), np.uint8)}}
    state, origin = train.init_state(
        model, method, optimizer, 0, init_from, batch=batch
    )
    return method, optimizer, state, origin


def random_batch(batch_size):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (batch_size, 64, 64, 3), np.uint8)
    return {"source": {"image": image, "label": image[..., 0] % 13}}


def test_accumulated_gradients_are_those_of_the_full_batch(tiny):
    config = tiny({**SOURCE_ONLY, "color_strength": 0.0}, batch_norm="frozen")
    results = []
    for accumulate_steps in (1, 2):
        method, optimizer, state, _ = parts_of(config)
        step = train.make_train_step(
            method, optimizer, accumulate_steps=accumulate_steps
        )
        results.append(step(state, random_batch(4)))
    (state, metrics), (in_parts, metrics_in_parts) = results
    total = float(metrics["loss/total"])
    assert total == pytest.approx(float(metrics_in_parts["loss/total"]), 1e-6)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    jax.tree.map(close, state.params, in_parts.params)
    jax.tree.map(close, state.opt_state, in_parts.opt_state)


def test_bfloat16_and_remat_take_a_step(tiny):
    config = tiny(compute_dtype="bfloat16", remat=True)
    method, optimizer, state, _ = parts_of(config)
    kinds = jax.tree.map(lambda x: x.dtype, state.params)
    state, metrics = train.make_train_step(method, optimizer)(state, random_batch(2))
    assert np.isfinite(metrics["loss/total"]) and int(state.step) == 1
    assert jax.tree.map(lambda x: x.dtype, state.params) == kinds


def test_state_is_all_that_changes():
    names = {field.name for field in dataclasses.fields(train.TrainState)}
    assert names == {"step", "params", "batch_stats", "opt_state", "memory", "key"}
