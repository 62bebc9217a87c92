"""SS-ADA's step, put together by hand from the spec of the lost training script."""

import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_methods import State

from uda_jax import augment, losses
from uda_jax.errors import UserError
from uda_jax.methods.ss_ada import ss_ada
from uda_jax.mixing import cutmix
from uda_jax.models.model import Prediction

B, H, W, C = 2, 8, 12, 4
BOXES = [[[0, 4, 0, 6], [0, 0, 0, 0]], [[2, 8, 3, 12], [1, 3, 0, 4]]]


def forward(params, batch_stats, image, *, train, rngs=None, perturb=False):
    """A 1x1 convolution, another one in evaluation; two heads."""
    kernel = params["kernel"] if train else params["kernel"][:, ::-1]
    logits = image @ kernel
    perturbed = logits[..., ::-1] if perturb else None
    stats = {"passes": batch_stats["passes"] + train * len(image)}
    return Prediction(logits, (0.5 * logits,), (), perturbed), stats


def batch(**parts):
    rng = np.random.default_rng(0)
    image = lambda: rng.integers(0, 256, (B, H, W, 3)).astype(np.uint8)
    label = lambda: rng.integers(0, C, (B, H, W)).astype(np.uint8)
    whole = {
        "source": {"image": image(), "label": label()},
        "labelled": {"image": image(), "label": label()},
        "target": {"image": image()},
        "partner": {"image": image()},
    }
    whole["target"]["valid"] = np.ones((B, H, W), np.uint8)
    whole["target"]["valid"][:, :, 10:] = 0
    whole["partner"]["valid"] = np.ones((B, H, W), np.uint8)
    whole["labelled"]["label"][0] = 255
    return {**whole, **parts}


def state(**memory):
    rng = np.random.default_rng(1)
    params = {"segmentor": {"kernel": jnp.float32(rng.normal(size=(3, C)))}}
    usual = {"class_iou": jnp.zeros(C), "class_counts": jnp.zeros(C)}
    memory = {**usual, "round": jnp.int32(0), **memory}
    return State(jnp.int32(5), params, {"passes": 0}, memory)


@pytest.fixture
def still(monkeypatch):
    """Strong views that are the image itself, turned; boxes that are known."""
    views = lambda key, image: (
        augment.normalize(image),
        augment.normalize(image[:, ::-1]),
        augment.normalize(image[:, :, ::-1]),
    )
    boxes = jnp.array(BOXES)
    drawn = itertools.cycle(boxes)
    module = sys.modules["uda_jax.methods.ss_ada"]
    monkeypatch.setattr(augment, "ss_ada_views", views)
    monkeypatch.setattr(module, "cutmix_boxes", lambda *_: next(drawn))
    return boxes


def by_hand(given, now, boxes, least, weights=None):
    """The five terms, in numpy's order of things."""
    kernel = now.params["segmentor"]["kernel"]
    views = [augment.ss_ada_views(None, given[k]["image"]) for k in ("target",)]
    (weak, *strong), other = (
        views[0],
        augment.ss_ada_views(None, given["partner"]["image"]),
    )
    pseudo = lambda logits: (
        np.argmax(logits, -1), np.max(jax.nn.softmax(logits), -1)
    )  # fmt: skip
    ours, theirs = pseudo(weak @ kernel), pseudo(other[0] @ kernel[:, ::-1])
    valid = given["target"]["valid"] > 0
    terms = {}
    for name in ("source", "labelled"):
        logits = augment.normalize(given[name]["image"]) @ kernel
        heads = [
            losses.prob_ohem_cross_entropy(
                z, given[name]["label"], weights, min_kept=20
            )
            for z in (logits, 0.5 * logits)
        ]
        terms[name] = sum(heads) / 2

    def consistency(logits, label, confidence, seen):
        nll = -np.log(jax.nn.softmax(logits))
        nll = np.take_along_axis(nll, np.asarray(label)[..., None], -1)[..., 0]
        sure = confidence >= least(label)
        return (nll * sure * seen).sum() / seen.sum()

    both = []
    for k, box in enumerate(boxes):
        image = cutmix(strong[k], other[1 + k], box)
        label = cutmix(jnp.array(ours[0]), jnp.array(theirs[0]), box)
        confidence = cutmix(jnp.array(ours[1]), jnp.array(theirs[1]), box)
        seen = cutmix(jnp.array(valid), jnp.ones_like(valid), box)
        both.append(consistency(image @ kernel, label, confidence, np.array(seen)))
    perturbed = consistency((weak @ kernel)[..., ::-1], *ours, valid)
    return terms["source"], terms["labelled"], *both, perturbed


@pytest.mark.parametrize("statistics", ["joint", "target"])
def test_the_whole_loss_by_hand(still, statistics):
    method = ss_ada(forward, C, min_kept=20, threshold=0.6, statistics=statistics)
    given, now = batch(), state()
    total, out = method.loss(now.params, now, given, jax.random.key(0))
    source, labelled, first, second, perturbed = by_hand(
        given, now, still, lambda label: 0.6
    )
    wanted = (source + labelled + 0.25 * (first + second) + 0.5 * perturbed) / 3
    np.testing.assert_allclose(total, wanted, rtol=1e-5)
    np.testing.assert_allclose(out.metrics["loss/source"], source, rtol=1e-5)
    np.testing.assert_allclose(out.metrics["loss/strong"], (first + second) / 2, 1e-5)
    assert 0 < out.metrics["pseudo/confident"] < 1
    # Source, labelled and weak view; then both strong ones.
    assert out.batch_stats["passes"] == (5 * B if statistics == "joint" else 2 * B)


def test_thresholds_and_weights_follow_the_rounds(still):
    iou = jnp.array([0.9, 0.2, 0.5, 0.7])
    options = {"class_weights": "iou", "upper": 1.5, "min_kept": 20}
    method = ss_ada(
        forward, C, threshold=1.0, class_threshold=True, threshold_steps=20, **options
    )
    given, now = batch(), state(class_iou=iou, round=jnp.int32(1))
    total, _ = method.loss(now.params, now, given, jax.random.key(0))
    terms = by_hand(
        given, now, still, lambda label: 0.75 * np.asarray(iou)[label],
        weights=1 + 0.5 * (1 - iou),
    )  # fmt: skip
    wanted = terms[0] + terms[1] + 0.25 * (terms[2] + terms[3]) + 0.5 * terms[4]
    np.testing.assert_allclose(total, wanted / 3, rtol=1e-5)


def test_without_unlabelled_images(still):
    given = {k: v for k, v in batch().items() if k in ("source", "labelled")}
    now = state()
    for learns_from, parts in (("all", 2), ("joint", 1)):
        method = ss_ada(forward, C, min_kept=20, learns_from=learns_from)
        total, out = method.loss(now.params, now, given, jax.random.key(0))
        terms = out.metrics["loss/source"] + out.metrics["loss/labelled"]
        np.testing.assert_allclose(total, terms / parts, rtol=1e-6)
        assert out.batch_stats["passes"] == 2 * B


def test_baselines_do_not_look_at_the_rest(still):
    now, term = state(), {}
    for learns_from, passes in (("joint", 2), ("target_only", 1)):
        method = ss_ada(forward, C, min_kept=20, learns_from=learns_from)
        total, out = method.loss(now.params, now, batch(), jax.random.key(0))
        assert out.batch_stats["passes"] == passes * B
        term[learns_from] = out.metrics["loss/labelled"]
    np.testing.assert_allclose(total, term["joint"], rtol=1e-6)
    assert "loss/source" not in out.metrics


def test_nobody_learns_from_the_pseudo_label_side(still):
    """With all pixels unsure nothing but the labels has a gradient."""
    method = ss_ada(forward, C, min_kept=20, threshold=1.0)
    now, given = state(), batch()
    grad = jax.grad(
        lambda p: method.loss(p, now, given, jax.random.key(0))[0] * 3
    )  # fmt: skip
    unsure = grad(now.params)
    method = ss_ada(forward, C, min_kept=20, learns_from="joint")
    plain = {k: v for k, v in given.items() if k in ("source", "labelled")}
    with_labels = jax.grad(
        lambda p: method.loss(p, now, plain, jax.random.key(0))[0]
    )(now.params)  # fmt: skip
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), unsure, with_labels
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"supervised_loss": "ohem"}, "allowed are prob_ohem"),
        ({"threshold": 1.5}, "threshold is 1.5"),
        ({"upper": 0.5}, "upper is 0.5"),
        ({"strong_weight": -1.0}, "at least 0"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(UserError, match=words):
        ss_ada(forward, C, **options)


def test_a_batch_that_lacks_something():
    method, now = ss_ada(forward, C), state()
    given = batch()
    alone = {k: v for k, v in given.items() if k in ("source", "target")}
    with pytest.raises(UserError, match="needs target images with labels"):
        ss_ada(forward, C, learns_from="joint").loss(
            now.params, now, alone, jax.random.key(0)
        )
    del given["partner"]
    with pytest.raises(UserError, match=r"set data\.partner=True"):
        method.loss(now.params, now, given, jax.random.key(0))
    small = {"image": np.zeros((B, 4, 4, 3), np.uint8)}
    with pytest.raises(UserError, match="give source and target the same crop size"):
        method.loss(now.params, now, batch(partner=small), jax.random.key(0))
