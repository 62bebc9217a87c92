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


def see_two_batches(
    run: Callable,
    views: dict[str, jax.Array],
    strong: Sequence[jax.Array],
    second_key: jax.Array,
    *,
    statistics: str,
    perturb: bool,
) -> tuple[dict[str, Prediction], list[jax.Array], PyTree]:
    """What the network says of the plain views, and then of strong ones.

    Args:
      run: (images, key of dropout, batch_stats, train, perturb) -> (Prediction,
        batch_stats), the middle two with defaults.
      views: name -> [B, H, W, 3]; one may be "source", the others are of the target.
      strong: [B, H, W, 3] each, of the target; may be empty.
      second_key: of the strong views' dropout.
      statistics: "joint": all of `views` in one batch, then the strong ones in another,
        which goes on from the first one's running statistics; "target": source and each
        strong view by their own, the rest of `views` in one batch, and the running ones
        follow that.
      perturb: whether `views` are seen with perturbed features too.

    Returns:
      (Prediction of each view, logits of each strong view, batch_stats).
    """
    options = {"train": True, "perturb": perturb}
    by_name = lambda prediction, names: {
        name: jax.tree.map(lambda x, i=i: x[i], prediction)
        for i, name in enumerate(names)
    }
    if statistics == "joint" or "source" not in views:
        prediction, stats = together(lambda x: run(x, **options), list(views.values()))
        logits = []
        if strong:
            again, stats = together(
                lambda x: run(x, second_key, stats, train=True), strong
            )
            logits = list(again.logits)
        return by_name(prediction, views), logits, stats
    of_target = {k: v for k, v in views.items() if k != "source"}
    alone = jnp.stack([views["source"], *strong])
    each, after = jax.vmap(lambda x: run(x, second_key, train=True))(alone)
    seen = {"source": jax.tree.map(lambda x: x[0], each)}
    stats = jax.tree.map(lambda x: x[0], after)
    if of_target:
        prediction, stats = together(
            lambda x: run(x, **options), list(of_target.values())
        )
        seen |= by_name(prediction, of_target)
    return seen, list(each.logits[1:]), stats
