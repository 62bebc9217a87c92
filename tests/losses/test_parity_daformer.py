"""DAFormer's and EBDA's losses against the originals' numbers, and by hand."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT

from uda_jax import losses, mixing
from uda_jax.labels import IGNORE

sys.path.insert(0, str(ROOT / "tests/models"))
from published_mit import image


@pytest.fixture(scope="module")
def golden():
    return json.loads((ROOT / "tests/goldens/daformer.json").read_text())


def waves(batch, channels, height, width):
    """The goldens' input of any number of channels, [B, H, W, C]."""
    b, i, j, c = np.ogrid[:batch, :height, :width, :channels]
    z = np.sin(0.05 * (i + 1) * (c + 1) + 0.7 * b) + np.cos(0.03 * (j + 1) * (c + 2))
    return jnp.float32(z)


@pytest.fixture(scope="module")
def logits():
    return 3 * waves(2, 5, 8, 6)


def test_cross_entropy(golden, logits):
    arange = np.arange(96).reshape(2, 8, 6)
    label = np.where(7 * arange % 6 == 5, IGNORE, 7 * arange % 6)
    near = lambda mine, theirs: np.testing.assert_allclose(mine, theirs, rtol=1e-5)
    near(losses.cross_entropy(logits, label), golden["ce_mean"])
    weighted = losses.cross_entropy(logits, label, pixel_weights=arange % 4 / 4)
    near(weighted, golden["ce_weighted"])
    valid = losses.cross_entropy(logits, label, normaliser="valid")
    near(valid, golden["torch_ce_valid_mean"])


def test_entropy_balance(golden, logits):
    near = lambda mine, theirs: np.testing.assert_allclose(mine, theirs, rtol=1e-5)
    near(losses.pixel_entropy(logits).mean(), golden["ebda_entropy_mean"])
    near(0.1 * losses.entropy_balance(logits, 0.4), golden["ebda_loss_final"])
    place, level = golden["ebda_kth"]
    assert place == int(0.6 * 96)
    near(losses.entropy_quantile(logits, 0.6), level)
    near(
        0.01 * losses.entropy_balance(logits, level),
        golden["ebda_loss_adaptive_first"],
    )
    certain, even = golden["ebda_entropy_onehot_uniform"]
    near(losses.pixel_entropy(jnp.zeros(5)), even)
    # Theirs is clamped.
    assert losses.pixel_entropy(1e4 * jnp.eye(5)[0]) == 0 < certain < 2e-7


def test_the_gradient_of_the_balance_is_the_formulas(logits):
    gradient = jax.grad(losses.entropy_balance)(logits, 0.4)
    p = jax.nn.softmax(logits)
    entropy = losses.pixel_entropy(logits)[..., None]
    by_hand = 2 / 96 * (entropy - 0.4) * -p * (jnp.log(p) + entropy)
    np.testing.assert_allclose(gradient, by_hand, atol=1e-8)
    mask = jnp.zeros((2, 8, 6), bool).at[0, 0, 0].set(True)
    one = jax.grad(losses.entropy_balance)(logits, 0.4, mask)
    np.testing.assert_allclose(one[0, 0, 0], 96 * by_hand[0, 0, 0], rtol=1e-4)
    np.testing.assert_array_equal(one.at[0, 0, 0].set(0), 0)
    nothing = jax.value_and_grad(losses.entropy_balance)(logits, 0.4, mask & False)
    jax.tree.map(lambda x: np.testing.assert_array_equal(x, 0), nothing)


def test_the_balance_draws_from_both_sides(logits):
    """A pixel surer than that becomes less sure, and the other way round."""
    for scale, direction in ((20.0, 1), (0.1, -1)):
        z = scale * logits
        moved = z - 10 * jax.grad(losses.entropy_balance)(z, 0.8)
        change = losses.pixel_entropy(moved).sum() - losses.pixel_entropy(z).sum()
        assert np.sign(change) == direction


def test_majority_label(golden):
    label = np.full((1, 8, 12), IGNORE)
    label[0, :4, :4], label[0, 0, 0] = 3, IGNORE
    label[0, :4, 4:8], label[0, 0:2, 4:7] = 2, 4
    label[0, 4:, 0:4], label[0, 4:6, 0:2] = 7, IGNORE
    label[0, 4:, 8:] = 5
    for ratio in (0.75, 0.6):
        mine = losses.majority_label(label, 19, 4, ratio)
        wanted = golden[f"downscale_label_ratio_{ratio}"]
        np.testing.assert_array_equal(mine, [wanted])
    # What is left over on the right and below is not seen; most ignored is ignored.
    cut = losses.majority_label(label[:, :7, :11], 19, 4, 0.0)
    np.testing.assert_array_equal(cut, [[[3, 2]]])


def test_feature_distance(golden):
    f = waves(2, 6, 3, 4)
    g = 0.5 * f + 0.1
    near = lambda mine, theirs: np.testing.assert_allclose(mine, theirs, rtol=1e-5)
    near(losses.feature_distance(f, g), golden["fd_all"])
    mask = np.arange(24).reshape(2, 3, 4) % 3 == 0
    near(losses.feature_distance(f, g, mask), golden["fd_masked"])
    for other, where in ((f, mask), (g, mask & False)):
        found = jax.value_and_grad(losses.feature_distance)(f, other, where)
        jax.tree.map(lambda x: np.testing.assert_array_equal(x, 0), found)


def test_class_mix(golden):
    label = (np.arange(48) // 5 % 6).reshape(1, 6, 8)
    mask = mixing.class_mask(label, jnp.isin(jnp.arange(7), jnp.array([0, 2, 5]))[None])
    mixed = mixing.class_mix(mask, label, jnp.full(label.shape, 9))
    np.testing.assert_array_equal(mixed[0], golden["mix_lbl"])
    source = image(1, 6, 8)
    picture = mixing.class_mix(mask, jnp.asarray(source), -jnp.asarray(source))
    total = float(jnp.abs(picture).sum())
    assert total == pytest.approx(golden["mix_img"]["abssum"], rel=1e-5)
