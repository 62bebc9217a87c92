"""What MinEnt, MaxSquare and ADVENT share: a pass over each domain and two terms.

The source's cross-entropy and a term on the target's prediction, which is all that each
of them adds in its own file.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from uda_jax import augment
from uda_jax.class_weights import class_weights as class_weight_table
from uda_jax.methods import supervised
from uda_jax.methods.method import Method, Output
from uda_jax.models.model import Prediction

STATISTICS = ("separate", "target")


class Term(NamedTuple):
    """What a method adds to the source's cross-entropy.

    Attributes:
      total: float32 scalar, weighted.
      metrics: its parts, to log.
      images: panels beside those that every method has.
    """

    total: jax.Array
    metrics: dict[str, jax.Array]
    images: dict[str, jax.Array] = {}  # noqa: RUF012 (never mutated)


def two_domain_method(
    forward: Callable,
    num_classes: int,
    target_term: Callable[[Any, Prediction, Prediction], Term],
    *,
    extra: Callable[[jax.Array], dict] = lambda key: {},
    aux_weight: float,
    class_weights: str | tuple[float, ...],
    source_view: str,
    target_view: str,
    statistics: str,
) -> Method:
    """Source cross-entropy (mean over labelled pixels) + a term on the target.

    Args:
      forward: a Model's forward.
      num_classes: C.
      target_term: (params, source prediction, target prediction) -> Term.
      extra: key -> parameters of other networks.
      aux_weight: weight of each auxiliary head's cross-entropy; 0: only the main head.
      class_weights: "none", "small", "middle", "large" or C numbers, of the source.
      source_view, target_view: colours of each domain; see `augment.SOURCE_VIEWS`.
      statistics: what BatchNorm's running statistics, which the evaluation uses,
        follow.  "separate": the source's pass and then the target's, as published;
        "target": the target's alone.  Each pass is normalised by its own either way.

    Raises:
      UserError: an unknown name, a negative weight, or `aux_weight` for a network
        without auxiliary head.
    """
    check = supervised.check_choice
    check("source_view", source_view, augment.SOURCE_VIEWS)
    check("target_view", target_view, augment.SOURCE_VIEWS)
    check("statistics", statistics, STATISTICS)
    supervised.check_weights(aux_weight=aux_weight)
    weights = class_weight_table(class_weights, num_classes)

    def init(key, network, batch):
        return extra(key), {}

    def loss(params, state, batch, key):
        keys = jax.random.split(key, 4)
        run = functools.partial(forward, params["segmentor"], train=True)
        image = augment.SOURCE_VIEWS[source_view](keys[0], batch["source"]["image"])
        source, after_source = run(state.batch_stats, image, rngs={"dropout": keys[1]})
        target_image = augment.SOURCE_VIEWS[target_view](
            keys[2], batch["target"]["image"]
        )
        before = after_source if statistics == "separate" else state.batch_stats
        target, batch_stats = run(before, target_image, rngs={"dropout": keys[3]})

        label = batch["source"]["label"]
        source_total, metrics = supervised.source_terms(
            source, label, weights, aux_weight=aux_weight
        )
        term = target_term(params, source, target)
        total = source_total + term.total
        metrics = {
            "loss/total": total,
            **metrics,
            **term.metrics,
            **supervised.training_scores(source.logits, label),
        }
        images = {
            "source": augment.denormalize(image),
            "source_label": label,
            "target": augment.denormalize(target_image),
            "target_prediction": jnp.argmax(target.logits, -1),
            "target_confidence": jnp.max(jax.nn.softmax(target.logits), -1),
            **term.images,
        }
        return total, Output(metrics, batch_stats, state.memory, images)

    return Method(init, loss)
