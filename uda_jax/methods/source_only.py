"""Training on the labelled source alone: the start, and the baseline, of adaptation.

The supervised mode of TUFL's released code (Yan et al., T-ITS 2023), and the source
program of MaxSquare's (Chen et al., ICCV 2019).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from uda_jax import augment
from uda_jax.class_weights import class_weights as class_weight_table
from uda_jax.errors import UserError
from uda_jax.methods import supervised
from uda_jax.methods.method import Method, Output


def source_only(
    forward: Callable,
    num_classes: int,
    *,
    class_weights: str | tuple[float, ...] = "none",
    source_loss: str = "regular",
    heads: str = "deep",
    aux_weight: float = 0.1,
    view: str = "tufl",
    color_strength: float = 1.0,
) -> Method:
    """Cross-entropy on the source, mean or weighted sum over the heads.

    Args:
      forward: a Model's forward.
      num_classes: C.
      class_weights: "none", "small", "middle", "large" or C numbers.
      source_loss: "regular", "valid" or "ohem"; see `supervised_loss`.
      heads: "deep": mean of main and auxiliary heads; "last": the main head;
        "weighted": main + aux_weight * the sum of the auxiliary ones, MaxSquare's
        multi-level source training.
      aux_weight: lambda_seg of "weighted", at least 0.
      view: colour augmentation of the source: "none", "tufl" or "maxsquare"; see
        `augment.SOURCE_VIEWS`.
      color_strength: of the view "tufl", in [0, 1]; 0 turns it off.

    Returns:
      A Method without other parameters or memory.  It reads batch["source"] only.

    Raises:
      UserError: an unknown name, weights that do not fit the classes, a strength for a
        view that has none, a weight for heads that have none, or "weighted" for a
        network without auxiliary head.
    """
    supervised.check_choice("source_loss", source_loss, supervised.SOURCE_LOSSES)
    supervised.check_choice("heads", heads, (*supervised.HEADS, "weighted"))
    supervised.check_choice("view", view, augment.SOURCE_VIEWS)
    if view != "tufl" and color_strength != 1:
        raise UserError(
            f'color_strength is {color_strength}, but the view is "{view}": it scales '
            'the view "tufl" alone; leave it out, or use that view.'
        )
    if heads == "weighted":
        supervised.check_weights(aux_weight=aux_weight)
    elif aux_weight != 0.1:
        raise UserError(
            f'aux_weight is {aux_weight}, but heads is "{heads}": it is for "weighted" '
            "alone; leave it out, or use that."
        )
    source_view = augment.SOURCE_VIEWS[view]
    if view == "tufl":
        source_view = functools.partial(source_view, color_strength=color_strength)
    weights = class_weight_table(class_weights, num_classes)

    def init(key, network, batch):
        return {}, {}

    def loss(params, state, batch, key):
        color_key, forward_key = jax.random.split(key)
        source = batch["source"]
        image = source_view(color_key, source["image"])
        prediction, batch_stats = forward(
            params["segmentor"],
            state.batch_stats,
            image,
            train=True,
            rngs={"dropout": forward_key},
        )
        if heads == "weighted":
            total, terms = supervised.source_terms(
                prediction,
                source["label"],
                weights,
                aux_weight=aux_weight,
                source_loss=source_loss,
            )
        else:
            total = supervised.supervised_loss(
                supervised.head_logits(prediction, heads),
                source["label"],
                weights,
                source_loss=source_loss,
            )
            terms = {"loss/source": total}
        metrics = {
            "loss/total": total,
            **terms,
            **supervised.training_scores(prediction.logits, source["label"]),
        }
        images = {
            "source": augment.denormalize(image),
            "source_label": source["label"],
            "source_prediction": jnp.argmax(prediction.logits, -1),
        }
        return total, Output(metrics, batch_stats, state.memory, images)

    return Method(init, loss)
