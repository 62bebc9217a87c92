"""Classes of a second source image, softly onto the source and the target.

Yan et al., "Threshold-adaptive Unsupervised Focal Loss for Domain Adaptation of
Semantic Segmentation", T-ITS 2023, https://arxiv.org/abs/2208.10716, section III-C;
where paper and released code differ, the code, whose stage two cannot run: what it was
meant to do.
"""

import jax
import jax.numpy as jnp

from uda_jax import augment, losses, mixing
from uda_jax.methods import supervised
from uda_jax.methods.mixes.mix import (
    LONG_TAIL_CHOICES,
    Mix,
    Mixed,
    empty_bank,
    labels_of_target,
    mix_metrics,
    paste,
    stream,
    weights_of_mix,
)


def dual_soft(
    num_classes: int,
    of_stage_one: jax.Array,
    *,
    weight: float = 1.0,
    class_weights: str | tuple[float, ...] = "same",
    source_weight: float = 1.0,
    target_weight: float = 1.0,
    soft_weight: float = 0.8,
    confidence: float = 0.968,
    with_ignore: bool = True,
    long_tail_choice: str = "uniform",
    related: str = "none",
) -> Mix:
    """Classes of a second source image, softly onto both the source and the target.

    Half of the classes of a template T (`config.data.streams.template`), onto which two
    long-tail classes are pasted first, are chosen as M.  With a = soft_weight and X the
    source, then the target: image = a M T + (1 - a M) X; its loss is a CE(M label_T +
    (1 - M) label_X) + (1 - a) CE(label_X), where the target's labels are the frozen
    network's and its pixels weigh 1 in M and the share of confident pixels elsewhere.
    The sum is weight * (source_weight * source's + target_weight * target's); colours
    are left as they are.

    Args:
      num_classes: C.
      of_stage_one: [C] class weights of the other terms.
      weight, source_weight, target_weight: of all of it and of its two parts.
      class_weights: of these cross-entropies, as in `single`.
      soft_weight: a, in (0, 1].
      confidence, with_ignore, related: as in `single`.
      long_tail_choice: "uniform": two different classes; "thresholds": also two, drawn
        as in `single`, so that both may be the same.

    Raises:
      UserError: as `single`.
    """
    supervised.check_weights(
        weight=weight, source_weight=source_weight, target_weight=target_weight
    )
    supervised.check_share(confidence=confidence)
    supervised.check_share(above_zero=True, soft_weight=soft_weight)
    supervised.check_choice("long_tail_choice", long_tail_choice, LONG_TAIL_CHOICES)
    weights = weights_of_mix(class_weights, of_stage_one)
    table = jnp.asarray(mixing.related_table(related, num_classes))

    def init(network, batch):
        return {"pseudo": network, "bank": empty_bank(num_classes, batch)}

    def make(key, memory, sources):
        class_key, paste_key = jax.random.split(key)
        template = stream(sources.batch, "template", 'mix "dual_soft"')
        label = template["label"]
        present = mixing.present_classes(label, num_classes, with_ignore=with_ignore)
        ranks = mixing.random_ranks(class_key, present)
        chosen = ranks < mixing.half_of(present)[:, None]
        image, label, mask, memory = paste(
            paste_key, template["image"].astype(jnp.float32), label,
            mixing.class_mask(label, chosen), memory, sources,
            counts=jnp.full(len(label), 2), most=2,
            choice=long_tail_choice, table=table,
        )  # fmt: skip

        confident, pseudo = labels_of_target(sources, confidence)
        onto = {
            "source": (sources.image, sources.label, jnp.ones(mask.shape)),
            "target": (
                sources.target.astype(jnp.float32),
                pseudo,
                jnp.where(mask, 1.0, confident[:, None, None]),
            ),
        }
        images = {name: mixing.soft_mix(mask, image, x, soft_weight)
                  for name, (x, _, _) in onto.items()}  # fmt: skip
        labels = {name: mixing.class_mix(mask, label, y)
                  for name, (_, y, _) in onto.items()}  # fmt: skip

        def domain_loss(logits, name):
            _, own, v = onto[name]
            term = lambda y: losses.cross_entropy(logits, y, weights, pixel_weights=v)
            return soft_weight * term(labels[name]) + (1 - soft_weight) * term(own)

        def loss(logits):
            source, target = map(domain_loss, logits, onto)
            return weight * (source_weight * source + target_weight * target)

        panels = {
            "mixed": images["target"] / 255,
            "mixed_label": labels["target"],
            "mixed_mask": mask,
            "mixed_on_source": images["source"] / 255,
            "mixed_pseudo_label": pseudo,
            "mixed_template": image / 255,
            "mixed_weight": onto["target"][2],
        }
        views = [augment.normalize(images[name]) for name in onto]
        return Mixed(views, loss, memory, mix_metrics(confident, mask), panels)

    return Mix(init, make, long_tail_choice == "thresholds")
