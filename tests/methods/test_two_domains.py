"""What MinEnt, MaxSquare and ADVENT do with the two domains' passes."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uda_jax import augment, losses
from uda_jax.errors import UserError
from uda_jax.methods import METHODS
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


def forward(params, batch_stats, image, *, train, rngs=None):
    """Two heads on a normalised image; the statistics follow its mean."""
    mean = image.mean((0, 1, 2))
    logits = [(image - mean) @ kernel for kernel in params["kernels"]]
    stats = {"mean": 0.9 * batch_stats["mean"] + 0.1 * mean}
    return Prediction(logits[0], tuple(logits[1:])), stats


def toy(name, network=forward, heads=2, sizes=((33, 40), (40, 34)), **options):
    """(method, params, state, batch) with domains of different sizes."""
    method = METHODS[name](network, C, **NO_VIEWS, **{**PLAIN[name], **options})
    kernels = 2 * jax.random.normal(jax.random.key(0), (heads, 3, C))
    extra, memory = jax.eval_shape(method.init, jax.random.key(1))  # ADVENT's: shapes
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


def test_minent_is_the_sum_of_its_terms():
    method, params, state, batch = toy("minent")
    total, _ = method.loss(params, state, batch, jax.random.key(2))
    source, target, *_ = predictions(params, state, batch)
    ce = lambda z: losses.cross_entropy(z, batch["source"]["label"], normaliser="valid")
    expected = ce(source.logits) + 0.3 * ce(source.aux_logits[0])
    expected += 0.5 * losses.normalized_entropy(target.logits)
    expected += 0.2 * losses.normalized_entropy(target.aux_logits[0])
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_maxsquare_is_the_sum_of_its_terms():
    method, params, state, batch = toy("maxsquare")
    total, out = method.loss(params, state, batch, jax.random.key(2))
    source, target, *_ = predictions(params, state, batch)
    main, aux = target.logits, target.aux_logits[0]
    ce = lambda *a: losses.cross_entropy(*a, normaliser="valid")
    label = batch["source"]["label"]
    expected = ce(source.logits, label) + 0.3 * ce(source.aux_logits[0], label)
    weights = losses.image_wise_weights(main, 0.2)
    guidance = ce(aux, losses.guidance_label(main, aux, 0.4))
    expected += 0.5 * (losses.squared_probabilities(main, weights) + 0.3 * guidance)
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    assert 0 < out.metrics["pseudo/confident"] < 1


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
