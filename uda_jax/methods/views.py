"""Several views of a batch in one forward pass."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from uda_jax.models.model import Prediction

PyTree = Any

STATISTICS = ("joint", "target")


def see(
    forward: Callable,
    segmentor: PyTree,
    batch_stats: PyTree,
    views: Sequence[jax.Array],
    key: jax.Array,
    *,
    statistics: str,
) -> tuple[Prediction, PyTree]:
    """What the network says of each view, and BatchNorm's statistics after it.

    Args:
      forward: a Model's forward.
      segmentor, batch_stats: its weights.
      views: [B, H, W, 3] each, the second one the plain target.
      key: of dropout.
      statistics: "joint": one pass, normalised by the mean over all views; "target":
        each view by its own, and the running ones follow the second view.

    Returns:
      (Prediction with [view, B, H, W, C], batch_stats).
    """

    def run(image):
        return forward(segmentor, batch_stats, image, train=True, rngs={"dropout": key})

    if statistics == "target":
        prediction, after = jax.vmap(run)(jnp.stack(views))
        return prediction, jax.tree.map(lambda x: x[1], after)
    return together(run, views)


def together(
    run: Callable[[jax.Array], tuple[Prediction, PyTree]], views: Sequence[jax.Array]
) -> tuple[Prediction, PyTree]:
    """One forward pass over several views.

    Args:
      run: images [N, H, W, 3] -> (Prediction, batch_stats).
      views: [B, H, W, 3] each.

    Returns:
      (Prediction with [view, B, H, W, C], batch_stats).
    """
    # Stacked behind the batch axis, each device's shard holds all views of its own
    # examples; a concatenation would move them between the devices.
    stacked = jnp.stack(views, axis=1)
    prediction, after = run(stacked.reshape(-1, *stacked.shape[2:]))
    split = lambda x: x.reshape(*stacked.shape[:2], *x.shape[1:])
    return jax.tree.map(lambda x: jnp.moveaxis(split(x), 1, 0), prediction), after
