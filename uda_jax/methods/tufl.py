"""TUFL: the threshold-adaptive unsupervised focal loss, and with a mix its stage two.

Yan et al., "Threshold-adaptive Unsupervised Focal Loss for Domain Adaptation of
Semantic Segmentation", T-ITS 2023, https://arxiv.org/abs/2208.10716, section III-B;
where paper and released code differ, the code.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from uda_jax import augment, losses
from uda_jax.class_weights import class_weights as class_weight_table
from uda_jax.errors import UserError
from uda_jax.factories import build
from uda_jax.methods import supervised
from uda_jax.methods.method import Method, Output
from uda_jax.methods.mixes import MIXES
from uda_jax.methods.mixes.mix import (
    Sources,
    check_thresholds,
    frozen_logits,
    in_target_style,
)
from uda_jax.methods.thresholds import update_thresholds
from uda_jax.methods.views import STATISTICS, see
from uda_jax.warp import warp

PAIR_LOSSES = ("focal", "adaptive_focal", "neutral_ce")  # compare two views
SINGLE_LOSSES = ("entropy", "confidence_entropy", "max_square")  # look at one
_WITH_TOP_RATIO = ("neutral_ce", "entropy")


def tufl(
    forward: Callable,
    num_classes: int,
    *,
    unsup_loss: str = "focal",
    unsup_weight: float = 0.08,
    gamma: float = 2.0,
    threshold: float = 0.8,
    top_ratio: float = 1.0,
    fraction: float = 0.8,
    sharpness: float = 8.0,
    momentum: float = 0.9,
    momentum_decay: float = 0.0,
    threshold_updates: str = "per_head",
    class_weights: str | tuple[float, ...] = "middle",
    source_loss: str = "regular",
    heads: str = "deep",
    statistics: str = "joint",
    color_strength: float = 1.0,
    source_color_strength: float = 1.0,
    rotation: float = 30.0,
    shear: float = 5.0,
    scale: tuple[float, float] = (0.8, 1.2),
    fda_beta: float = 0.0,
    mix: dict | None = None,
) -> Method:
    """Source cross-entropy + unsup_weight * consistency on confident target pixels.

    The target is seen twice, plain and strongly augmented, in one forward pass together
    with the source.  The plain view's logits are warped like the strong view and then
    compared with it, per head; gradients flow through both views.

    Args:
      forward: a Model's forward.
      num_classes: C.
      unsup_loss: "focal" (fixed threshold; the published results), "adaptive_focal"
        (a threshold per class; modulator |1 - q|), "neutral_ce"; or, on the plain view
        alone, "entropy", "confidence_entropy", "max_square".
      unsup_weight: weight of the unsupervised term.
      gamma: exponent of the focal losses.
      threshold: a target pixel takes part if its confidence is above it; the adaptive
        thresholds start from it.
      top_ratio: share of those pixels with the largest loss that is kept, for
        "neutral_ce" and "entropy".  (The original accepts it for the other losses too
        and ignores it: here it is an error.)
      fraction, sharpness, momentum: b, d, a of `update_thresholds`.
      momentum_decay: above 0 the momentum at step t is 1 - a exp(-t * decay).
      threshold_updates: "per_head" moves the thresholds once for each head, as
        released, each head going on from those before it; "per_step" moves them once,
        by the main head.
      class_weights: "middle", "small", "large" (13, 16, 19 classes), "none", C numbers;
        in both terms.
      source_loss: "regular", "valid" or "ohem"; see `supervised_loss`.
      heads: "deep": main and auxiliary heads; "last": the main head, in both terms.
      statistics: what a BatchNorm that is not frozen normalises by.  "joint": the mean
        over all views of both domains, as the original's one forward pass does;
        "target": each view by its own, and the running ones, which the evaluation uses,
        follow the plain target view.
      color_strength, rotation, shear, scale: of the strong view; see `strong_view`.
      source_color_strength: of the source's colour augmentation; see `source_view`.
      fda_beta: above 0 all source images get the low frequencies of the target image
        at their place in the batch first; see `fourier_style`.
      mix: stage two: a row of `uda_jax.methods.mixes.MIXES`, whose loss is added;
        {} or None for stage one.

    Returns:
      A Method.  It reads batch["source"] (image, label) and batch["target"] (image), of
      one shape, and for a mix the streams that it names.  Memory: {"thresholds": [C]
      float32} for "adaptive_focal"; "mix": that of the mix.

    Raises:
      UserError: an unknown name, a number out of its range, weights that do not fit the
        classes, source and target of different shapes.

    Differences from the original: a head without confident pixels adds 0, while there
    one such head drops the whole unsupervised term; thresholds follow the global batch,
    not each GPU's; "max_square" has the right sign.
    """
    check = supervised.check_choice
    check("unsup_loss", unsup_loss, PAIR_LOSSES + SINGLE_LOSSES)
    check("threshold_updates", threshold_updates, ("per_head", "per_step"))
    check("source_loss", source_loss, supervised.SOURCE_LOSSES)
    check("heads", heads, supervised.HEADS)
    check("statistics", statistics, STATISTICS)
    supervised.check_share(
        above_zero=True, top_ratio=top_ratio, fraction=fraction, momentum=momentum
    )
    supervised.check_share(
        color_strength=color_strength, source_color_strength=source_color_strength
    )
    supervised.check_weights(
        unsup_weight=unsup_weight, sharpness=sharpness, momentum_decay=momentum_decay
    )
    if not 0 <= fda_beta < 0.5:
        raise UserError(f"fda_beta is {fda_beta}, but must be at least 0, below 0.5.")
    if top_ratio < 1 and unsup_loss not in _WITH_TOP_RATIO:
        raise UserError(
            f'top_ratio is {top_ratio}, but "{unsup_loss}" keeps all confident pixels; '
            f"only {' and '.join(_WITH_TOP_RATIO)} use it, so leave it at 1."
        )
    weights = class_weight_table(class_weights, num_classes)
    adaptive = unsup_loss == "adaptive_focal"
    if adaptive and not 0 < threshold < 1:
        raise UserError(
            f'threshold is {threshold}, but "adaptive_focal" starts from it and needs '
            "it above 0 and below 1."
        )
    mixer = build(MIXES, "mix", mix, num_classes, weights) if mix else None
    if mixer:
        check_thresholds(mixer, unsup_loss)

    def init(key, network, batch):
        memory = {}
        if adaptive:
            memory["thresholds"] = jnp.full(num_classes, threshold, jnp.float32)
        if mixer:
            memory["mix"] = mixer.init(network, batch)
        return {}, memory

    def single_loss(plain):
        if unsup_loss == "entropy":
            return losses.entropy(
                plain, weights, threshold=threshold, top_ratio=top_ratio
            )
        if unsup_loss == "confidence_entropy":
            return losses.confidence_entropy(plain, weights, threshold=threshold)
        return losses.max_square(plain, weights, threshold=threshold)

    def pair_loss(warped, strong, mask):
        if unsup_loss == "neutral_ce":
            return losses.neutral_cross_entropy(
                warped, strong, mask, weights, top_ratio=top_ratio
            )
        modulator = "error" if adaptive else "difference"
        return losses.unsup_focal(
            warped, strong, mask, weights, gamma=gamma, modulator=modulator
        )

    def moved_thresholds(thresholds, warped, step):
        probs = jax.lax.stop_gradient(jax.nn.softmax(warped))
        keep = momentum
        if momentum_decay > 0:
            keep = 1 - momentum * jnp.exp(-momentum_decay * step.astype(jnp.float32))
        return update_thresholds(
            thresholds,
            probs.max(-1),
            probs.argmax(-1),
            fraction=fraction,
            sharpness=sharpness,
            momentum=keep,
        )

    def loss(params, state, batch, key):
        source_key, strong_key, forward_key = jax.random.split(key, 3)
        memory = dict(state.memory)
        source, target = batch["source"], batch["target"]
        if source["image"].shape != target["image"].shape:
            raise UserError(
                f"TUFL sees source and target in one forward pass, but their batches "
                f"are {source['image'].shape} and {target['image'].shape}; give both "
                "the same crop size and batch size."
            )
        batch = in_target_style(batch, fda_beta)
        source = batch["source"]
        views = [
            augment.source_view(
                source_key, source["image"], color_strength=source_color_strength
            ),
            augment.normalize(target["image"]),
        ]
        if unsup_loss in PAIR_LOSSES:
            strong_image, matrix = augment.strong_view(
                strong_key,
                target["image"],
                color_strength=color_strength,
                rotation=rotation,
                shear=shear,
                scale=scale,
            )
            views.append(strong_image)
        of_stage_one = len(views)
        if mixer:
            mixed = mixer.make(
                jax.random.fold_in(key, 1),
                memory["mix"],
                Sources(
                    image=source["image"].astype(jnp.float32),
                    label=source["label"],
                    target=target["image"],
                    pseudo_logits=frozen_logits(
                        forward, memory["mix"]["pseudo"], views[1]
                    ),
                    thresholds=memory.get("thresholds"),
                    batch=batch,
                ),
            )
            views += mixed.views
            memory["mix"] = mixed.memory

        prediction, batch_stats = see(
            forward,
            params["segmentor"],
            state.batch_stats,
            views,
            forward_key,
            statistics=statistics,
        )
        # per head: one array for each view
        per_head = [tuple(x) for x in supervised.head_logits(prediction, heads)]
        source_term = supervised.supervised_loss(
            tuple(head[0] for head in per_head),
            source["label"],
            weights,
            source_loss=source_loss,
        )

        thresholds = memory["thresholds"] if adaptive else jnp.float32(threshold)
        terms, shares = [], []
        for number, head in enumerate(per_head):
            if unsup_loss in SINGLE_LOSSES:
                shares.append(jnp.mean(losses.confident(head[1], thresholds)))
                terms.append(single_loss(head[1]))
                continue
            warped = warp(head[1], matrix)
            if adaptive and (number == 0 or threshold_updates == "per_head"):
                thresholds = moved_thresholds(thresholds, warped, state.step)
            mask = losses.confident(warped, thresholds)
            shares.append(jnp.mean(mask))
            terms.append(pair_loss(warped, head[2], mask))
        unsup_term = sum(terms) / len(terms)
        total = source_term + unsup_weight * unsup_term

        source_logits, target_logits = per_head[0][:2]
        metrics = {
            "loss/total": total,
            "loss/source": source_term,
            "loss/unsup": unsup_term,
            "pseudo/confident": sum(shares) / len(shares),
            "pseudo/threshold_mean": jnp.mean(thresholds),
            **supervised.training_scores(source_logits, source["label"]),
        }
        # All in the target's own geometry, except target_strong.
        images = {
            "source": augment.denormalize(views[0]),
            "source_label": source["label"],
            "target": augment.denormalize(views[1]),
            "target_strong": augment.denormalize(views[of_stage_one - 1]),
            "target_prediction": jnp.argmax(target_logits, -1),
            "target_confidence": jnp.max(jax.nn.softmax(target_logits), -1),
            "kept": losses.confident(target_logits, thresholds),
        }
        if unsup_loss in SINGLE_LOSSES:
            del images["target_strong"]
        if adaptive:
            memory["thresholds"] = thresholds
        if mixer:
            mix_term = mixed.loss(list(per_head[0][of_stage_one:]))
            total = total + mix_term
            metrics |= {"loss/total": total, "loss/mix": mix_term, **mixed.metrics}
            images |= mixed.images
        return total, Output(metrics, batch_stats, memory, images)

    return Method(init, loss)
