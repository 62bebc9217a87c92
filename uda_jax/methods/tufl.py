"""TUFL, stage one: the threshold-adaptive unsupervised focal loss.

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
from uda_jax.methods import supervised
from uda_jax.methods.method import Method, Output
from uda_jax.warp import warp

PAIR_LOSSES = ("focal", "adaptive_focal", "neutral_ce")  # compare two views
SINGLE_LOSSES = ("entropy", "confidence_entropy", "max_square")  # look at one
_WITH_TOP_RATIO = ("neutral_ce", "entropy")


def update_thresholds(
    thresholds: jax.Array,
    confidence: jax.Array,
    prediction: jax.Array,
    *,
    fraction: float,
    sharpness: float,
    momentum: float | jax.Array,
) -> jax.Array:
    """Moves each class's threshold towards a quantile of that class's confidences.

    For class c with threshold t: sort the confidences of its pixels and t itself,
    descending, L numbers; take the one at index floor(L * fraction * t^sharpness); the
    new threshold is momentum * t + (1 - momentum) * it, and 0.999 where that reaches 1.

    Args:
      thresholds: [C] float32 in (0, 1).
      confidence: [...] largest class probability per pixel.
      prediction: [...] class of that probability, in [0, C).
      fraction: b, share of a class's pixels to keep when its threshold is 1.
      sharpness: d, keeps fewer pixels of classes with low thresholds.
      momentum: weight of the old threshold; 1 never moves it.

    Returns:
      [C] float32; a class absent from `prediction` keeps its own.
    """
    classes = jnp.arange(thresholds.size)
    # One sort by (class, -confidence) instead of a sort of all pixels for every class;
    # every class holds at least its own threshold.
    keys = jnp.append(prediction.ravel(), classes).astype(jnp.int32)
    values = -jnp.append(confidence.ravel(), thresholds).astype(jnp.float32)
    keys, values = jax.lax.sort((keys, values), num_keys=2)
    ends = jnp.searchsorted(keys, classes, side="right")
    starts = jnp.searchsorted(keys, classes, side="left")
    count = ends - starts
    index = jnp.floor(count * fraction * thresholds**sharpness).astype(jnp.int32)
    quantile = -values[starts + jnp.minimum(index, count - 1)]
    moved = momentum * thresholds + (1 - momentum) * quantile
    return jnp.where(moved >= 1, 0.999, moved).astype(jnp.float32)


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

    Returns:
      A Method.  It reads batch["source"] (image, label) and batch["target"] (image), of
      one shape.  Memory: {"thresholds": [C] float32} for "adaptive_focal", else {}.

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
    check("statistics", statistics, ("joint", "target"))
    _check_range("top_ratio", top_ratio, 0, 1)
    _check_range("fraction", fraction, 0, 1)
    _check_range("momentum", momentum, 0, 1)
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

    def init(key):
        if not adaptive:
            return {}, {}
        return {}, {"thresholds": jnp.full(num_classes, threshold, jnp.float32)}

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

    def see(segmentor, state, views, key):
        """Predictions [view, B, H, W, C] of all views, and the new statistics."""

        def run(image):
            rngs = {"dropout": key}
            return forward(segmentor, state.batch_stats, image, train=True, rngs=rngs)

        if statistics == "target":
            prediction, batch_stats = jax.vmap(run)(jnp.stack(views))
            return prediction, jax.tree.map(lambda x: x[1], batch_stats)
        # Stacked behind the batch axis, each device's shard holds all views of its own
        # examples; a concatenation would move them between the devices.
        stacked = jnp.stack(views, axis=1)
        prediction, batch_stats = run(stacked.reshape(-1, *stacked.shape[2:]))
        split = lambda x: x.reshape(*stacked.shape[:2], *x.shape[1:])
        prediction = jax.tree.map(lambda x: jnp.moveaxis(split(x), 1, 0), prediction)
        return prediction, batch_stats

    def loss(params, state, batch, key):
        source_key, strong_key, forward_key = jax.random.split(key, 3)
        source, target = batch["source"], batch["target"]
        if source["image"].shape != target["image"].shape:
            raise UserError(
                f"TUFL sees source and target in one forward pass, but their batches "
                f"are {source['image'].shape} and {target['image'].shape}; give both "
                "the same crop size and batch size."
            )
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

        prediction, batch_stats = see(params["segmentor"], state, views, forward_key)
        # per head: one array for each view
        per_head = [tuple(x) for x in supervised.head_logits(prediction, heads)]
        source_term = supervised.supervised_loss(
            tuple(head[0] for head in per_head),
            source["label"],
            weights,
            source_loss=source_loss,
        )

        thresholds = state.memory["thresholds"] if adaptive else jnp.float32(threshold)
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
            "target_strong": augment.denormalize(views[-1]),
            "target_prediction": jnp.argmax(target_logits, -1),
            "target_confidence": jnp.max(jax.nn.softmax(target_logits), -1),
            "kept": losses.confident(target_logits, thresholds),
        }
        if unsup_loss in SINGLE_LOSSES:
            del images["target_strong"]
        memory = {"thresholds": thresholds} if adaptive else state.memory
        return total, Output(metrics, batch_stats, memory, images)

    return Method(init, loss)


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low < value <= high:
        raise UserError(f"{name} is {value}, but must be above {low}, at most {high}.")
