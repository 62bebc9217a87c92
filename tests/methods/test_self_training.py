"""DAFormer's and EBDA's step: the originals' numbers, and what every part does."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from test_methods import State

from uda_jax import augment, convert, mixing
from uda_jax.methods.daformer import daformer
from uda_jax.methods.ebda import ebda
from uda_jax.methods.method import Network
from uda_jax.models import create_model
from uda_jax.optimizers import make_optimizer

sys.path.insert(0, str(ROOT / "tests/models"))
from published_mit import daformer_shapes, image, tensors

THINGS = (6, 7, 11, 12, 13, 14, 15, 16, 17, 18)
FIXTURE = dict(
    threshold=0.5, ignore_top=3, ignore_bottom=24, feature_classes=THINGS,
    colors="none", alpha=1 - 1e-9,
)  # fmt: skip


@pytest.fixture(scope="module")
def golden():
    path = ROOT / "tests/goldens/daformer_step.json"
    return json.loads(path.read_text())


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
    return Network(*convert.from_torch(made, model.torch.to_flax, *wanted))


@pytest.fixture(scope="module")
def batch():
    source = image(2, 128, 128)
    blocks = ((5 * np.arange(32) + 2) % 19).reshape(2, 4, 4)
    label = np.kron(blocks, np.ones((1, 32, 32), int)).astype(np.uint8)
    label[:, :8], label[:, 40:50, 3:29] = 255, 7
    target = (0.8 * source[:, :, ::-1] + 0.1).astype(np.float32)
    return {"source": {"image": source, "label": label}, "target": {"image": target}}


@pytest.fixture
def fixed(monkeypatch):
    """Images that are normalised already, and classes that are known."""
    monkeypatch.setattr(augment, "normalize", lambda x: x)
    chosen = np.full((2, 20), 20)
    chosen[:, [2, 7, 12, 19]] = 0
    monkeypatch.setattr(mixing, "random_ranks", lambda *_, **__: jnp.array(chosen))


def step(model, method, batch):
    """(gradients, Output) of the fixture's step."""
    teacher = network(model, "ema.")
    student, reference = network(model, ""), network(model, "imnet.")
    _, memory = method.init(jax.random.key(0), student, batch)
    memory = {**memory, "teacher": teacher, "reference": reference}
    state = State(jnp.int32(2**30), None, student.batch_stats, memory)
    params = {"segmentor": student.params}
    compute = jax.jit(jax.grad(method.loss, has_aux=True))
    return student.params, *compute(params, state, batch, jax.random.key(0))


def norms(gradients):
    total = lambda tree: np.sqrt(
        sum(float(jnp.sum(x.astype(jnp.float32) ** 2)) for x in jax.tree.leaves(tree))
    )
    return {k: total(v) for k, v in gradients["segmentor"].items()}


def of_bottleneck(batch_stats):
    stats = batch_stats["decode_head"]["fuse_layer"]["bottleneck"]["bn"]
    return [float(jnp.sum(stats[name])) for name in ("mean", "var")]


def change(model, params, gradients):
    """Sum of |change| of the first AdamW step at the published rates, by part."""
    optimizer, _ = make_optimizer(
        {"name": "adamw", "learning_rate": 6e-5, "head_multiplier": 10.0,
         "weight_decay": 0.01},
        {"name": "constant"}, steps=1, model=model,
    )  # fmt: skip
    params = {"segmentor": params}
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    total = lambda tree: sum(float(jnp.abs(x).sum()) for x in jax.tree.leaves(tree))
    return {k: total(v) for k, v in updates["segmentor"].items()}


def test_a_step_of_daformer_is_the_originals(golden, model, batch, fixed):
    _, gradients, out = step(model, daformer(model.forward, 19, **FIXTURE), batch)
    near = lambda mine, theirs: np.testing.assert_allclose(mine, theirs, rtol=1e-3)
    near(out.metrics["loss/source"], golden["src_ce"])
    near(out.metrics["loss/features"], golden["fd_mean"])
    near(out.metrics["loss/mixed"], golden["mix_ce"])
    near(out.metrics["pseudo/weight"], golden["q_thr0.5"])
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
    for part, norm in norms(gradients).items():
        near(norm, golden["grad_norm_daformer"][part])
    near(of_bottleneck(out.batch_stats), golden["bn_after2"])


def test_a_step_of_ebda_is_the_originals(golden, model, batch, fixed):
    near = lambda mine, theirs: np.testing.assert_allclose(mine, theirs, rtol=1e-3)
    params, gradients, out = step(model, ebda(model.forward, 19, **FIXTURE), batch)
    near(0.1 * out.metrics["loss/balance"], golden["ebda_V2"])
    entropy = np.asarray(out.images["mixed_entropy"])
    near([entropy.min(), entropy.mean(), entropy.max()], golden["ebda_H"])
    for part, norm in norms(gradients).items():
        near(norm, golden["grad_norm_ebda"][part])
    near(of_bottleneck(out.batch_stats), golden["bn_after3"])
    for part, size in change(model, params, gradients).items():
        near(size, golden["adamw_step_delta_abssum"][part])
    first = ebda(
        model.forward, 19, balance="quantile", entropy=0.6, balance_weight=0.01,
        **FIXTURE,
    )  # fmt: skip
    _, _, out = step(model, first, batch)
    near(out.memory["further"]["level"], golden["ebda_Q0.6"])
    near(out.metrics["entropy/wanted"], golden["ebda_Q0.6"])
    near(0.01 * out.metrics["loss/balance"], golden["ebda_V1_first"])
