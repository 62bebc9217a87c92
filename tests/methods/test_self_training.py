"""DAFormer's and EBDA's step: what every part does, with a network of no cost."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import ROOT
from test_methods import C, forward, start, toy_batch

from uda_jax import augment
from uda_jax.benchmark_rows import SELF_TRAINING
from uda_jax.errors import UserError
from uda_jax.methods.daformer import daformer
from uda_jax.methods.ebda import ebda
from uda_jax.methods.method import Network
from uda_jax.models.model import Prediction
from uda_jax.train import TrainState, make_train_step

OPTIONS = dict(ignore_top=1, ignore_bottom=8, threshold=0.5, colors="none")


def read_golden():
    return json.loads((ROOT / "tests/goldens/daformer.json").read_text())


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
    recorded = read_golden()["ema"]
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


def test_pseudo_labels_are_the_originals():
    """Of logits sin(0.05 i c + 0.7 b) + cos(0.03 j (c + 1)); b counts from 0."""
    golden = read_golden()
    b, i, j, c = np.meshgrid(*map(np.arange, (2, 5, 7, 4)), indexing="ij")
    down, right = 0.05 * (i + 1) * (c + 1), 0.03 * (j + 1) * (c + 2)
    logits = np.sin(down + 0.7 * b) + np.cos(right)

    def given(params, stats, image, **_):
        return Prediction(jnp.float32(logits), (), ()), stats

    method = daformer(
        given, C, colors="none", feature_weight=0.0, ignore_bottom=0, ignore_top=0
    )
    state = toy(method)
    batch = jax.tree.map(lambda x: x[:, :5, :7] if x.ndim > 1 else x, toy_batch())
    _, out = method.loss(state.params, state, batch, jax.random.key(0))
    found = np.bincount(out.images["target_pseudo_label"].ravel(), minlength=4)
    np.testing.assert_array_equal(found, golden["pseudo_lbl_hist"])
    assert out.metrics["pseudo/weight"] == golden["pseudo_q"]


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
