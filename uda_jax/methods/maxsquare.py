"""MaxSquare: squares instead of entropies, so that easy pixels pull less.

Chen et al., "Domain Adaptation for Semantic Segmentation with Maximum Squares Loss",
ICCV 2019, https://arxiv.org/abs/1909.13589; where paper and released code differ, the
code.
"""

from collections.abc import Callable

import jax.numpy as jnp

from uda_jax import losses
from uda_jax.errors import UserError
from uda_jax.labels import IGNORE
from uda_jax.methods.method import Method
from uda_jax.methods.supervised import (
    check_choice,
    check_weights,
    first_auxiliary,
)
from uda_jax.methods.two_domains import Term, two_domain_method

_SOFT = {
    "max_square": losses.squared_probabilities,
    "entropy": losses.soft_cross_entropy,
}
TARGET_LOSSES = (*_SOFT, "hard")


def maxsquare(
    forward: Callable,
    num_classes: int,
    *,
    target_loss: str = "max_square",
    target_weight: float = 0.1,
    image_ratio: float = 0.0,
    threshold: float = 0.95,
    multi_level: bool = False,
    aux_weight: float = 0.1,
    class_weights: str | tuple[float, ...] = "none",
    source_view: str = "maxsquare",
    target_view: str = "maxsquare",
    statistics: str = "separate",
) -> Method:
    """CE(source) + target_weight * T(main), and the same for the auxiliary head.

    Args:
      forward: a Model's forward.
      num_classes: C.
      target_loss: T: "max_square", -sum p^2 / (2 C); "entropy", -sum p ln p / C (the
        paper's MinEnt); "hard", cross-entropy with the network's own labels where its
        confidence is above `threshold`.
      target_weight: lambda_T.
      image_ratio: alpha of the image-wise weights (IW) of the first two, 0.2 in the
        paper; 0 for none.  See `losses.image_wise_weights`.
      threshold: delta, for "hard" and for the guidance; 0.95 in the paper's GTA5 and
        SYNTHIA program, 0.98 in its CrossCity one.
      multi_level: train the first auxiliary head too, with aux_weight: on the source by
        its labels, on the target (aux_weight * target_weight) by what both heads agree
        on, `losses.guidance_label`.
      aux_weight: lambda_seg, of the auxiliary head; not used without `multi_level`.
      class_weights, source_view, target_view, statistics: see `two_domain_method`.

    Returns:
      A Method without other parameters or memory.  It reads batch["source"] (image,
      label) and batch["target"] (image), whose sizes may differ.

    Raises:
      UserError: an unknown name, a number out of its range, `image_ratio` with "hard",
        `multi_level` with a network without auxiliary head.

    Difference from the original: no confident pixel gives 0, not NaN; image-wise
    weights work for any batch size.
    """
    check_choice("target_loss", target_loss, TARGET_LOSSES)
    check_weights(target_weight=target_weight)
    for name, value in (("image_ratio", image_ratio), ("threshold", threshold)):
        if not 0 <= value <= 1:
            raise UserError(f"{name} is {value}, but must be in [0, 1].")
    if image_ratio and target_loss == "hard":
        raise UserError(
            f'image_ratio is {image_ratio}, but "hard" has no image-wise weights: '
            'leave it at 0, or choose "max_square" or "entropy".'
        )

    def main_term(logits):
        if target_loss == "hard":
            label = losses.pseudo_label(logits, threshold)
            return losses.cross_entropy(logits, label, normaliser="valid")
        weights = None
        if image_ratio:
            weights = losses.image_wise_weights(logits, image_ratio)
        return _SOFT[target_loss](logits, weights)

    def target_term(params, source, target):
        main = main_term(target.logits)
        metrics, images = {"loss/target": main}, {}
        total = main
        if multi_level:
            aux = first_auxiliary(target, "multi_level")
            label = losses.guidance_label(target.logits, aux, threshold)
            guidance = losses.cross_entropy(aux, label, normaliser="valid")
            metrics["loss/guidance"] = guidance
            metrics["pseudo/confident"] = jnp.mean(label != IGNORE)
            images["kept"] = label != IGNORE
            total += aux_weight * guidance
        return Term(target_weight * total, metrics, images)

    return two_domain_method(
        forward,
        num_classes,
        target_term,
        aux_weight=aux_weight if multi_level else 0.0,
        class_weights=class_weights,
        source_view=source_view,
        target_view=target_view,
        statistics=statistics,
    )
