"""EBDA: DAFormer, whose student is kept from being too sure, or too unsure.

github.com/vron8632/EB_DA, a fork of DAFormer's program; no paper is known to us.  Two
forms are published: the one in its source, and the one in a compiled file beside it,
which the score of its README most probably comes from.
"""

from collections.abc import Callable

import jax.numpy as jnp

from uda_jax import losses
from uda_jax.methods import supervised
from uda_jax.methods.method import Method
from uda_jax.methods.self_training import Further, Mixed, self_training

BALANCES = ("constant", "quantile")
REGIONS = ("all", "target", "source")


def ebda(
    forward: Callable,
    num_classes: int,
    *,
    balance: str = "constant",
    entropy: float = 0.4,
    balance_weight: float = 0.1,
    quantile: float = 0.6,
    momentum: float = 0.9999,
    second_forward: bool = True,
    region: str = "all",
    alpha: float = 0.999,
    threshold: float = 0.968,
    ignore_top: int = 15,
    ignore_bottom: int = 120,
    feature_weight: float = 0.005,
    feature_classes: tuple[int, ...] = (),
    feature_min_ratio: float = 0.75,
    colors: str = "daformer",
    pool_per_image: bool = False,
    source_view: str = "none",
    statistics: str = "student",
) -> Method:
    r"""`daformer`'s total + balance_weight * mean of (H - H*)^2.

    H is the entropy in nats of each pixel of the mixed image, H* what it is drawn to:

        "constant"   H* = `entropy`
        "quantile"   H* = max(m, `entropy`), m <- momentum m + (1 - momentum) Q, Q the
                     `quantile` of the batch's H; m is Q in the first step

    Published: "constant", 0.4 and weight 0.1 in the source ("v2"); "quantile", a floor
    of 0.6 and weight 0.01 in the compiled file ("v1").  An entropy of 0.4 is that of a
    largest probability of 0.86 beside one other class: it draws confident pixels below
    `threshold`, so that "pseudo/weight" shrinks.

    Args:
      forward, num_classes: see `daformer`.
      balance: a name above.
      entropy: in nats, at least 0: H*, or its floor.
      balance_weight: lambda, at least 0.
      quantile: in (0, 1].
      momentum: in [0, 1].
      second_forward: H is of a forward pass of its own over the same image, with
        other dropout and a third update of BatchNorm's running statistics, as
        published; False takes the logits of the mixed image's cross-entropy, a quarter
        cheaper.
      region: pixels that the mean goes over: "all" as published, ignored ones too;
        "target" or "source" for those that come from there.  The quantile is of all.
      alpha, threshold, ignore_top, ignore_bottom, feature_weight, feature_classes,
        feature_min_ratio, colors, pool_per_image, source_view, statistics: see
        `daformer`.

    Returns:
      A Method.  Memory: that of `daformer` and {"further": {"level": m, "steps": int32
      steps done}}.

    Raises:
      UserError: as `daformer`; an unknown name or a number out of its range.

    Differences from the original: m is part of the run's state, not of a text file in
    the working folder; no gradient flows through Q (there with a factor of 1e-4); the
    entropy is not clamped (2e-6 apart).
    """
    supervised.check_choice("balance", balance, BALANCES)
    supervised.check_choice("region", region, REGIONS)
    supervised.check_weights(entropy=entropy, balance_weight=balance_weight)
    supervised.check_share(above_zero=True, quantile=quantile)
    supervised.check_share(momentum=momentum)

    def further(mixed: Mixed, memory):
        prediction, batch_stats = mixed.prediction, mixed.batch_stats
        if second_forward:
            prediction, batch_stats = mixed.run(mixed.image, mixed.key, batch_stats)
        logits, wanted, level = prediction.logits, jnp.float32(entropy), memory["level"]
        if balance == "quantile":
            now = losses.entropy_quantile(logits, quantile)
            level = jnp.where(
                memory["steps"] == 0, now, momentum * level + (1 - momentum) * now
            )
            wanted = jnp.maximum(level, entropy)
        mask = None
        if region != "all":
            mask = mixed.from_source == (region == "source")
        term = losses.entropy_balance(logits, wanted, mask)
        seen = losses.pixel_entropy(logits)
        return balance_weight * term, Further(
            memory={"level": level, "steps": memory["steps"] + 1},
            batch_stats=batch_stats,
            metrics={
                "loss/balance": term,
                "entropy/mean": jnp.mean(seen),
                "entropy/wanted": wanted,
            },
            images={"mixed_entropy": seen},
        )

    return self_training(
        forward,
        num_classes,
        alpha=alpha,
        threshold=threshold,
        ignore_top=ignore_top,
        ignore_bottom=ignore_bottom,
        feature_weight=feature_weight,
        feature_classes=feature_classes,
        feature_min_ratio=feature_min_ratio,
        colors=colors,
        pool_per_image=pool_per_image,
        source_view=source_view,
        statistics=statistics,
        further=further,
        further_memory={"level": jnp.float32(0), "steps": jnp.int32(0)},
    )
