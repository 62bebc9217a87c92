"""ADVENT and AdaptSegNet: a discriminator that cannot tell the domains apart.

Vu et al., ADVENT, CVPR 2019, https://arxiv.org/abs/1811.12833, section 3.2; Tsai et
al., AdaptSegNet, CVPR 2018, https://arxiv.org/abs/1802.10349; the discriminators and
the label 0 for the source follow their released programs.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from uda_jax import losses
from uda_jax.losses.adversarial import GANS
from uda_jax.methods.method import Method
from uda_jax.methods.supervised import (
    check_choice,
    check_weights,
    first_auxiliary,
)
from uda_jax.methods.two_domains import Term, two_domain_method
from uda_jax.models.discriminator import discriminator

SOURCE, TARGET = 0, 1
SIGNALS = {
    "self_information": losses.self_information,
    "softmax": lambda logits: jax.nn.softmax(logits.astype(jnp.float32)),
}


def advent(
    forward: Callable,
    num_classes: int,
    *,
    signal: str = "self_information",
    gan: str = "vanilla",
    adversarial_weight: float = 0.001,
    adversarial_aux_weight: float = 0.0002,
    aux_weight: float = 0.1,
    class_weights: str | tuple[float, ...] = "none",
    source_view: str = "none",
    target_view: str = "none",
    statistics: str = "separate",
) -> Method:
    """CE(source) + adversarial_weight * G(D, target) + the discriminators' own losses.

    For each head that is looked at, with D's input s(z) of the logits z at full size:
    G = L(D(s(target)), "source") moves the segmentor alone, and
    (L(D(s(source)), "source") + L(D(s(target)), "target")) / 2 the discriminator alone.
    All of it is one scalar: where a network must not learn, its values pass through
    `stop_gradient`, so that both get the gradients of the usual three backward passes,
    at the weights before the step.

    Args:
      forward: a Model's forward.
      num_classes: C.
      signal: what D sees: "self_information" (ADVENT), "softmax" (AdaptSegNet).
      gan: L: "vanilla" or "least_squares"; see `losses.domain_loss`.
      adversarial_weight: lambda_adv of the main head.
      adversarial_aux_weight: of the first auxiliary head, which has a discriminator of
        its own; 0 for a network without: then there is one discriminator.
      aux_weight, class_weights, source_view, target_view, statistics: see
        `two_domain_method`.

    Returns:
      A Method with the parameters "discriminator": {"main", "aux"}, whose optimizer is
      `config.discriminator`.  It reads batch["source"] (image, label) and
      batch["target"] (image), whose sizes may differ.

    Raises:
      UserError: a negative weight, an unknown name, a weight for a missing head; images
        below 32 pixels.
    """
    check_choice("signal", signal, SIGNALS)
    check_choice("gan", gan, GANS)
    check_weights(
        adversarial_weight=adversarial_weight,
        adversarial_aux_weight=adversarial_aux_weight,
    )
    network = discriminator(num_classes)
    weights = {"main": adversarial_weight}
    if adversarial_aux_weight:
        weights["aux"] = adversarial_aux_weight

    def extra(key):
        keys = jax.random.split(key, len(weights))
        named = zip(weights, keys, strict=True)
        return {"discriminator": {name: network.init(key) for name, key in named}}

    def level(params, source, target, weight):
        """One head's terms of the total, what fools D, and D's own losses by domain."""
        stop, see = jax.lax.stop_gradient, SIGNALS[signal]

        def domain_loss(params, seen, domain):
            return losses.domain_loss(network.forward(params, seen), domain, gan)

        # XLA merges the two passes over the target, whose values are the same.
        fooled = domain_loss(stop(params), see(target), SOURCE)
        own = {
            "source": domain_loss(params, stop(see(source)), SOURCE) / 2,
            "target": domain_loss(params, stop(see(target)), TARGET) / 2,
        }
        return weight * fooled + own["source"] + own["target"], fooled, own

    def target_term(params, source, target):
        heads = {"main": (source.logits, target.logits)}
        if adversarial_aux_weight:
            heads["aux"] = tuple(
                first_auxiliary(prediction, "adversarial_aux_weight")
                for prediction in (source, target)
            )
        total, metrics = 0.0, {}
        for name, logits in heads.items():
            term, fooled, own = level(
                params["discriminator"][name], *logits, weights[name]
            )
            total += term
            metrics[f"loss/adversarial_{name}"] = fooled
            for domain, value in own.items():
                metrics[f"discriminator/{name}_{domain}"] = value
        return Term(total, metrics)

    return two_domain_method(
        forward,
        num_classes,
        target_term,
        extra=extra,
        aux_weight=aux_weight,
        class_weights=class_weights,
        source_view=source_view,
        target_view=target_view,
        statistics=statistics,
    )
