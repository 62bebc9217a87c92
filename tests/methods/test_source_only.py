"""source_only: the view of the source that it trains on."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uda_jax import augment
from uda_jax.errors import UserError
from uda_jax.methods.source_only import source_only
from uda_jax.models.model import Prediction


def forward(params, batch_stats, image, *, train, rngs=None):
    return Prediction(image @ params["kernel"], ()), batch_stats


@pytest.mark.parametrize("view", ["none", "maxsquare"])
def test_trains_on_the_view(view):
    image = np.zeros((6, 9, 9, 3), np.uint8)
    image[:, 4, 4] = 255
    batch = {"source": {"image": image, "label": np.zeros((6, 9, 9), np.uint8)}}
    method = source_only(forward, 4, view=view)
    params = {"segmentor": {"kernel": jnp.ones((3, 4))}}
    state = SimpleNamespace(batch_stats={}, memory={})
    panels = jax.jit(lambda *rest: method.loss(params, state, *rest)[1].images)
    seen = panels(batch, jax.random.key(0))["source"]
    unchanged = np.abs(seen - image / 255).max((1, 2, 3)) < 1e-3
    assert unchanged.all() if view == "none" else 0 < unchanged.sum() < 6


def test_wrong_views_are_named():
    with pytest.raises(UserError, match=r'view is "tulf" .*did you mean "tufl"'):
        source_only(forward, 4, view="tulf")
    with pytest.raises(UserError, match=r"color_strength is 0\.5.* view"):
        source_only(forward, 4, view="maxsquare", color_strength=0.5)


def test_weighted_heads_are_main_and_a_share_of_the_others():
    keys = jax.random.split(jax.random.key(0), 3)
    kernels = [jax.random.normal(key, (3, 4)) for key in keys]

    def three_heads(params, batch_stats, image, *, train, rngs=None):
        main, *aux = (image @ kernel for kernel in params["kernels"])
        return Prediction(main, tuple(aux)), batch_stats

    image = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3)).astype(np.uint8)
    label = np.full((2, 6, 8), 255, np.uint8)
    label[0, 0, :4] = [0, 1, 2, 3]
    batch = {"source": {"image": image, "label": label}}
    method = source_only(
        three_heads, 4, heads="weighted", aux_weight=0.3, view="none",
        source_loss="valid",
    )  # fmt: skip
    state = SimpleNamespace(batch_stats={}, memory={})
    params = {"segmentor": {"kernels": kernels}}
    total, out = method.loss(params, state, batch, jax.random.key(0))
    seen = augment.normalize(image)[0, 0, :4]
    terms = [-np.mean(np.diag(jax.nn.log_softmax(seen @ kernel))) for kernel in kernels]
    np.testing.assert_allclose(total, terms[0] + 0.3 * sum(terms[1:]), rtol=1e-5)
    np.testing.assert_allclose(out.metrics["loss/source"], terms[0], rtol=1e-5)
    np.testing.assert_allclose(out.metrics["loss/source_aux"], sum(terms[1:]), 1e-5)


def test_wrong_weights_are_named():
    with pytest.raises(UserError, match=r'aux_weight is 0\.5, but heads is "deep"'):
        source_only(forward, 4, aux_weight=0.5)
    with pytest.raises(UserError, match="must be at least 0"):
        source_only(forward, 4, heads="weighted", aux_weight=-1.0)
    method = source_only(forward, 4, heads="weighted", view="none")
    batch = {"image": np.zeros((1, 2, 2, 3), np.uint8)}
    batch = {"source": batch | {"label": np.zeros((1, 2, 2), np.uint8)}}
    state = SimpleNamespace(batch_stats={}, memory={})
    with pytest.raises(UserError, match="aux_weight needs an auxiliary head"):
        params = {"segmentor": {"kernel": jnp.ones((3, 4))}}
        method.loss(params, state, batch, jax.random.key(0))
