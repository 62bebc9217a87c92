"""Every file in configs/, and every variant behind its colon, enters by itself."""

import functools
import importlib.util
import inspect
import json

import jax
import numpy as np
import pytest
from conftest import ROOT, shrink
from ml_collections import ConfigDict
from trees import write_tree

from uda_jax import benchmarks, train
from uda_jax.factories import build
from uda_jax.labels import LABEL_SPACES
from uda_jax.methods import METHODS
from uda_jax.optimizers import make_optimizer
from uda_jax.runs import check_config, differences, make_model
from uda_jax.training_data import open_training_data

FILES = sorted((ROOT / "configs").glob("*.py"))


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def variants(path):
    """Arguments of get_config: what it offers to `benchmarks.choose`, or none."""
    module, tables = load(path), []
    if not inspect.signature(module.get_config).parameters:
        return [()]
    choose = benchmarks.choose

    def spy(table, argument):
        tables.append(list(table))
        return choose(table, argument)

    benchmarks.choose = spy
    try:
        module.get_config()
    finally:
        benchmarks.choose = choose
    assert tables, f"{path} takes an argument: look it up with benchmarks.choose"
    return [(argument,) for argument in tables[0]]


CASES = {
    ":".join([path.stem, *arguments]): (path, arguments)
    for path in FILES
    for arguments in variants(path)
}


def get_config(case):
    path, arguments = CASES[case]
    return load(path).get_config(*arguments)


@functools.lru_cache
def compiled(text):
    """(train step, new state) of a config; cities that differ in data share it."""
    config = ConfigDict(json.loads(text))
    model = make_model(config)
    classes = LABEL_SPACES[config.label_space].num_classes
    method = build(METHODS, "method", config.method, model.forward, classes)
    optimizer, _ = make_optimizer(
        config.optimizer, config.schedule, steps=config.steps, model=model
    )
    step = train.make_train_step(
        method, optimizer, accumulate_steps=config.accumulate_steps
    )
    return step, lambda: train.init_state(model, method, optimizer, 0)[0]


@pytest.mark.parametrize("case", CASES)
def test_builds_and_is_one_with_its_json(case):
    config = get_config(case).lock()
    check_config(config)
    again = ConfigDict(json.loads(config.to_json()))
    assert not differences(json.loads(config.to_json()), json.loads(again.to_json()))
    assert set(config) == set(benchmarks.base_config(config.benchmark))
    METHODS[config.method.name]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_says_how_to_run_it(path):
    module = load(path)
    assert f"--config configs/{path.name}" in module.__doc__
    # A variant's workdir is the user's choice; the file's own bears its name.
    assert f"--workdir runs/{path.stem}" in module.__doc__


@pytest.mark.parametrize("case", CASES)
def test_takes_a_step(case, tmp_path, compilation_cache):
    config = get_config(case)
    steps, batch_size = config.steps, config.batch_size
    shrink(config, steps=steps)
    config.batch_size = 2 * config.accumulate_steps
    assert batch_size % config.accumulate_steps == 0
    rows = [config.source, config.target, config.test]
    for index, row in enumerate(row for row in rows if row.reader):
        write_tree(row, tmp_path / str(index))
    config.init_from = ""
    data = open_training_data(
        config, needs_target=train.method_needs_target(config), workdir=tmp_path
    )
    assert data.test[0]["label"].shape == (96, 128)
    with data.batches(0) as batches:
        batch, _ = next(batches)
    keys = ("source", "target", "test", "benchmark", "evaluation", "data")
    same = {k: v for k, v in json.loads(config.to_json()).items() if k not in keys}
    step, new_state = compiled(json.dumps(same, sort_keys=True))
    before = new_state()
    state, metrics = step(new_state(), batch)
    assert all(np.isfinite(x) for x in jax.tree.leaves(metrics)), metrics
    moved = jax.tree.map(lambda a, b: (a != b).any(), before.params, state.params)
    assert any(jax.tree.leaves(moved))
    assert step._cache_size() == 1
