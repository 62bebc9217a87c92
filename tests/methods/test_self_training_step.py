"""DAFormer's and EBDA's step against the originals' numbers."""

import json
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from double_precision import in_double, run_in_double
from test_methods import State

from uda_jax import augment, convert, mixing
from uda_jax.methods.daformer import daformer
from uda_jax.methods.ebda import ebda
from uda_jax.methods.method import Network
from uda_jax.models import create_model
from uda_jax.optimizers import make_optimizer

sys.path.insert(0, str(ROOT / "tests/models"))
from published_mit import daformer_shapes, image, tensors

SLOW = pytest.mark.slow
THINGS = (6, 7, 11, 12, 13, 14, 15, 16, 17, 18)
FIXTURE = dict(
    threshold=0.5, ignore_top=3, ignore_bottom=24, feature_classes=THINGS,
    colors="none", alpha=1 - 1e-9,
)  # fmt: skip


def read_golden():
    path = ROOT / "tests/goldens/daformer_step.json"
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def golden():
    return read_golden()


@pytest.fixture(scope="module")
def model():
    return create_model("daformer", 19, backbone="mit_b0", drop_path=0.0, dropout=0.0)


def network(model, prefix):
    """The fixture's weights of the student (""), teacher or frozen network."""
    shapes = daformer_shapes("mit_b0")
    made = tensors({prefix + name: shape for name, shape in shapes.items()})
    made = {name.removeprefix(prefix): values for name, values in made.items()}
    if prefix != "imnet.":
        made["decode_head.conv_seg.weight"] *= 20
    wanted = jax.eval_shape(model.init, jax.random.key(0))
    weights = convert.from_torch(made, model.torch.to_flax, *wanted)
    return Network(*(in_double(weights) if jax.config.jax_enable_x64 else weights))


def make_batch():
    source = image(2, 128, 128)
    blocks = ((5 * np.arange(32) + 2) % 19).reshape(2, 4, 4)
    label = np.kron(blocks, np.ones((1, 32, 32), int)).astype(np.uint8)
    label[:, :8], label[:, 40:50, 3:29] = 255, 7
    target = (0.8 * source[:, :, ::-1] + 0.1).astype(np.float32)
    return {"source": {"image": source, "label": label}, "target": {"image": target}}


@pytest.fixture(scope="module")
def batch():
    return make_batch()


def fix(augment, mixing, set_attribute):
    """Images that are normalised already, and classes that are known."""
    set_attribute(augment, "normalize", lambda x: x)
    chosen = np.full((2, 20), 20)
    chosen[:, [2, 7, 12, 19]] = 0
    set_attribute(mixing, "random_ranks", lambda *_, **__: jnp.array(chosen))


@pytest.fixture
def fixed(monkeypatch):
    fix(augment, mixing, monkeypatch.setattr)


def fixture(model, method, batch):
    """(params, state) before the fixture's step."""
    student = network(model, "")
    _, memory = method.init(jax.random.key(0), student, batch)
    memory |= {"teacher": network(model, "ema."), "reference": network(model, "imnet.")}
    state = State(jnp.int32(2**30), None, student.batch_stats, memory)
    return {"segmentor": student.params}, state


def step(model, method, batch):
    """(params, gradients, Output) of the fixture's step."""
    params, state = fixture(model, method, batch)
    compute = jax.jit(jax.grad(method.loss, has_aux=True))
    return params["segmentor"], *compute(params, state, batch, jax.random.key(0))


def forward_only(model, method, batch):
    """Output of the fixture's step: half of the program to compile."""
    params, state = fixture(model, method, batch)
    return jax.jit(method.loss)(params, state, batch, jax.random.key(0))[1]


def norms(gradients):
    square = lambda x: float(np.sum(np.asarray(x, np.float64) ** 2))
    total = lambda tree: np.sqrt(sum(map(square, jax.tree.leaves(tree))))
    return {k: total(v) for k, v in gradients["segmentor"].items()}


def of_bottleneck(batch_stats):
    stats = batch_stats["decode_head"]["fuse_layer"]["bottleneck"]["bn"]
    return [float(jnp.sum(stats[name])) for name in ("mean", "var")]


def change(model, params, gradients):
    """Sum of |change| of the first AdamW step at the published rates, by part."""
    optimizer, _ = make_optimizer(
        {"name": "adamw", "learning_rate": 6e-5, "head_multiplier": 10.0,
         "decay_of": "all_but_backbone_norms", "weight_decay": 0.01},
        {"name": "constant"}, steps=1, model=model,
    )  # fmt: skip
    params = {"segmentor": params}
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    total = lambda tree: sum(float(jnp.abs(x).sum()) for x in jax.tree.leaves(tree))
    return {k: total(v) for k, v in updates["segmentor"].items()}


def near(mine, theirs):
    np.testing.assert_allclose(mine, theirs, rtol=1e-3)


def check_daformer(golden, out):
    near(out.metrics["loss/source"], golden["src_ce"])
    near(out.metrics["loss/features"], golden["fd_mean"])
    near(out.metrics["loss/mixed"], golden["mix_ce"])
    near(out.metrics["pseudo/weight"], golden["q_thr0.5"])
    # Theirs counts ignored pixels as wrong.
    labelled = {"source": make_batch()["source"]["label"] < 19}
    labelled["mixed"] = np.asarray(out.images["mixed_label"]) < 19
    for name, recorded in (("source", "src_acc"), ("mixed", "mix_acc")):
        accuracy = out.metrics[f"train/{name}_accuracy"] * np.mean(labelled[name])
        near(100 * accuracy, golden[recorded])
    total = golden["src_ce"] + 0.005 * golden["fd_mean"] + golden["mix_ce"]
    near(out.metrics["loss/total"], total)
    masks = np.asarray(out.images["source_features"])[:, ::32, ::32]
    np.testing.assert_array_equal(masks, golden["fd_mask"])
    pseudo_label = np.asarray(out.images["target_pseudo_label"])
    found = np.bincount(pseudo_label.ravel(), minlength=19)
    np.testing.assert_allclose(found, golden["pl_hist"], atol=3)
    weight = np.asarray(out.images["mixed_weight"], np.float64)
    near(weight.sum(), golden["mix_w_sum"])
    near((weight == 1).mean(), golden["mix_frac"])
    near(of_bottleneck(out.batch_stats), golden["bn_after2"])


def check_ebda(golden, out):
    near(0.1 * out.metrics["loss/balance"], golden["ebda_V2"])
    entropy = np.asarray(out.images["mixed_entropy"])
    near([entropy.min(), entropy.mean(), entropy.max()], golden["ebda_H"])
    near(of_bottleneck(out.batch_stats), golden["bn_after3"])


STEPS = {"daformer": (daformer, check_daformer), "ebda": (ebda, check_ebda)}


def check_gradients(name, golden, model, params, gradients):
    for part, norm in norms(gradients).items():
        near(norm, golden[f"grad_norm_{name}"][part])
    if name == "ebda":
        for part, size in change(model, params, gradients).items():
            near(size, golden["adamw_step_delta_abssum"][part])


# EBDA's losses have goldens of their own, and the rest of its step is DAFormer's.
@pytest.mark.parametrize("name", ["daformer", pytest.param("ebda", marks=SLOW)])
def test_a_step_and_its_gradients_are_the_originals(name):
    run_in_double("test_self_training_step", "check_in_double", name)


def check_in_double(name):
    model = create_model(
        "daformer", 19, backbone="mit_b0", drop_path=0.0, dropout=0.0,
        compute_dtype="float64",
    )  # fmt: skip
    fix(augment, mixing, setattr)
    method, check = STEPS[name]
    batch, golden = in_double(make_batch()), read_golden()
    params, gradients, out = step(model, method(model.forward, 19, **FIXTURE), batch)
    assert {x.dtype for x in jax.tree.leaves(gradients)} == {np.dtype("float64")}
    check(golden, out)
    check_gradients(name, golden, model, params, gradients)


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_a_step_in_single_precision(name, golden, model, batch, fixed):
    method, check = STEPS[name]
    check(golden, forward_only(model, method(model.forward, 19, **FIXTURE), batch))


@pytest.mark.slow
def test_how_sure_the_teacher_is(golden, model, batch):
    look = jax.jit(partial(model.forward, train=False, batch_statistics=True))
    said, _ = look(*network(model, "ema."), batch["target"]["image"])
    sure = jax.nn.softmax(said.logits).max(-1)
    near([sure.min(), sure.mean(), sure.max()], golden["teacher_pmax"])


@pytest.mark.slow
def test_the_first_level_of_the_balance_is_the_originals(golden, model, batch, fixed):
    first = ebda(
        model.forward, 19, balance="quantile", entropy=0.6, balance_weight=0.01,
        **FIXTURE,
    )  # fmt: skip
    out = forward_only(model, first, batch)
    near(out.memory["further"]["level"], golden["ebda_Q0.6"])
    near(out.metrics["entropy/wanted"], golden["ebda_Q0.6"])
    near(0.01 * out.metrics["loss/balance"], golden["ebda_V1_first"])
