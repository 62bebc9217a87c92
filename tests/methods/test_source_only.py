"""source_only: the view of the source that it trains on."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
