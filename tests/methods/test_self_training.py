"""DAFormer's and EBDA's step: the originals' numbers, and what every part does."""

import json
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import ROOT
from double_precision import in_double, run_in_double
from test_methods import C, State, forward, start, toy_batch

from uda_jax import augment, convert, mixing
from uda_jax.benchmark_rows import SELF_TRAINING
from uda_jax.errors import UserError
from uda_jax.methods.daformer import daformer
from uda_jax.methods.ebda import ebda
from uda_jax.methods.method import Network
from uda_jax.models import create_model
from uda_jax.models.model import Prediction
from uda_jax.optimizers import make_optimizer
from uda_jax.train import TrainState, make_train_step

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
    labelled = np.mean(make_batch()["source"]["label"] < 19)
    accuracy = 100 * out.metrics["train/source_accuracy"] * labelled
    near(accuracy, golden["src_acc"])
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
    run_in_double("test_self_training", "check_in_double", name)


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


@pytest.mark.parametrize("name", ["daformer", pytest.param("ebda", marks=SLOW)])
def test_a_step_in_single_precision(name, golden, model, batch, fixed):
    method, check = STEPS[name]
    check(golden, forward_only(model, method(model.forward, 19, **FIXTURE), batch))


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


# --- what every part does, with a network that costs nothing --------------------------

OPTIONS = dict(ignore_top=1, ignore_bottom=8, threshold=0.5, colors="none")


def toy(method, **memory):
    state = start(method)
    return state.replace(memory={**state.memory, **memory})


def other_network(state, factor):
    params = jax.tree.map(lambda x: factor * x, state.params["segmentor"])
    return Network(params, state.batch_stats)


@pytest.mark.parametrize("step", [0, 1, 2, 10, 998, 999, 1000])
def test_the_teacher_follows_the_student_and_gets_no_gradient(step):
    method = daformer(forward, C, **OPTIONS)
    state = toy(method)
    state = state.replace(
        step=jnp.int32(step),
        memory={**state.memory, "teacher": other_network(state, -3.0)},
    )

    def total(networks):
        memory = {**state.memory, **networks}
        return method.loss(
            state.params, state.replace(memory=memory), toy_batch(), jax.random.key(0)
        )

    networks = {
        "teacher": Network(state.memory["teacher"].params, state.batch_stats),
        "reference": Network(state.memory["reference"].params, state.batch_stats),
    }
    gradients, out = jax.grad(total, has_aux=True, allow_int=True)(networks)
    for network in gradients.values():
        for gradient in jax.tree.leaves(network.params):
            np.testing.assert_array_equal(gradient, 0)
    recorded = json.loads((ROOT / "tests/goldens/daformer.json").read_text())["ema"]
    kept = recorded[str(step)] if step else 0
    jax.tree.map(
        lambda now, student, teacher: np.testing.assert_allclose(
            now, kept * teacher + (1 - kept) * student, rtol=1e-5, atol=1e-7
        ),
        out.memory["teacher"].params,
        state.params["segmentor"],
        networks["teacher"].params,
    )
    # The reference stays what it was.
    jax.tree.map(
        np.testing.assert_array_equal,
        out.memory["reference"].params,
        networks["reference"].params,
    )


def test_pictures_of_the_entropy_before_and_now():
    """Of the network of the start and of the teacher, as a share of log C."""
    method = daformer(forward, C, **OPTIONS)
    state = toy(method)
    state = state.replace(step=jnp.int32(1))

    def pictures(factor):
        memory = {**state.memory, "teacher": other_network(state, factor)}
        state_ = state.replace(memory=memory)
        _, out = method.loss(state.params, state_, toy_batch(), jax.random.key(0))
        return [out.images[f"target_entropy{when}"] for when in ("_before", "")]

    before, now = pictures(1.0)  # the teacher is still the student it began as
    np.testing.assert_allclose(now, before, rtol=1e-5)
    assert before.min() > 0 and before.max() <= 1
    before_too, surer = pictures(30.0)
    np.testing.assert_array_equal(before_too, before)
    assert surer.mean() < before.mean()


def test_with_accumulated_gradients_the_teacher_follows_in_every_part():
    method = daformer(forward, C, **OPTIONS)
    state = toy(method)
    teacher, optimizer = other_network(state, 5.0), optax.sgd(0.1)
    state = TrainState(
        step=jnp.int32(1), params=state.params, batch_stats=state.batch_stats,
        opt_state=optimizer.init(state.params),
        memory={**state.memory, "teacher": teacher}, key=jax.random.key(0),
    )  # fmt: skip
    state = jax.tree.map(jnp.copy, state)  # a step takes each array once
    before = jax.tree.map(np.array, state.params["segmentor"])
    step = make_train_step(method, optimizer, accumulate_steps=2)
    state, _ = step(state, toy_batch())
    # a = 1/2 in step 1: 5 times it, then (5 + 1) / 2 = 3, then (3 + 1) / 2 = 2 times.
    jax.tree.map(
        lambda now, student: np.testing.assert_allclose(now, 2 * student, rtol=1e-6),
        state.memory["teacher"].params,
        before,
    )


def test_what_is_mixed():
    """Pasted pixels are the source's with weight 1, the others the teacher's with q."""
    method = daformer(forward, C, **{**OPTIONS, "threshold": 0.27})
    state, batch = toy(method), toy_batch()
    batch["target"]["valid"] = np.ones((2, 32, 32), np.uint8)
    batch["target"]["valid"][:, :, 30:] = 0
    _, out = method.loss(state.params, state, batch, jax.random.key(3))
    images = {name: np.asarray(x) for name, x in out.images.items()}
    label = batch["source"]["label"]
    teacher, _ = forward(
        state.params["segmentor"], state.batch_stats,
        augment.normalize(batch["target"]["image"]), train=False,
    )  # fmt: skip
    said = np.asarray(jax.nn.softmax(teacher.logits))
    np.testing.assert_array_equal(images["target_pseudo_label"], said.argmax(-1))
    share = (said.max(-1) >= 0.27).mean()
    assert 0.1 < share < 0.9
    pasted = images["mixed_weight"] == 1
    same = np.isclose(images["mixed"], images["source"]).all(-1)
    assert pasted.any((1, 2)).all() and same[pasted].all()
    # Half of the batch's four classes and the one of ignored pixels, rounded up.
    for one, of_label in zip(pasted, label, strict=True):
        assert len(np.unique(of_label[one])) <= 3
        assert not set(of_label[one]) & set(of_label[~one])
    np.testing.assert_array_equal(images["mixed_label"][pasted], label[pasted])
    rest = ~pasted
    np.testing.assert_array_equal(
        images["mixed_label"][rest], images["target_pseudo_label"][rest]
    )
    expected = np.full(pasted.shape, share)
    expected[:, :1] = expected[:, -8:] = expected[:, :, 30:] = 0
    np.testing.assert_allclose(images["mixed_weight"][rest], expected[rest], rtol=1e-5)


def test_the_level_of_the_balance_follows_the_quantile():
    method = ebda(
        forward, C, balance="quantile", entropy=0.0, momentum=0.75, quantile=0.5,
        feature_weight=0.0, **OPTIONS,
    )  # fmt: skip
    state, levels = toy(method), []
    for number in range(3):
        _, out = method.loss(state.params, state, toy_batch(), jax.random.key(number))
        entropy = np.sort(np.asarray(out.images["mixed_entropy"]), axis=None)
        median = entropy[entropy.size // 2 - 1]
        levels.append(0.75 * levels[-1] + 0.25 * median if levels else median)
        assert out.memory["further"]["level"] == pytest.approx(levels[-1], rel=1e-5)
        heads = jax.tree.map(lambda x: 1.5 * x, state.params)
        state = state.replace(step=state.step + 1, memory=out.memory, params=heads)
    assert out.memory["further"]["steps"] == 3
    assert len(set(levels)) == 3


@pytest.mark.parametrize("region", ["all", "target", "source"])
def test_the_region_of_the_balance(region):
    method = ebda(forward, C, region=region, feature_weight=0.0, **OPTIONS)
    state, batch = toy(method), toy_batch()
    _, out = method.loss(state.params, state, batch, jax.random.key(0))
    squares = (np.asarray(out.images["mixed_entropy"]) - 0.4) ** 2
    pasted = np.isclose(out.images["mixed"], out.images["source"]).all(-1)
    where = {"all": pasted | True, "target": ~pasted, "source": pasted}[region]
    assert out.metrics["loss/balance"] == pytest.approx(squares[where].mean(), rel=1e-4)


def test_a_second_forward_updates_batch_norm_once_more():
    for second, times in ((True, 3), (False, 2)):
        method = ebda(forward, C, second_forward=second, feature_weight=0.0, **OPTIONS)
        state = toy(method)
        _, out = method.loss(state.params, state, toy_batch(), jax.random.key(0))
        assert out.batch_stats["seen"] == 2 * times


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alpha": 1.0}, "alpha is 1.0, but must be at least 0, below 1"),
        ({"threshold": 1.5}, "threshold is 1.5"),
        ({"feature_weight": -1.0}, "feature_weight is -1.0"),
        ({"feature_classes": (7,)}, "feature_classes has 7, but train ids are 0 to 3"),
        ({"colors": "dafomer"}, 'did you mean "daformer"'),
        ({"balance": "median"}, 'balance is "median"'),
        ({"region": "left"}, 'region is "left"'),
        ({"statistics": "targets"}, 'did you mean "target"'),
        ({"source_view": "tuffl"}, 'did you mean "tufl"'),
        ({"quantile": 0.0}, "quantile is 0.0"),
    ],
)
def test_options_that_cannot_be(options, words):
    factory = ebda if options.keys() & {"balance", "region", "quantile"} else daformer
    with pytest.raises(UserError, match=words):
        factory(forward, C, **options)


def test_batches_that_cannot_be():
    method = daformer(forward, C, **OPTIONS)
    state, batch = toy(method), toy_batch()
    key = jax.random.key(0)
    small = {"image": batch["target"]["image"][:, :16]}
    with pytest.raises(UserError, match="give both the same crop size"):
        method.loss(state.params, state, {**batch, "target": small}, key)
    with pytest.raises(UserError, match="leave out 135 rows, but crops have 32"):
        daformer(forward, C).loss(state.params, state, batch, key)
    blind = lambda *a, **k: (forward(*a, **k)[0]._replace(features=()), {})
    with pytest.raises(UserError, match="set feature_weight=0"):
        daformer(blind, C, **OPTIONS).loss(state.params, state, batch, key)


def test_the_teacher_takes_the_batchs_statistics_and_drops_nothing():
    calls = []
    first = lambda params: float(params["heads"][0]["kernel"].ravel()[0])

    def seen(params, stats, image, *, train, batch_statistics=None, **rest):
        factor = round(first(params) / first(state.params["segmentor"]))
        calls.append((factor, train, batch_statistics, bool(rest.get("rngs"))))
        return forward(params, stats, image, train=train, **rest)

    method = daformer(seen, C, **OPTIONS)
    state = toy(method)
    networks = {"reference": 2.0, "teacher": 3.0}
    memory = {k: other_network(state, factor) for k, factor in networks.items()}
    state = state.replace(step=jnp.int32(5000), memory={**state.memory, **memory})
    method.loss(state.params, state, toy_batch(), jax.random.key(0))
    student, of_source = (1, True, None, True), (2, False, None, False)
    of_target = [(factor, False, True, False) for factor in (2, 3)]
    assert calls == [student, of_source, *of_target, student]


@pytest.mark.parametrize("make", [daformer, ebda])
def test_other_colours_of_the_source_change_its_own_terms_alone(make):
    options = {**OPTIONS, "feature_classes": (0, 1, 2, 3), "feature_min_ratio": 0.0}
    found = []
    for view in ("none", "tufl"):
        method = make(forward, C, **options, source_view=view)
        state = toy(method)
        reference = {"reference": other_network(state, 2.0)}
        state = state.replace(memory={**state.memory, **reference})
        _, out = method.loss(state.params, state, toy_batch(), jax.random.key(0))
        found.append({**out.metrics, "picture": out.images["source"]})
    plain, coloured = found
    for name in ("loss/source", "loss/features", "picture"):
        assert not np.allclose(plain[name], coloured[name], rtol=1e-3), name
    for name in ("loss/mixed", "pseudo/weight"):
        np.testing.assert_array_equal(plain[name], coloured[name])


@pytest.mark.parametrize("make, passes", [(daformer, 2), (ebda, 3)])
def test_whose_statistics_the_student_is_scored_by(make, passes):
    """Its own passes', or, ours, the teacher's one; the total is the same."""
    totals, seen = [], {}
    for statistics in ("student", "target"):
        method = make(forward, C, **OPTIONS, statistics=statistics)
        state = toy(method)
        # As after a step in which the teacher has seen 100 images.
        teacher = state.memory["teacher"]._replace(batch_stats={"seen": 100})
        state = state.replace(memory={**state.memory, "teacher": teacher})
        total, out = method.loss(state.params, state, toy_batch(), jax.random.key(0))
        totals.append(float(total))
        seen[statistics] = out.batch_stats["seen"] - state.batch_stats["seen"]
    images = len(toy_batch()["target"]["image"])
    assert totals[0] == totals[1]
    assert seen["student"] == passes * images
    assert seen["target"] == 100 + images - state.batch_stats["seen"]


@pytest.mark.parametrize("width", [16, 31, 33])
def test_squares_of_a_size_that_the_stride_does_not_divide(width):
    """Features of ceil(width / 8) columns, labels of whole squares."""

    def ragged(params, stats, image, *, train, rngs=None, batch_statistics=None):
        heads = params["heads"]
        logits = image @ heads[0]["kernel"] + heads[0]["bias"]
        columns = -(-image.shape[2] // 8)
        right = 8 * columns - image.shape[2]
        padded = jnp.pad(logits, ((0, 0), (0, 0), (0, right), (0, 0)))
        squares = padded.reshape(len(image), 4, 8, columns, 8, C).mean((2, 4))
        return Prediction(logits, (), (squares,)), stats

    wide = {
        name: jax.tree.map(lambda x: np.tile(x, (1, 1, 2) + (1,) * (x.ndim - 3)), part)
        for name, part in toy_batch().items()
        if name in ("source", "target")
    }
    batch = jax.tree.map(lambda x: x[:, :, :width], wide)
    method = daformer(ragged, C, **OPTIONS)
    state = toy(method)
    state.memory["reference"] = other_network(state, 2.0)
    total, out = method.loss(state.params, state, batch, jax.random.key(0))
    assert np.isfinite(total) and out.metrics["loss/features"] > 0


def test_one_set_of_defaults():
    own, other = daformer.__kwdefaults__, ebda.__kwdefaults__
    assert {name: other[name] for name in own} == own
    for name, value in SELF_TRAINING.items():
        assert own[name] == value, name
