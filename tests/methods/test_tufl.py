"""TUFL: the threshold rule against the original's numbers, and the step's order."""

from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from uda_jax import augment, losses
from uda_jax.errors import UserError
from uda_jax.methods.method import Network
from uda_jax.methods.thresholds import update_thresholds
from uda_jax.methods.tufl import tufl
from uda_jax.models.model import Prediction
from uda_jax.train import TrainState, make_train_step
from uda_jax.warp import warp

GOLDENS = Path(__file__).parents[1] / "goldens" / "tufl_ssada.npz"
RULE = dict(fraction=0.8, sharpness=8.0)
# Colours off, where they do not matter: they take most of the time to compile.
PLAIN = dict(color_strength=0.0, source_color_strength=0.0)
C = 5


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDENS) as file:
        return {k[5:]: file[k] for k in file.files if k.startswith("tufl/")}


def last(x):
    return np.moveaxis(x, 1, -1)


@jax.jit
def moved(thresholds, logits, momentum):
    probs = jax.nn.softmax(logits)
    return update_thresholds(
        thresholds, probs.max(-1), probs.argmax(-1), momentum=momentum, **RULE
    )


@jax.jit
def adaptive_step(thresholds, plain, strong, k, weights):
    def loss(plain, strong):
        before, after = (1 + 0.2 * k) * plain, strong + 0.3 * k * plain
        new = moved(thresholds, jax.lax.stop_gradient(before), 0.9)
        mask = losses.confident(before, new)
        value = losses.unsup_focal(before, after, mask, weights, modulator="error")
        return value, (new, jnp.mean(mask))

    # The original's gradients: towards `plain` through `before` alone, and `after`.
    after = strong + 0.3 * k * plain
    towards = lambda b, a: loss(b, a - 0.3 * k * b)
    return jax.value_and_grad(towards, (0, 1), has_aux=True)(plain, after)


def test_three_adaptive_steps_equal_the_original(golden):
    thresholds = jnp.full(13, 0.8, jnp.float32)
    plain, strong = last(golden["in_zb"]), last(golden["in_za"])
    for k in range(3):
        (value, (thresholds, share)), gradients = adaptive_step(
            thresholds, plain, strong, float(k), golden["w13"]
        )
        expected = golden[f"adapt_step{k}"]
        np.testing.assert_allclose(value, expected[0], rtol=1e-5)
        np.testing.assert_allclose(share, expected[1], rtol=1e-6)
        solid = losses.confident((1 + 0.2 * k) * plain, 0.8)
        np.testing.assert_allclose(np.mean(solid), expected[2], rtol=1e-6)
        np.testing.assert_allclose(
            thresholds, golden[f"adapt_step{k}_thresh"], rtol=1e-6
        )
        for ours, name in zip(gradients, ("gb", "ga"), strict=True):
            theirs = last(golden[f"adapt_step{k}_{name}"])
            scale = np.abs(theirs).max()
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * scale)


def test_decaying_momentum_equals_the_original(golden):
    momentum = 1 - 0.9 * np.exp(-50 * 0.01)
    out = moved(jnp.full(13, 0.8), last(golden["in_zb"]), momentum)
    np.testing.assert_allclose(out, golden["adapt_decay_it50_thresh"], rtol=1e-6)


def test_thresholds_equal_the_rule_in_numpy():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.2, 1, 400).astype(np.float32)
    prediction = rng.integers(0, 4, 400)  # class 4 is absent
    start = np.array([0.8, 0.95, 0.99, 0.6, 0.7], np.float32)
    expected = start.copy()
    for c in range(4):
        ranked = np.sort(np.append(confidence[prediction == c], start[c]))[::-1]
        expected[c] = ranked[int(len(ranked) * 0.8 * start[c] ** 8)]
    out = update_thresholds(
        jnp.array(start), confidence, prediction, momentum=0, **RULE
    )
    np.testing.assert_array_equal(out, np.where(expected >= 1, 0.999, expected))
    assert out[4] == start[4]


def test_thresholds_of_one_become_0999():
    confidence, prediction = jnp.ones(50), jnp.zeros(50, int)
    start = jnp.array([0.8, 0.8])
    out = update_thresholds(start, confidence, prediction, momentum=0.0, **RULE)
    np.testing.assert_allclose(out, [0.999, 0.8], rtol=1e-6)


# --- the step, with a network that is a 1x1 convolution -----------------------------


def forward(params, batch_stats, image, *, train, rngs=None):
    heads = [image @ kernel for kernel in params["kernels"]]
    return Prediction(heads[0], tuple(heads[1:])), batch_stats


def toy(scale=3.0):
    kernels = scale * jax.random.normal(jax.random.key(0), (3, 3, C))
    image_key, label_key, target_key = jax.random.split(jax.random.key(1), 3)
    pixels = lambda key: jax.random.randint(key, (2, 8, 12, 3), 0, 256).astype("uint8")
    label = jax.random.randint(label_key, (2, 8, 12), 0, C).astype("uint8")
    batch = {
        "source": {"image": pixels(image_key), "label": label.at[:, :2].set(255)},
        "target": {"image": pixels(target_key)},
    }
    return {"segmentor": {"kernels": kernels}}, batch


def compiled(options, batch):
    """(params, step=0) -> (loss, Output)."""
    method = tufl(forward, C, class_weights=(1.0, 2.0, 1.0, 3.0, 1.0), **options)
    _, memory = method.init(jax.random.key(0), None, batch)

    @jax.jit
    def loss(params, step=0):
        state = SimpleNamespace(step=step, batch_stats={}, memory=memory)
        return method.loss(params, state, batch, jax.random.key(7))

    return loss


@pytest.fixture(scope="module")
def views():
    """What the step sees: source, plain and strong target, the strong one's matrix."""

    @jax.jit
    def see(source, target):
        source_key, strong_key, _ = jax.random.split(jax.random.key(7), 3)
        strong = augment.strong_view(strong_key, target)
        plain = augment.normalize(target)
        return augment.source_view(source_key, source), plain, *strong

    _, batch = toy()
    return see(batch["source"]["image"], batch["target"]["image"])


@pytest.mark.parametrize("updates", ["per_head", "per_step"])
def test_step_is_what_the_paper_describes(views, updates):
    params, batch = toy()
    options = dict(unsup_loss="adaptive_focal", threshold_updates=updates)
    total, out = compiled(options, batch)(params)
    thresholds, supervised, unsup = jax.jit(reference, static_argnames="updates")(
        params, batch["source"]["label"], views, updates=updates
    )
    np.testing.assert_allclose(out.memory["thresholds"], thresholds, rtol=1e-5)
    np.testing.assert_allclose(out.metrics["loss/source"], supervised, rtol=1e-4)
    np.testing.assert_allclose(out.metrics["loss/unsup"], unsup, rtol=1e-4)
    np.testing.assert_allclose(total, supervised + 0.08 * unsup, rtol=1e-4)
    assert 0 < out.metrics["pseudo/confident"] < 1


def reference(params, label, views, updates):
    """The order of the step, written down once more without the method's code."""
    weights = jnp.array([1.0, 2.0, 1.0, 3.0, 1.0])
    source, plain, strong, matrix = views
    thresholds, supervised, unsup = jnp.full(C, 0.8), 0.0, 0.0
    for number, kernel in enumerate(params["segmentor"]["kernels"]):
        supervised += losses.cross_entropy(source @ kernel, label, weights) / 3
        warped = warp(plain @ kernel, matrix)
        if number == 0 or updates == "per_head":
            thresholds = moved(thresholds, warped, 0.9)
        mask = losses.confident(warped, thresholds)
        after = strong @ kernel
        term = losses.unsup_focal(warped, after, mask, weights, modulator="error")
        unsup += term / 3
    return thresholds, supervised, unsup


def test_nothing_confident_leaves_the_source_term():
    params, batch = toy(scale=0.01)
    total, out = compiled(dict(threshold=0.9, **PLAIN), batch)(params)
    assert out.metrics["pseudo/confident"] == out.metrics["loss/unsup"] == 0
    assert total == out.metrics["loss/source"] > 0


def test_last_uses_the_main_head_alone():
    params, batch = toy()
    step = compiled(dict(heads="last", **PLAIN), batch)
    gradient = jax.grad(lambda params: step(params)[0])(params)
    kernels = np.asarray(gradient["segmentor"]["kernels"])
    assert np.abs(kernels[0]).max() > 0 and np.abs(kernels[1:]).max() == 0


def test_momentum_decay_counts_steps():
    params, batch = toy()
    options = dict(unsup_loss="adaptive_focal", momentum_decay=0.05, **PLAIN)
    loss = compiled(options, batch)
    early, late = (loss(params, step)[1].memory["thresholds"] for step in (0, 500))
    assert np.abs(early - 0.8).max() > np.abs(late - 0.8).max()
    np.testing.assert_allclose(late, 0.8, atol=1e-5)  # the momentum tends to 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (dict(unsup_loss="focall"), r'unsup_loss is "focall" \(did you mean "focal"'),
        (dict(top_ratio=0.5), 'top_ratio is 0.5, but "focal" keeps all'),
        (dict(unsup_loss="entropy", top_ratio=0.0), "above 0, at most 1"),
        (
            dict(unsup_loss="adaptive_focal", threshold=1.0, class_weights="none"),
            "below 1",
        ),
        (dict(unsup_weight=-0.1), "unsup_weight is -0.1"),
        (dict(sharpness=-1.0), "sharpness is -1.0"),
        (dict(momentum_decay=-1.0), "momentum_decay is -1.0"),
        (dict(color_strength=1.5), "color_strength is 1.5"),
        (dict(source_color_strength=-0.5), "source_color_strength is -0.5"),
        (dict(heads="all"), "allowed are deep, last"),
        (dict(class_weights="large"), "not for 5"),
    ],
)
def test_wrong_options_say_what_is_allowed(options, sentence):
    with pytest.raises(UserError, match=sentence):
        tufl(forward, C, **options)


def test_different_crops_are_explained():
    params, batch = toy()
    batch["target"] = {"image": batch["target"]["image"][:, :4]}
    with pytest.raises(UserError, match="same crop size"):
        compiled({}, batch)(params)


def test_a_step_in_two_parts_fills_the_bank_with_both():
    params, batch = toy()
    crops = {**batch["source"], "class": np.array([4, 2], np.int32)}
    batch, traces = {**batch, "paste": crops}, []

    def counted(*arguments, **options):
        traces.append(1)
        return forward(*arguments, **options)

    mix = {"name": "single", "long_tail_probability": 1.0, "color_strength": 0.0}
    method = tufl(counted, C, class_weights="none", mix=mix, **PLAIN)
    frozen = jax.tree.map(jnp.copy, params["segmentor"])
    _, memory = method.init(jax.random.key(0), Network(frozen, {}), batch)
    before = np.array(frozen["kernels"])
    optimizer = optax.sgd(0.1)
    state = TrainState(
        step=jnp.int32(0),
        params=params,
        batch_stats={},
        opt_state=optimizer.init(params),
        memory=memory,
        key=jax.random.key(1),
    )
    step = make_train_step(method, optimizer, accumulate_steps=2)
    started = np.array(params["segmentor"]["kernels"])
    state, _ = step(state, batch)
    once = len(traces)
    state, _ = step(state, batch)
    assert len(traces) == once and step._cache_size() == 1
    bank = state.memory["mix"]["bank"]
    np.testing.assert_array_equal(bank["filled"], [0, 0, 1, 0, 1])
    for crop, c in enumerate((4, 2)):
        np.testing.assert_array_equal(bank["image"][c], crops["image"][crop])
    kept = state.memory["mix"]["pseudo"].params["kernels"]
    np.testing.assert_array_equal(kept, before)
    assert np.abs(state.params["segmentor"]["kernels"] - started).max() > 0
