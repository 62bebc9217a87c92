"""MinEnt: direct minimisation of the target's entropy.

Vu et al., ADVENT, CVPR 2019, https://arxiv.org/abs/1811.12833, section 3.1; and the
"entropy" that MaxSquare compares itself with (Chen et al., ICCV 2019), whose other
target losses are in `uda_jax.methods.maxsquare`.
"""

from collections.abc import Callable

from uda_jax import losses
from uda_jax.methods.method import Method
from uda_jax.methods.supervised import (
    check_choice,
    check_weights,
    first_auxiliary,
)
from uda_jax.methods.two_domains import Term, two_domain_method

ENTROPIES = {
    "normalized": losses.normalized_entropy,
    "per_class": losses.soft_cross_entropy,
}


def minent(
    forward: Callable,
    num_classes: int,
    *,
    entropy: str = "normalized",
    entropy_weight: float = 0.001,
    entropy_aux_weight: float = 0.0002,
    aux_weight: float = 0.1,
    class_weights: str | tuple[float, ...] = "none",
    source_view: str = "none",
    target_view: str = "none",
    statistics: str = "separate",
) -> Method:
    """CE(source) + entropy_weight * E(main) + entropy_aux_weight * E(auxiliary).

    E is the entropy of the target's predictions.  Its gradient is largest where the
    network is already fairly sure.

    Args:
      forward: a Model's forward.
      num_classes: C.
      entropy: "normalized": divided by ln C, between 0 and 1 (ADVENT); "per_class":
        divided by C (MaxSquare's program, with weight 0.1 and one head).
      entropy_weight: lambda_ent of the main head.
      entropy_aux_weight: of the first auxiliary head; 0 for a network without.
      aux_weight, class_weights, source_view, target_view, statistics: see
        `two_domain_method`.

    Returns:
      A Method without other parameters or memory.  It reads batch["source"] (image,
      label) and batch["target"] (image), whose sizes may differ.

    Raises:
      UserError: a negative weight, an unknown name, a weight for a missing head.
    """
    check_choice("entropy", entropy, ENTROPIES)
    measure = ENTROPIES[entropy]
    check_weights(entropy_weight=entropy_weight, entropy_aux_weight=entropy_aux_weight)

    def target_term(params, source, target):
        main = measure(target.logits)
        total, metrics = entropy_weight * main, {"loss/entropy": main}
        if entropy_aux_weight:
            head = first_auxiliary(target, "entropy_aux_weight")
            metrics["loss/entropy_aux"] = measure(head)
            total += entropy_aux_weight * metrics["loss/entropy_aux"]
        return Term(total, metrics)

    return two_domain_method(
        forward,
        num_classes,
        target_term,
        aux_weight=aux_weight,
        class_weights=class_weights,
        source_view=source_view,
        target_view=target_view,
        statistics=statistics,
    )
