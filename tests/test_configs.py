"""Every file in configs/, and every variant behind its colon, enters by itself.

Every variant is built, is one with its JSON, fits its neighbours and is read from files
to a batch.  Variants that run the same code on other numbers, classes or cities are one
program.  Of the programs as many are compiled and take a step as are needed for every
value of every option to be in one; the rest are traced, and not compiled.  How options
act together is the subject of the tests of methods, optimizers and models.
"""

import collections
import functools
import importlib.util
import inspect
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import NETWORK, ROOT, shrink
from ml_collections import ConfigDict
from trees import write_tree

from uda_jax import benchmarks, rounds, train
from uda_jax.factories import build
from uda_jax.labels import LABEL_SPACES
from uda_jax.methods import METHODS, looks_at_target
from uda_jax.models import resnet
from uda_jax.optimizers import make_optimizer
from uda_jax.runs import check_config, differences, make_model
from uda_jax.stages import RANK, check_stages
from uda_jax.training_data import open_training_data

FILES = sorted((ROOT / "configs").glob("*.py"))
STEMS = {path.stem for path in FILES}


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


def small(case):
    """The case's config with a network that compiles in seconds."""
    config = get_config(case)
    shrink(config, steps=config.steps)
    for geometry in (config.data.source, config.data.target):
        if geometry.get("resize"):
            geometry.resize = (96, 128)  # the trees' own size
    config.batch_size = 2 * config.accumulate_steps
    config.init_from = ""
    if config.schedule.get("warmup_form"):
        config.schedule.warmup_start = 1e-5  # from 0 the first step would move nothing
    # The trees have three target images, and one is to stay without a label.
    config.rounds = tuple((step, 1) for step, _ in config.rounds[:2])
    if "warmup_ratio" in config.schedule:
        config.schedule.warmup_ratio = 0.5  # from 1e-6 nothing would move
    if config.data.sampling.get("name") == "rare_class":
        config.data.sampling.min_pixels = 10
    if "alpha" in config.method:  # self-training: its colours have tests of their own
        config.method.colors, config.remat = "none", False
        config.method.ignore_top, config.method.ignore_bottom = 2, 8
    if config.model.name == "daformer" or config.model.get("form") == "ss_ada":
        config.model = ConfigDict(NETWORK)  # theirs are compiled in their own tests
    if config.method.get("mix"):
        # Stage one's network and colours are compiled in stage one, the mix's colours
        # in test_mix_parts.
        config.model = ConfigDict(NETWORK)
        config.method.color_strength = config.method.source_color_strength = 0.0
        if "color_strength" in config.method.mix:
            config.method.mix.color_strength = 0.0
    return config


PROGRAM = (
    *("model", "batch_norm", "compute_dtype", "remat", "accumulate_steps"),
    *("optimizer", "schedule", "discriminator", "method"),
)


@pytest.fixture(scope="module", autouse=True)
def few_blocks():
    """Gradients take time to compile by the block: two in one stage, one elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(resnet.BLOCKS, "resnet18", (1, 1, 1, 2))
        yield


METHODS_OWN = {
    *("class_weights", "related", "learns_from"),
    *("feature_weight", "feature_classes", "balance", "decay_of"),
}


@functools.cache
def options(case):
    """Options that decide which code a step runs; of numbers only whether they are 0.

    Those of the network keep their values: two or four branches are other code.
    Weights of classes and tables of related ones are numbers; what SS-ADA's baselines
    leave out, and the forms of self-training, are tested with the methods.
    """
    found = set()

    def walk(path, value):
        if isinstance(value, dict):
            for key in value.keys() - METHODS_OWN:
                walk((*path, key), value[key])
            return
        if isinstance(value, int | float) and "model" not in path:
            value = bool(value)
        found.add((path, json.dumps(value)))

    rows = json.loads(small(case).to_json())
    walk((), {key: rows[key] for key in PROGRAM})
    return frozenset(found)


def first_of_each(key):
    """Cases by a key, without those whose key was there before."""
    return list({key(case): case for case in reversed(CASES)}.values())[::-1]


def a_cover(cases):
    """Few of the cases, in which together every option has every value it has.

    First those that alone have some value, then whichever has most of what is left.
    """
    held = collections.Counter(o for case in cases for o in options(case))
    chosen = [c for c in cases if any(held[o] == 1 for o in options(c))]
    left = held.keys() - set().union(*map(options, chosen))
    while left:
        chosen.append(max(cases, key=lambda case: len(options(case) & left)))
        left -= options(chosen[-1])
    return chosen


def step_and_state(config):
    """The train step of a config, and batch -> its first state."""
    model = make_model(config)
    classes = LABEL_SPACES[config.label_space].num_classes
    method = build(METHODS, "method", config.method, model.forward, classes)
    optimizer, _ = make_optimizer(
        config.optimizer,
        config.schedule,
        steps=config.steps,
        model=model,
        discriminator=config.discriminator,
    )
    step = train.make_train_step(
        method, optimizer, accumulate_steps=config.accumulate_steps
    )
    return step, lambda batch: train.init_state(
        model, method, optimizer, 0, batch=batch
    )[0]


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """read(config): a batch, from small trees of its datasets; equal rows read once."""
    batches = {}

    def make(config):
        rows = [config.source, config.target, config.test]
        about_data = ("label_space", "batch_size", "source", "target", "test", "data",
                      "rounds")  # fmt: skip
        whole = json.loads(config.to_json())
        needs_target = looks_at_target(config)
        key = json.dumps([needs_target, {k: whole[k] for k in about_data}])
        if key not in batches:
            root = tmp_path_factory.mktemp("data")
            for index, row in enumerate(row for row in rows if row.reader):
                write_tree(row, root / str(index))
            data = open_training_data(
                config,
                needs_target=needs_target,
                workdir=root / "run",
                division=rounds.division_before(config, root / "run", 0),
            )
            assert data.test[0]["label"].shape == (96, 128)
            with data.batches(0) as iterator:
                batches[key] = next(iterator)[0]
        return batches[key]

    return make


@pytest.mark.parametrize("case", CASES)
def test_builds_and_is_one_with_its_json(case):
    config = get_config(case).lock()
    check_config(config)
    check_stages(config)
    rounds.rounds_of(config)
    assert config.batch_size % config.accumulate_steps == 0
    again = ConfigDict(json.loads(config.to_json()))
    assert not differences(json.loads(config.to_json()), json.loads(again.to_json()))
    assert set(config) == set(benchmarks.base_config(config.benchmark))
    step_and_state(config)
    # What it starts from is another config's run, or a file of weights.
    start = config.init_from.removeprefix("runs/")
    assert start.startswith("data/weights/") or start in {
        "", *STEMS, *(name.replace(":", "_") for name in CASES)
    }  # fmt: skip


def configs_named_in(text):
    """(stem, variant) of f.py, f.py:a, f.py[:a,:b] (also f alone) and {f,g}.py:{a,b}.

    Without a variant or braces it counts with configs/ before it: pages name other
    files too.  Variants with a shell's variable in them are left out.
    """
    found = set()
    files = (
        r"(configs/)?(\{[\w,]+\}|\w+)\.py((?::\w+\b(?!\$)|:\{[\w,]+\}|\[[\w,:]+\])?)"
    )
    for folder, stems, tail in re.findall(files, text):
        if not (folder or tail or "{" in stems):
            continue
        variants = re.findall(r"\w+", tail)
        if not variants or "[" in tail:
            variants.append("")
        for stem in re.findall(r"\w+", stems):
            found |= {(stem, variant) for variant in variants}
    return found


def trained(case):
    """What tells runs apart that a stage starts from.

    The tested data do not, nor a target never read; nor does how long it was trained,
    as `source_only_minicity.py:long`: the command of the next stage names its folder.
    """
    config = json.loads(get_config(case).to_json())
    free = {"benchmark", "test", "evaluation"}
    free |= {"steps", "evaluate_every", "panels_every"}
    if not config["target"]["reader"]:
        free.add("target")
    return {k: v for k, v in config.items() if k not in free}


def folder_of(case):
    """Where the stage before it is looked for: file and variant, the default's bare.

    Variants that are the default's training, tested elsewhere or longer, share its
    folder.
    """
    path, _ = CASES[case]
    parameters = inspect.signature(load(path).get_config).parameters
    default = ":".join([path.stem, *(p.default for p in parameters.values())])
    if trained(case) == trained(default):
        return f"runs/{path.stem}"
    return "runs/" + case.replace(":", "_")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_says_how_to_run_it(path):
    module = load(path)
    assert f"--config configs/{path.name}" in module.__doc__
    # A variant's workdir is the user's choice; the file's own bears its name.
    assert f"--workdir runs/{path.stem}" in module.__doc__


@pytest.mark.parametrize(
    "page", ["README.md", "docs/methods.md", "docs/results.md"], ids=lambda p: p
)
def test_pages_name_configs_that_exist(page):
    named = configs_named_in((ROOT / page).read_text())
    assert named
    for stem, variant in named - {("mine", "")}:  # the README's own
        assert f"{stem}:{variant}" in CASES if variant else stem in STEMS
    # Lists of variants alone, such as "with `:synthia`".
    for variant in re.findall(r"`:(\w+)`", (ROOT / page).read_text()):
        assert any(case.endswith(f":{variant}") for case in CASES), variant


def test_variants_are_found_in_commands_prose_and_tables():
    text = "--config configs/a.py, `b.py:x`, `{c,d}.py:{x,y}`, `e.py[:x,:y]`, f.py."
    expected = "a: b:x c:x c:y d:x d:y e: e:x e:y"
    assert configs_named_in(text) == {tuple(n.split(":")) for n in expected.split()}


@pytest.mark.parametrize("case", [case for case in CASES if get_config(case).next])
def test_the_stages_that_follow_fit(case):
    config = get_config(case)
    assert len(set(config.next)) == len(config.next)
    for name in config.next:
        file, _, variant = name.removeprefix(RANK).partition(":")
        following = load(ROOT / file).get_config(*filter(None, [variant]))
        assert following.model == config.model
        assert following.label_space == config.label_space
        if not name.startswith(RANK):
            assert following.init_from == folder_of(case)
            continue
        # It learns from the ranking beside this run, in a folder that all stages share.
        folder = f"runs/{Path(file).stem}"
        assert following.source.root == f"{folder}/rank/easy.jsonl"
        assert following.target.root == f"{folder}/rank/hard.jsonl"
        assert following.init_from == config.init_from


@pytest.mark.parametrize("data", ["minicity", "camvid"])
def test_the_small_network_starts_every_method(data):
    config = get_config(f"source_only_{data}:deeplabv2")
    stages = [c for c in CASES if c.startswith(f"small_methods:{data}_")]
    assert list(config.next) == [f"configs/{c.replace(':', '.py:')}" for c in stages]


@pytest.mark.parametrize("case", CASES)
def test_comes_from_its_folders_to_a_batch(case, read):
    config = small(case)
    batch = read(config)
    domains = {"source", *config.data.streams}
    if looks_at_target(config):
        domains |= {"target", "partner"} if config.data.partner else {"target"}
    if config.labelled or (config.rounds and config.rounds[0][0] == 0):
        domains.add("labelled")
    assert set(batch) == domains
    for domain in domains:
        assert batch[domain]["image"].shape == (config.batch_size, 64, 64, 3)
    assert "label" not in batch.get("target", ())


PROGRAMS = first_of_each(options)
STEPPED = a_cover(PROGRAMS)
# In the ordinary suite a step of each method; every value of every option with --all.
OF_EACH_METHOD = {get_config(case).method.name: case for case in STEPPED}


ORDINARY = [case for case in PROGRAMS if case not in OF_EACH_METHOD.values()]


@pytest.mark.parametrize("case", ORDINARY)
def test_its_parts_fit_each_other(case, read):
    assert_fits(small(case), read)


def test_self_training_fits_its_own_network(read):
    config = small("daformer_gta5")
    config.model, config.remat = ConfigDict(get_config("daformer_gta5").model), True
    config.model.backbone = "mit_b0"
    assert_fits(config, read)


def assert_fits(config, read):
    step, new_state = step_and_state(config)
    batch = read(config)
    state = jax.eval_shape(new_state, batch)
    after, _ = jax.eval_shape(step, state, batch)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for now, before in zip(*map(jax.tree.leaves, (after, state)), strict=True):
        assert (now.shape, now.dtype) == (before.shape, before.dtype)


@pytest.mark.parametrize(
    "case",
    [
        case
        if case in OF_EACH_METHOD.values()
        else pytest.param(case, marks=pytest.mark.slow)
        for case in STEPPED
    ],
)
def test_takes_a_step(case, read, compilation_cache):
    config = small(case)
    step, new_state = step_and_state(config)
    batch = read(config)
    before = new_state(batch)
    state, metrics = step(new_state(batch), batch)
    assert all(np.isfinite(x) for x in jax.tree.leaves(metrics)), metrics
    moved = jax.tree.map(lambda a, b: (a != b).any(), before.params, state.params)
    assert any(jax.tree.leaves(moved))
    assert step._cache_size() == 1
