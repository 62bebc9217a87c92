"""SS-ADA: some target images have labels, the others teach by consistency.

Yan et al., "SS-ADA: A Semi-Supervised Active Domain Adaptation Framework for Semantic
Segmentation", 2024, https://arxiv.org/abs/2407.12788, and its released code, whose
training script is lost; the step is that of its history, and of UniMatch (Yang et al.,
CVPR 2023), which it follows.  Which images get labels: `uda_jax.rounds`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from uda_jax import augment, losses
from uda_jax.class_weights import NAMES as CLASS_WEIGHTS
from uda_jax.class_weights import class_weights as class_weight_table
from uda_jax.class_weights import from_counts, from_iou
from uda_jax.errors import UserError
from uda_jax.labels import IGNORE
from uda_jax.methods import supervised
from uda_jax.methods.method import Method, Output
from uda_jax.methods.views import STATISTICS, see_two_batches
from uda_jax.mixing import cutmix, cutmix_boxes

ROUND_WEIGHTS = ("iou", "counts")
LEARNS_FROM = ("all", "joint", "target_only")
_WITH_LABEL = ("source", "labelled")


def ss_ada(
    forward: Callable,
    num_classes: int,
    *,
    supervised_loss: str = "prob_ohem",
    min_kept: int = 200_000,
    ohem_threshold: float = 0.7,
    class_weights: str | tuple[float, ...] = "none",
    upper: float = 2.0,
    threshold: float = 0.0,
    class_threshold: bool = False,
    threshold_steps: int = 0,
    strong_weight: float = 0.25,
    perturbed_weight: float = 0.5,
    learns_from: str = "all",
    statistics: str = "joint",
) -> Method:
    r"""(L_source + L_labelled + w_s (L_1 + L_2) + w_p L_p) / 3.

    Without unlabelled images (L_source + L_labelled) / 2, without labelled ones their
    term is left out.

    L_source, L_labelled: mean over the heads of a cross-entropy with the labels.  L_1,
    L_2, L_p: cross-entropy of two strong views with CutMix, and of the weak view's
    perturbed features, with what the network says of the weak view:

        sum of -ln p_y where confidence >= threshold / number of pixels that are seen

    which counts the unsure pixels too.  What the weak view of a box's other image shows
    is said by the network in evaluation mode, of the batch's "partner".

    Args:
      forward: a Model's forward, with a perturbed pass.
      num_classes: C.
      supervised_loss: "prob_ohem" or "cross_entropy" (mean over labelled pixels, by
        class weight), of source and labelled target.
      min_kept, ohem_threshold: of `losses.prob_ohem_cross_entropy`; the number is for
        the global batch.
      class_weights: of L_source and L_labelled.  "iou" and "counts" follow the rounds
        (`class_weights.from_iou` of the labelled images, `from_counts` of the images
        picked so far), 1 before the first one that looks; else "none", "small",
        "middle", "large" or C numbers.
      upper: U, the largest weight of those two, at least 1.
      threshold: least confidence of a pixel that teaches, in [0, 1], compared with
        ">="; 0, as all published configs have it, takes all.
      class_threshold: the least confidence is threshold * IoU of the pixel's predicted
        class on the labelled images, as of the last round (0 before the first).
      threshold_steps: `class_threshold` falls linearly to 0 in so many steps; 0: never.
      strong_weight, perturbed_weight: w_s, w_p, at least 0.
      learns_from: "all", or the baselines: "joint": L_source + L_labelled;
        "target_only": L_labelled.
      statistics: "joint": BatchNorm sees source, labelled and weak view in one batch
        and then the strong views in another, and its running statistics follow both, as
        published; "target": source and each strong view are normalised by their own,
        and the running ones follow labelled and weak view, which are one batch.

    Returns:
      A Method.  It reads batch["source"] and, where they are there, ["labelled"]
      (image, label) and ["target"] with ["partner"] (image, "valid" where filled up).
      Memory, which the rounds set: {"class_iou": [C], "class_counts": [C] float32,
      "round": int32}.

    Raises:
      UserError: an unknown name, a number out of its range, weights that do not fit the
        classes, parts of a batch that differ in shape, or a target without partner.

    Differences from the original: nothing is NaN where no pixel has a label; partners
    are drawn independently, while there they are the same images in another crop.
    """
    check = supervised.check_choice
    check("supervised_loss", supervised_loss, ("prob_ohem", "cross_entropy"))
    check("learns_from", learns_from, LEARNS_FROM)
    check("statistics", statistics, STATISTICS)
    supervised.check_share(threshold=threshold, ohem_threshold=ohem_threshold)
    supervised.check_weights(
        strong_weight=strong_weight,
        perturbed_weight=perturbed_weight,
        min_kept=min_kept,
        threshold_steps=threshold_steps,
    )
    if not upper >= 1:
        raise UserError(f"upper is {upper}, but must be at least 1.")
    of_rounds = class_weights in ROUND_WEIGHTS
    if isinstance(class_weights, str):
        check("class_weights", class_weights, ROUND_WEIGHTS + CLASS_WEIGHTS)
    fixed = jnp.ones(num_classes)
    if not of_rounds:
        fixed = class_weight_table(class_weights, num_classes)

    def init(key, network, batch):
        memory = {
            "class_iou": jnp.zeros(num_classes),
            "class_counts": jnp.zeros(num_classes),
            "round": jnp.int32(0),
        }
        return {}, memory

    def weights_now(memory):
        if not of_rounds:
            return fixed
        if class_weights == "iou":
            weights = from_iou(memory["class_iou"], upper)
        else:
            weights = from_counts(memory["class_counts"], upper)
        return jnp.where(memory["round"] > 0, weights, fixed)

    # Without mining it is the mean over labelled pixels, by class weight.
    mined = min_kept if supervised_loss == "prob_ohem" else 0

    def with_label(heads, label, weights):
        terms = [
            losses.prob_ohem_cross_entropy(
                logits, label, weights, min_kept=mined, threshold=ohem_threshold
            )
            for logits in heads
        ]
        return sum(terms) / len(terms)

    def least_confidence(memory, step, label):
        if not class_threshold:
            return threshold
        share = 1.0
        if threshold_steps:
            share = jnp.maximum(1 - step / threshold_steps, 0)
        return memory["class_iou"][label] * threshold * share

    def taught(logits, part, state):
        """What a view teaches: (ids, `IGNORE` where unsure or unseen; what is seen)."""
        label, confidence = _said(logits)
        seen = part.get("valid", jnp.ones_like(label)) > 0
        sure = confidence >= least_confidence(state.memory, state.step, label)
        return jnp.where(sure & seen, label, IGNORE), seen

    def loss(params, state, batch, key):
        view_key, box_key, partner_key, first_key, second_key = jax.random.split(key, 5)
        _check_parts(batch, learns_from)
        with_unlabelled = learns_from == "all" and "target" in batch

        def run(image, key=first_key, stats=state.batch_stats, **options):
            return forward(
                params["segmentor"], stats, image, rngs={"dropout": key}, **options
            )

        names = ("labelled",) if learns_from == "target_only" else _WITH_LABEL
        names = [name for name in names if name in batch]
        views = {name: augment.normalize(batch[name]["image"]) for name in names}
        strong, boxes = [], []
        if with_unlabelled:
            image, partner = batch["target"]["image"], batch["partner"]
            views["target"], *ours = augment.ss_ada_views(view_key, image)
            partner_view, *theirs = augment.ss_ada_views(partner_key, partner["image"])
            partner_said, _ = run(partner_view, train=False)
            boxes = [
                cutmix_boxes(
                    jax.random.fold_in(box_key, i), len(image), image.shape[1:3]
                )
                for i in range(len(ours))
            ]
            strong = list(map(cutmix, ours, theirs, boxes))
        seen, strong_logits, batch_stats = see_two_batches(
            run, views, strong, second_key,
            statistics=statistics, perturb=with_unlabelled,
        )  # fmt: skip

        weights, terms = weights_now(state.memory), {}
        for name in names:
            heads = (seen[name].logits, *seen[name].aux_logits)
            terms[name] = with_label(heads, batch[name]["label"], weights)
        total, metrics = sum(terms.values()), {f"loss/{k}": v for k, v in terms.items()}
        images = _pictures(views, seen, batch)
        if with_unlabelled:
            here = taught(seen["target"].logits, batch["target"], state)
            there = taught(partner_said.logits, partner, state)
            mixed = [tuple(map(cutmix, here, there, (b, b))) for b in boxes]
            by_view = [
                _consistency(logits, *pair)
                for logits, pair in zip(strong_logits, mixed, strict=True)
            ]
            perturbed = _consistency(seen["target"].perturbed_logits, *here)
            total += strong_weight * sum(by_view) + perturbed_weight * perturbed
            metrics |= {
                "loss/strong": sum(by_view) / len(by_view),
                "loss/perturbed": perturbed,
                "pseudo/confident": jnp.mean(here[0] != IGNORE),
            }
            images |= {
                "target_mixed": augment.denormalize(strong[0]),
                "target_mixed_label": mixed[0][0],
            }
        if learns_from == "all":
            total /= 3 if with_unlabelled else 2
        metrics = {
            "loss/total": total,
            **metrics,
            **supervised.training_scores(
                seen[names[0]].logits, batch[names[0]]["label"]
            ),
        }
        return total, Output(metrics, batch_stats, state.memory, images)

    return Method(init, loss)


def _said(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(ids uint8, confidence): each [B, H, W], without a gradient."""
    probs = jax.lax.stop_gradient(jax.nn.softmax(logits.astype(jnp.float32)))
    return jnp.argmax(probs, -1).astype(jnp.uint8), jnp.max(probs, -1)


def _consistency(logits, label, seen):
    """Cross-entropy over all pixels that are seen, not over the taught ones alone."""
    mean = losses.cross_entropy(logits, label, normaliser="all")
    share = jnp.mean(seen, dtype=jnp.float32)
    return mean / jnp.maximum(share, 1 / seen.size)


def _pictures(views, seen, batch) -> dict[str, jax.Array]:
    """For the panels: each view, its label, what the network says of the target."""
    images = {}
    for name, view in views.items():
        images[name] = augment.denormalize(view)
        if name in _WITH_LABEL:
            images[f"{name}_label"] = batch[name]["label"]
        if name != "source":
            ids, confidence = _said(seen[name].logits)
            images[f"{name}_prediction"] = ids
    if "target" in views:
        images["target_confidence"] = confidence
    return images


def _check_parts(batch, learns_from: str) -> None:
    """Raises a UserError where the parts of a batch do not fit each other."""
    if learns_from != "all" and "labelled" not in batch:
        raise UserError(
            f'learns_from="{learns_from}" needs target images with labels: set '
            "labelled, or rounds with one at step 0."
        )
    if learns_from == "all" and "target" in batch and "partner" not in batch:
        raise UserError(
            "SS-ADA pastes boxes of a second target image into the first, and the "
            "batch has none: set data.partner=True."
        )
    looked_at = {
        "all": {"source", "labelled", "target", "partner"},
        "joint": {"source", "labelled"},
        "target_only": {"labelled"},
    }[learns_from]
    parts = looked_at & batch.keys()
    shapes = {name: batch[name]["image"].shape for name in sorted(parts)}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise UserError(
            "SS-ADA sees all parts of a batch in one forward pass, but they differ "
            f"({listed}): give source and target the same crop size."
        )
