"""TUFL's stage two: what is mixed, what it weighs, and what is refused."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_tufl import PLAIN, C, toy
from test_tufl import forward as trained_forward

from uda_jax import augment, mixing
from uda_jax.errors import UserError
from uda_jax.methods.method import Network
from uda_jax.methods.mixes.single import blurred
from uda_jax.methods.tufl import tufl
from uda_jax.models.model import Prediction
from uda_jax.style import fourier_style

WEIGHTS = np.array((1.0, 2.0, 1.0, 3.0, 1.0))
CONFIDENCE = 0.9
SINGLE = {"name": "single", "confidence": CONFIDENCE, "color_strength": 0.0}
PASTED = {**SINGLE, "long_tail_probability": 1.0}
KEY = jax.random.key(7)


def forward(params, batch_stats, image, *, train, rngs=None):
    """Evaluated the classes are the other way round: the frozen network must be."""
    prediction, stats = trained_forward(params, batch_stats, image, train=train)
    if not train:
        prediction = Prediction(prediction.logits[..., ::-1], ())
    return prediction, stats


@functools.cache
def data():
    """(params, frozen network, batch): crops hold nothing but their class and 0."""
    params, batch = toy()
    frozen = {"kernels": 2 * jax.random.normal(jax.random.key(8), (3, 3, C))}
    rng = np.random.default_rng(3)
    pixels = lambda: rng.integers(0, 256, (2, 8, 12, 3)).astype(np.uint8)
    held = np.array([4, 3], np.int32)
    crop = held[:, None, None] * (rng.random((2, 8, 12)) < 0.3)
    crop[:, 0, 0] = held
    batch = {
        **batch,
        "paste": {"image": pixels(), "label": crop.astype(np.uint8), "class": held},
        "template": {
            "image": pixels(),
            "label": rng.integers(0, C, (2, 8, 12)).astype(np.uint8),
        },
    }
    return params, Network(frozen, {}), batch


@functools.cache
def step(mix=(), **options):
    """(loss, Output, gradients) of one step with these rows."""
    params, frozen, batch = data()
    options = {"class_weights": tuple(WEIGHTS), **PLAIN, **options}
    method = tufl(forward, C, mix=dict(mix), **options)
    _, memory = method.init(jax.random.key(0), frozen, batch)

    @jax.jit
    def run(params, memory, batch):
        state = SimpleNamespace(step=0, batch_stats={}, memory=memory)
        gradient = jax.value_and_grad(method.loss, has_aux=True)
        return gradient(params, state, batch, KEY)

    (loss, out), gradients = run(params, memory, batch)
    return loss, jax.device_get(out), gradients


def row(mix):
    return tuple(sorted(mix.items()))


def probs(logits):
    return np.array(jax.nn.softmax(logits))


def weighted_ce(logits, label, pixel_weights, class_weights=WEIGHTS):
    """Sum over valid pixels of v w_y -ln p_y, over the number of all pixels."""
    valid = label < C
    known = np.where(valid, label, 0)
    chosen = np.take_along_axis(probs(logits), known[..., None], -1)[..., 0]
    loss = pixel_weights * class_weights[known] * -np.log(chosen)
    return np.where(valid, loss, 0).mean()


def frozen_view():
    """(labels [2, 8, 12], shares of confident pixels [2]) of the frozen network."""
    _, frozen, batch = data()
    image = augment.normalize(batch["target"]["image"])
    p = probs((image @ frozen.params["kernels"][0])[..., ::-1])
    return p.argmax(-1), (p.max(-1) >= CONFIDENCE).mean((1, 2))


def photo(domain):
    return np.array(data()[2][domain]["image"]) / 255


def main_logits(image):
    return augment.normalize(255 * image) @ data()[0]["segmentor"]["kernels"][0]


def test_half_of_the_classes_come_from_the_source():
    _, out, _ = step(row({**SINGLE, "weight": 0.7}))
    source = np.array(data()[2]["source"]["label"])
    pseudo, share = frozen_view()
    assert 0 < share.min() < share.max() < 1
    mask, label = out.images["mixed_mask"], out.images["mixed_label"]
    for example in range(2):
        present = np.unique(source[example])  # 255 is one of them
        chosen = np.unique(source[example][mask[example]])
        assert len(chosen) == -(-len(present) // 2)
        np.testing.assert_array_equal(mask[example], np.isin(source[example], chosen))
    np.testing.assert_array_equal(label, np.where(mask, source, pseudo))
    np.testing.assert_array_equal(out.images["mixed_pseudo_label"], pseudo)
    mixed = np.where(mask[..., None], photo("source"), photo("target"))
    np.testing.assert_allclose(out.images["mixed"], mixed, atol=1e-6)
    v = np.where(mask, 1, share[:, None, None])
    np.testing.assert_allclose(out.images["mixed_weight"], v, rtol=1e-6)
    expected = 0.7 * weighted_ce(main_logits(mixed), label, v)
    np.testing.assert_allclose(out.metrics["loss/mix"], expected, rtol=1e-5)
    np.testing.assert_allclose(out.metrics["mix/confident"], share.mean(), rtol=1e-6)
    np.testing.assert_allclose(out.metrics["mix/from_source"], mask.mean(), rtol=1e-6)


def test_it_is_added_to_stage_one_and_learned_by_the_main_head():
    total, out, gradients = step(row({**SINGLE, "weight": 0.7}))
    before, stage_one, old = step()
    for name, value in stage_one.metrics.items():
        if name != "loss/total":
            np.testing.assert_allclose(out.metrics[name], value, rtol=1e-6)
    assert total == out.metrics["loss/total"]
    np.testing.assert_allclose(total, before + out.metrics["loss/mix"], rtol=1e-6)
    moved = gradients["segmentor"]["kernels"] - old["segmentor"]["kernels"]
    assert np.abs(moved[0]).max() > 0.01
    np.testing.assert_allclose(moved[1:], 0, atol=1e-6)


@pytest.mark.parametrize("name", ["none", (1.0, 2.0, 3.0, 4.0, 5.0)])
def test_it_may_have_class_weights_of_its_own(name):
    _, out, _ = step(row({**SINGLE, "class_weights": name}))
    _, same, _ = step(row(SINGLE))
    panels = out.images
    weights = np.ones(C) if name == "none" else np.array(name)
    logits = main_logits(panels["mixed"])
    v = panels["mixed_weight"]
    expected = weighted_ce(logits, panels["mixed_label"], v, weights)
    np.testing.assert_allclose(out.metrics["loss/mix"], expected, rtol=1e-5)
    assert out.metrics["loss/source"] == same.metrics["loss/source"]
    assert out.metrics["loss/mix"] != same.metrics["loss/mix"]


def test_the_frozen_network_stays():
    _, out, _ = step(row(PASTED))
    kept, frozen = out.memory["mix"]["pseudo"], data()[1]
    np.testing.assert_array_equal(kept.params["kernels"], frozen.params["kernels"])


def test_long_tail_classes_lie_over_the_source():
    _, out, _ = step(row(PASTED))
    batch = data()[2]
    source, crops = np.array(batch["source"]["label"]), batch["paste"]
    bank = out.memory["mix"]["bank"]
    np.testing.assert_array_equal(bank["filled"], [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(bank["image"][4], crops["image"][0])
    mask, pasted = out.images["mixed_mask"], out.images["mixed_source"]
    pseudo, _ = frozen_view()
    for example in range(2):
        # Both classes of the bank: 2 different ones are drawn, and there are no others.
        changed = (crops["label"] > 0).any(0)
        assert mask[example][changed].all()
        np.testing.assert_allclose(
            pasted[example][~changed], photo("source")[example][~changed], rtol=1e-6
        )
        first, second = (crops["label"][i] > 0 for i in (0, 1))
        label = out.images["mixed_label"][example]
        assert set(np.unique(label[first & ~second])) == {4}
        assert set(np.unique(label[second & ~first])) == {3}
        # Of the source's own classes fewer: max(ceil(n / 2) - 2, 1).
        own = np.unique(source[example][mask[example] & ~changed])
        assert len(own) == max(-(-len(np.unique(source[example])) // 2) - 2, 1)
        rest = ~mask[example]
        np.testing.assert_array_equal(label[rest], pseudo[example][rest])


def test_the_boundary_weighs_more_and_can_be_blurred():
    _, plain, _ = step(row(SINGLE))
    _, out, _ = step(row({**SINGLE, "boundary_width": 3, "boundary_blur": 5}))
    mask, before = plain.images["mixed_mask"], plain.images["mixed_weight"]
    np.testing.assert_array_equal(out.images["mixed_mask"], mask)
    edge = np.array(mixing.boundary_mask(mask, 3))
    expected = np.where(edge, 2 * before, before)
    np.testing.assert_allclose(out.images["mixed_weight"], expected, rtol=1e-6)
    change = np.abs(out.images["mixed"] - plain.images["mixed"]).max(-1)
    assert change[edge].mean() > 0.05
    key = jax.random.split(jax.random.fold_in(KEY, 1), 5)[2]
    soft = jax.jit(blurred, static_argnums=2)(key, 255 * plain.images["mixed"], 5)
    expected = np.where(edge[..., None], soft / 255, plain.images["mixed"])
    np.testing.assert_allclose(out.images["mixed"], expected, atol=1e-5)


def test_the_boundary_may_weigh_by_distance():
    _, plain, _ = step(row(SINGLE))
    _, out, _ = step(row({**SINGLE, "boundary_distance": 2.0}))
    mask, before = plain.images["mixed_mask"], plain.images["mixed_weight"]
    more = np.array(mixing.distance_weights(mask, 2.0))
    assert more.max() == 1
    np.testing.assert_allclose(out.images["mixed_weight"], before + more, rtol=1e-6)


def test_dual_soft_by_hand():
    options = {"weight": 0.7, "source_weight": 0.5, "target_weight": 2.0}
    mix = {"name": "dual_soft", "confidence": CONFIDENCE, **options}
    _, out, _ = step(row(mix))
    _, _, batch = data()
    mask, crops = out.images["mixed_mask"], batch["paste"]
    pseudo, share = frozen_view()
    template, label = photo("template"), np.array(batch["template"]["label"])
    changed = np.broadcast_to((crops["label"] > 0).any(0), mask.shape)
    assert mask[changed].all()
    crop_image, crop_label = crops["image"] / 255, crops["label"]
    overlap = (crop_label > 0).all(0)
    for example, mixed_label in enumerate(out.images["mixed_label"]):
        # The later one is on top, and which that is was drawn: crop 1 holds class 3.
        last = int(mixed_label[overlap][0] == 3)
        for crop in (1 - last, last):
            region = crop_label[crop] > 0
            template[example][region] = crop_image[crop][region]
            label[example][region] = crop_label[crop][region]
    a = 0.8 * mask[..., None]
    panels = out.images
    np.testing.assert_allclose(panels["mixed_template"], template, atol=1e-6)
    np.testing.assert_array_equal(panels["mixed_pseudo_label"], pseudo)
    for panel, image in (("mixed_on_source", "source"), ("mixed", "target")):
        soft = a * template + (1 - a) * photo(image)
        np.testing.assert_allclose(panels[panel], soft, atol=1e-6)
    expected = 0
    for weight, image, own, v in (
        (0.5, photo("source"), np.array(batch["source"]["label"]), np.ones(mask.shape)),
        (2.0, photo("target"), pseudo, np.where(mask, 1, share[:, None, None])),
    ):
        logits = main_logits(a * template + (1 - a) * image)
        hard = weighted_ce(logits, np.where(mask, label, own), v)
        expected += 0.7 * weight * (0.8 * hard + 0.2 * weighted_ce(logits, own, v))
    np.testing.assert_allclose(out.metrics["loss/mix"], expected, rtol=1e-5)


def test_fda_gives_all_source_images_the_targets_look():
    beta = 0.2  # 0.2 * 8 > 1: the means and the lowest waves
    _, out, _ = step(row(PASTED), fda_beta=beta)
    batch = data()[2]
    styled = jax.jit(lambda x: jnp.round(fourier_style(x, target, beta)))
    target = batch["target"]["image"]
    bank = out.memory["mix"]["bank"]["image"]
    np.testing.assert_array_equal(bank[[4, 3]], styled(batch["paste"]["image"]))
    source = styled(batch["source"]["image"])
    seen = 255 * out.images["source"]
    np.testing.assert_allclose(seen, source, atol=1e-3)
    left = ~(batch["paste"]["label"] > 0).any(0)
    mixed = 255 * out.images["mixed_source"]
    np.testing.assert_allclose(mixed[:, left], source[:, left], atol=1e-3)
    assert np.abs(source - batch["source"]["image"]).mean() > 5


@pytest.mark.parametrize(
    ("mix", "words"),
    [
        ({"name": "sigle"}, 'mix "sigle" is unknown .did you mean "single"'),
        ({"name": "single", "wieght": 1.0}, 'no option "wieght"'),
        ({"name": "single", "weight": -1.0}, "weight is -1.0"),
        ({"name": "single", "confidence": 2.0}, "confidence is 2.0"),
        ({"name": "single", "class_weights": "midle"}, "class_weights is .midle"),
        ({"name": "dual_soft", "class_weights": (1.0,)}, "each of the 5 classes"),
        ({"name": "single", "long_tail_choice": "rare"}, "long_tail_choice"),
        ({"name": "single", "related": "tufl_gta19"}, "is for 19 classes"),
        ({"name": "single", "expand": True}, 'related is "none"'),
        ({"name": "single", "boundary_width": 4}, "boundary_width is 4"),
        ({"name": "single", "boundary_width": 1}, "boundary_width is 1"),
        (
            {"name": "single", "boundary_width": 3, "boundary_blur": 1},
            "boundary_blur is 1",
        ),
        ({"name": "single", "boundary_blur": 3}, "boundary_width is 0"),
        ({"name": "single", "boundary_distance": 1.0}, "boundary_distance is 1.0"),
        ({"name": "single", "long_tail_choice": "thresholds"}, "has no effect"),
        ({**PASTED, "long_tail_choice": "thresholds"}, 'unsup_loss="focal" has none'),
        (
            {"name": "dual_soft", "long_tail_choice": "thresholds"},
            'unsup_loss="focal" has none',
        ),
        ({"name": "dual_soft", "soft_weight": 0.0}, "soft_weight is 0.0"),
        (
            {"name": "single", "boundary_width": 3, "boundary_distance": 2.0},
            "set one",
        ),
        ({"name": "dual_soft", "soft_weight": 1.5}, "soft_weight is 1.5"),
    ],
)
def test_what_cannot_be_is_refused(mix, words):
    with pytest.raises(UserError, match=words):
        tufl(forward, C, class_weights="none", mix=mix)


def test_relations_that_nobody_uses_are_refused():
    mix = {"name": "single", "related": "street_crosscity13"}
    with pytest.raises(UserError, match="related has no effect"):
        tufl(forward, 13, class_weights="none", mix=mix)


@pytest.mark.parametrize(
    ("mix", "stream", "words"),
    [
        (PASTED, None, "data.streams.paste"),
        ({"name": "dual_soft"}, "template", "data.streams.template"),
        (PASTED, "class", "which class a crop holds"),
    ],
)
def test_what_the_batch_must_bring(mix, stream, words):
    params, frozen, batch = data()
    batch = dict(batch)
    if stream is None:
        del batch["paste"]
    elif stream == "class":
        batch["paste"] = data()[2]["template"]
    else:
        del batch[stream]
    method = tufl(forward, C, class_weights="none", mix=mix, **PLAIN)
    _, memory = method.init(jax.random.key(0), frozen, batch)
    state = SimpleNamespace(step=jnp.int32(0), batch_stats={}, memory=memory)
    with pytest.raises(UserError, match=words):
        jax.eval_shape(
            lambda batch: method.loss(params, state, batch, jax.random.key(0)), batch
        )
