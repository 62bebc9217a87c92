"""What MinEnt, MaxSquare and ADVENT do with the two domains' passes."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uda_jax import augment, losses
from uda_jax.errors import UserError
from uda_jax.methods import METHODS
from uda_jax.models import discriminator
from uda_jax.models.model import Prediction

C = 4
NO_VIEWS = {"source_view": "none", "target_view": "none"}
# Option -> the weight of its term in the total.
PLAIN = {
    "minent": {"aux_weight": 0.3, "entropy_weight": 0.5, "entropy_aux_weight": 0.2},
    "maxsquare": {"aux_weight": 0.3, "target_weight": 0.5, "multi_level": True,
                  "threshold": 0.4, "image_ratio": 0.2},
    "advent": {"aux_weight": 0.3, "adversarial_weight": 0.5,
               "adversarial_aux_weight": 0.2},
}  # fmt: skip

# The target's metrics and their factors in the total, with these options.
TERMS = {
    "minent": {"loss/entropy": 0.5, "loss/entropy_aux": 0.2},
    "maxsquare": {"loss/target": 0.5, "loss/guidance": 0.5 * 0.3},
    "advent": {
        "loss/adversarial_main": 0.5,
        "loss/adversarial_aux": 0.2,
        **{
            f"discriminator/{head}_{domain}": 1.0
            for head in ("main", "aux")
            for domain in ("source", "target")
        },
    },
}


def forward(params, batch_stats, image, *, train, rngs=None):
    """Two heads on a normalised image; the statistics follow its mean."""
    mean = image.mean((0, 1, 2))
    logits = [(image - mean) @ kernel for kernel in params["kernels"]]
    stats = {"mean": 0.9 * batch_stats["mean"] + 0.1 * mean}
    return Prediction(logits[0], tuple(logits[1:])), stats


def toy(name, network=forward, heads=2, sizes=((33, 40), (40, 34)), **options):
    """(method, params, state, batch) with domains of different sizes."""
    method = METHODS[name](network, C, **{**NO_VIEWS, **PLAIN[name], **options})
    kernels = 2 * jax.random.normal(jax.random.key(0), (heads, 3, C))
    extra, memory = jax.eval_shape(
        method.init, jax.random.key(1), None, None
    )  # ADVENT's: shapes
    rng = np.random.default_rng(0)
    image = lambda size: rng.integers(0, 256, (2, *size, 3)).astype(np.uint8)
    label = rng.integers(0, C, (2, *sizes[0])).astype(np.uint8)
    label[:, :4] = 255
    batch = {
        "source": {"image": image(sizes[0]), "label": label},
        "target": {"image": image(sizes[1])},
    }
    state = SimpleNamespace(batch_stats={"mean": jnp.ones(3)}, memory=memory)
    return method, {"segmentor": {"kernels": kernels}, **extra}, state, batch


def predictions(params, state, batch):
    """Both passes as published: (source, target, statistics after each)."""
    source, first = forward(
        params["segmentor"], state.batch_stats,
        augment.normalize(batch["source"]["image"]), train=True,
    )  # fmt: skip
    target, second = forward(
        params["segmentor"], first,
        augment.normalize(batch["target"]["image"]), train=True,
    )  # fmt: skip
    return source, target, first, second


def softmax(logits):
    powers = np.exp(np.asarray(logits, np.float64))
    return powers / powers.sum(-1, keepdims=True)


def nats(probs):
    return -(probs * np.log(probs)).sum(-1)


@pytest.mark.parametrize(
    ("entropy", "divisor"), [("normalized", np.log(C)), ("per_class", C)]
)
def test_minent_is_the_sum_of_its_terms(entropy, divisor):
    method, params, state, batch = toy("minent", entropy=entropy)
    total, _ = method.loss(params, state, batch, jax.random.key(2))
    source, target, *_ = predictions(params, state, batch)
    ce = lambda z: losses.cross_entropy(z, batch["source"]["label"], normaliser="valid")
    expected = ce(source.logits) + 0.3 * ce(source.aux_logits[0])
    for weight, logits in ((0.5, target.logits), (0.2, target.aux_logits[0])):
        expected += weight * nats(softmax(logits)).mean() / divisor
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def maxsquare_term(target_loss, ratio, probs):
    """The published formulas: the image-wise squares are not halved."""
    if target_loss == "hard":
        sure = probs.max(-1) > 0.4
        assert 0 < sure.mean() < 1
        return -np.log(probs.max(-1)[sure]).mean()
    squares = target_loss == "max_square"
    values = -(probs**2).sum(-1) if squares else nats(probs)
    if not ratio:
        return values.mean() / C / (2 if squares else 1)
    total = 0.0
    for image, chosen in zip(values, probs.argmax(-1), strict=True):
        counts = np.bincount(chosen.ravel(), minlength=C)[chosen]
        weights = 1 / np.maximum(counts**ratio * chosen.size ** (1 - ratio), 1)
        total += (weights * image).sum() / C
    return total / len(probs)


@pytest.mark.parametrize(
    ("target_loss", "ratio"),
    [
        ("max_square", 0.0),
        ("max_square", 0.2),
        ("entropy", 0.0),
        ("entropy", 0.2),
        ("hard", 0.0),
    ],
)
def test_maxsquare_is_the_sum_of_its_terms(target_loss, ratio):
    method, params, state, batch = toy(
        "maxsquare", target_loss=target_loss, image_ratio=ratio
    )
    total, out = method.loss(params, state, batch, jax.random.key(2))
    source, target, *_ = predictions(params, state, batch)
    main, aux = target.logits, target.aux_logits[0]
    ce = lambda *a: losses.cross_entropy(*a, normaliser="valid")
    label = batch["source"]["label"]
    expected = ce(source.logits, label) + 0.3 * ce(source.aux_logits[0], label)
    guidance = ce(aux, losses.guidance_label(main, aux, 0.4))
    term = maxsquare_term(target_loss, ratio, softmax(main))
    expected += 0.5 * (term + 0.3 * guidance)
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    assert 0 < out.metrics["pseudo/confident"] < 1


@pytest.mark.parametrize("name", PLAIN)
def test_each_domain_has_its_view_and_the_source_its_class_weights(name, monkeypatch):
    marks = {
        "pale": lambda key, image: 0.5 * augment.normalize(image),
        "tinted": lambda key, image: augment.normalize(image) * jnp.array([1, 2, -1]),
    }
    for view, mark in marks.items():
        monkeypatch.setitem(augment.SOURCE_VIEWS, view, mark)
    monkeypatch.setattr(discriminator, "LAYERS", {"conv1": 8, "classifier": 1})
    weights = (1.0, 5.0, 0.0, 2.0)
    views = {"source_view": "pale", "target_view": "tinted"}
    method, params, state, batch = toy(name, **views, class_weights=weights)
    # Where ADVENT's discriminators are 0, each of their losses is ln 2.
    shapes = params.pop("discriminator", {})
    params["discriminator"] = jax.tree.map(lambda x: jnp.zeros(x.shape), shapes)
    total, out = method.loss(params, state, batch, jax.random.key(2))
    source, target = (
        forward(params["segmentor"], state.batch_stats, mark(None, image), train=True)[
            0
        ]
        for mark, image in zip(
            marks.values(),
            (batch["source"]["image"], batch["target"]["image"]),
            strict=True,
        )
    )
    label, expected = batch["source"]["label"], 0.0
    for key, factor, logits in (
        ("loss/source", 1.0, source.logits),
        ("loss/source_aux", 0.3, source.aux_logits[0]),
    ):
        labelled = label < C
        own = softmax(logits)[labelled, label[labelled]]
        value = -(np.array(weights)[label[labelled]] * np.log(own)).mean()
        np.testing.assert_allclose(out.metrics[key], value, rtol=1e-5)
        expected += factor * value
    confidence = softmax(target.logits).max(-1)
    np.testing.assert_allclose(out.images["target_confidence"], confidence, rtol=1e-5)
    expected += sum(TERMS[name][key] * out.metrics[key] for key in TERMS[name])
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_guidance_teaches_the_auxiliary_head_alone():
    gradients = []
    for target_weight in (0.0, 1.0):
        method, params, state, batch = toy(
            "maxsquare", target_loss="hard", threshold=1.0, image_ratio=0.0,
            target_weight=target_weight,
        )  # fmt: skip
        loss = lambda p, m=method, s=state, b=batch: m.loss(p, s, b, jax.random.key(2))
        gradients.append(jax.grad(loss, has_aux=True)(params)[0])
    # Nobody is surer than 1: the target adds nothing, and no NaN.
    jax.tree.map(np.testing.assert_array_equal, *gradients)
    method, params, state, batch = toy("maxsquare", target_weight=1.0)
    target = predictions(params, state, batch)[1]
    guide = lambda main, aux: losses.cross_entropy(
        aux, losses.guidance_label(main, aux, 0.4), normaliser="valid"
    )
    to_main, to_aux = jax.grad(guide, (0, 1))(target.logits, target.aux_logits[0])
    assert not np.any(to_main) and np.any(to_aux)


@pytest.mark.parametrize("statistics", ["separate", "target"])
def test_statistics_follow_the_source_and_then_the_target(statistics):
    method, params, state, batch = toy("minent", statistics=statistics)
    _, out = method.loss(params, state, batch, jax.random.key(2))
    *_, after_both = predictions(params, state, batch)
    target_alone = forward(
        params["segmentor"], state.batch_stats,
        augment.normalize(batch["target"]["image"]), train=True,
    )[1]  # fmt: skip
    expected = after_both if statistics == "separate" else target_alone
    np.testing.assert_allclose(out.batch_stats["mean"], expected["mean"], rtol=1e-6)
    assert np.any(after_both["mean"] != target_alone["mean"])


@pytest.mark.parametrize("name", PLAIN)
def test_each_domain_passes_once(name):
    passes = []

    def counted(params, batch_stats, image, *, train, rngs=None):
        passes.append(image.shape[1:3])
        return forward(params, batch_stats, image, train=train)

    method, params, state, batch = toy(name, counted)
    grad = jax.grad(lambda p: method.loss(p, state, batch, jax.random.key(2))[0])
    jax.eval_shape(grad, params)
    assert passes == [(33, 40), (40, 34)]


@pytest.mark.parametrize("name", PLAIN)
def test_bfloat16_logits_give_float32_losses(name):
    def rough(*arguments, **options):
        prediction, stats = forward(*arguments, **options)
        return jax.tree.map(lambda z: z.astype(jnp.bfloat16), prediction), stats

    method, params, state, batch = toy(name, rough)
    total, out = jax.eval_shape(
        lambda p: method.loss(p, state, batch, jax.random.key(2)), params
    )
    assert total.dtype == jnp.float32
    losses_logged = [v for k, v in out.metrics.items() if not k.startswith("train/")]
    assert all(value.dtype == jnp.float32 for value in losses_logged)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("minent", {"aux_weight": 0.0}, "entropy_aux_weight needs an auxiliary head"),
        ("minent", {}, "aux_weight needs an auxiliary head"),
        ("maxsquare", {"aux_weight": 0.0}, "multi_level needs an auxiliary head"),
        ("advent", {"aux_weight": 0.0}, "adversarial_aux_weight needs an auxiliary"),
    ],
)
def test_a_missing_head_is_named(name, options, sentence):
    method, params, state, batch = toy(name, heads=1, **options)
    with pytest.raises(UserError, match=sentence):
        jax.eval_shape(
            lambda p: method.loss(p, state, batch, jax.random.key(2)), params
        )


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("minent", {"entropy": "normalised"}, 'did you mean "normalized"'),
        ("minent", {"entropy_weight": -1.0}, "must be at least 0"),
        ("minent", {"aux_weight": float("nan")}, "must be at least 0"),
        ("minent", {"source_view": "tulf"}, 'did you mean "tufl"'),
        ("minent", {"statistics": "joint"}, "allowed are separate, target"),
        ("maxsquare", {"target_loss": "soft"}, "max_square, entropy, hard"),
        ("maxsquare", {"target_loss": "hard", "image_ratio": 0.2}, "leave it at 0"),
        ("maxsquare", {"image_ratio": 1.2}, r"must be in \[0, 1\]"),
        ("maxsquare", {"threshold": 95.0}, r"threshold is 95.0"),
        ("advent", {"signal": "entropy"}, "self_information, softmax"),
        ("advent", {"gan": "lsgan"}, "vanilla, least_squares"),
    ],
)
def test_wrong_options_say_what_is_allowed(name, options, sentence):
    with pytest.raises(UserError, match=sentence):
        METHODS[name](forward, C, **options)
