"""Cross-domain image mixing (CIM): classes of the source, hard onto the target.

Yan et al., "Threshold-adaptive Unsupervised Focal Loss for Domain Adaptation of
Semantic Segmentation", T-ITS 2023, https://arxiv.org/abs/2208.10716, section III-C;
where paper and released code differ, the code, whose stage two cannot run: what it was
meant to do.
"""

import functools

import jax
import jax.numpy as jnp

from uda_jax import augment, color, losses, mixing
from uda_jax.errors import UserError
from uda_jax.methods import supervised
from uda_jax.methods.mixes.mix import (
    COUNTS,
    LONG_TAIL_CHOICES,
    Mix,
    Mixed,
    empty_bank,
    labels_of_target,
    mix_metrics,
    numbers_to_paste,
    paste,
    weights_of_mix,
)

_BLUR = (0.1, 2.0)  # standard deviation at the boundary, pixels


def single(
    num_classes: int,
    of_stage_one: jax.Array,
    *,
    weight: float = 1.0,
    class_weights: str | tuple[float, ...] = "same",
    confidence: float = 0.968,
    per_batch: bool = False,
    with_ignore: bool = True,
    long_tail_probability: float = 0.0,
    long_tail_choice: str = "uniform",
    related: str = "none",
    expand: bool = False,
    boundary_width: int = 0,
    boundary_blur: int = 0,
    boundary_distance: float = 0.0,
    color_strength: float = 1.0,
) -> Mix:
    """Half of the source's classes pasted onto the target, hard.

    mixed image = M source + (1 - M) target, mixed label = M label + (1 - M) pseudo,
    M = 1 where the source's label is among ceil(n / 2) of its n classes; then
    `augment.strong_colors`.  The loss is weight * the mean over all pixels of v *
    cross-entropy (0 where ignored), v = 1 where M, elsewhere the share of the target's
    pixels with a confidence of at least `confidence`.

    With long-tail pasting, in a share of the images only max(ceil(n / 2) - 2, 1)
    classes of the source itself are chosen, and 2 to 4 others are pasted over it first,
    each with the classes related to it, out of a bank of crops that hold them; M = 1
    there.

    Args:
      num_classes: C.
      of_stage_one: [C] class weights of the other terms.
      weight: of the loss; 0.5 in the one published command.
      class_weights: of this cross-entropy: "same" as the other terms' (published), or
        as in `tufl`.  Mixing shows rare classes more often already: with weights on
        top a network finds too many of them.
      confidence: of the pixels that count in v.
      per_batch: choose the classes once for the batch instead of for each image.
      with_ignore: IGNORE is a class that can be chosen, as published: its pixels then
        come from the source and are ignored.
      long_tail_probability: share of the images with pasting; above 0 it needs
        `config.data.streams.paste`.
      long_tail_choice: "uniform": two different classes; "thresholds": two to four,
        drawn with replacement with the probabilities softmax(1 / threshold), for
        unsup_loss="adaptive_focal".
      related: key of `mixing.RELATED`, which classes are pasted together; also of
        `expand`.
      expand: add to the chosen classes those related to them (class_relation).
      boundary_width: above 0 (odd, pixels, at least 3) v is doubled within that
        window's reach of M's boundary.
      boundary_blur: above 0 (odd, at least 3) the boundary is blurred by a Gaussian of
        so many taps and a standard deviation ~ U(0.1, 2).
      boundary_distance: above 1 (pixels; 0 for none) v grows by
        `mixing.distance_weights`.
      color_strength: of the mixed image's colours, in [0, 1].

    Raises:
      UserError: a name or a number that is not allowed, or options that exclude each
        other or have no effect.

    Differences from the original: the source is the step's own crop, flipped and scaled
    (there a second one, as it is); between mixing and colours nothing is rounded to
    whole numbers (uint8); a class's crop comes from the bank that the stream "paste"
    refreshes by one crop for each image and step (there it is read from disk when it is
    drawn).
    """
    supervised.check_weights(weight=weight)
    supervised.check_share(
        confidence=confidence,
        long_tail_probability=long_tail_probability,
        color_strength=color_strength,
    )
    supervised.check_choice("long_tail_choice", long_tail_choice, LONG_TAIL_CHOICES)
    mixing.check_windows(
        or_none=True, boundary_width=boundary_width, boundary_blur=boundary_blur
    )
    if boundary_distance and not boundary_distance > 1:
        raise UserError(
            f"boundary_distance is {boundary_distance}, but no pixel is nearer to the "
            "boundary than 1: give more than 1, or 0 for none."
        )
    if boundary_blur and not boundary_width:
        raise UserError(
            f"boundary_blur is {boundary_blur}, but boundary_width is 0, so nothing is "
            "blurred: give a width of 3 or more, or no blur."
        )
    if boundary_width and boundary_distance:
        raise UserError(
            "boundary_width and boundary_distance are two forms of one thing: set one "
            "of them to 0."
        )
    weights = weights_of_mix(class_weights, of_stage_one)
    table = jnp.asarray(mixing.related_table(related, num_classes))
    if expand and related == "none":
        raise UserError('expand adds related classes, but related is "none": name one.')
    by_thresholds = long_tail_choice == "thresholds"
    if not long_tail_probability and (
        by_thresholds or (related != "none" and not expand)
    ):
        option = "long_tail_choice" if by_thresholds else "related"
        raise UserError(
            f"{option} has no effect while long_tail_probability is 0: give a "
            f"probability above 0, or leave {option} at its default."
        )

    def init(network, batch):
        memory = {"pseudo": network}
        if long_tail_probability:
            memory["bank"] = empty_bank(num_classes, batch)
        return memory

    def make(key, memory, sources):
        image, label = sources.image, sources.label
        class_key, paste_key, *keys = jax.random.split(key, 5)
        pastes = jnp.zeros(len(label), bool)
        if long_tail_probability:
            share_key, number_key, paste_key = jax.random.split(paste_key, 3)
            chance = jax.random.uniform(share_key, pastes.shape)
            pastes = chance < long_tail_probability
        mask = source_mask(
            class_key, label, pastes, num_classes,
            with_ignore=with_ignore, per_batch=per_batch,
            table=table if expand else None,
        )  # fmt: skip
        if long_tail_probability:
            image, label, mask, memory = paste(
                paste_key, image, label, mask, memory, sources,
                counts=numbers_to_paste(number_key, pastes, long_tail_choice),
                most=COUNTS[long_tail_choice][1],
                choice=long_tail_choice, table=table,
            )  # fmt: skip

        confident, pseudo = labels_of_target(sources, confidence)
        target = sources.target.astype(jnp.float32)
        mixed = mixing.class_mix(mask, image, target)
        mixed_label = mixing.class_mix(mask, label, pseudo)
        v = jnp.where(mask, 1.0, confident[:, None, None])
        if boundary_width:
            edge = mixing.boundary_mask(mask, boundary_width)
            v = jnp.where(edge, 2 * v, v)
            if boundary_blur:
                soft = blurred(keys[0], mixed, boundary_blur)
                mixed = mixing.class_mix(edge, soft, mixed)
        elif boundary_distance:
            v = v + mixing.distance_weights(mask, boundary_distance)
        view = augment.strong_colors(keys[1], mixed, color_strength=color_strength)

        def loss(logits):
            return weight * losses.cross_entropy(
                logits[0], mixed_label, weights, pixel_weights=v
            )

        images = {
            "mixed": augment.denormalize(view),
            "mixed_label": mixed_label,
            "mixed_mask": mask,
            "mixed_pseudo_label": pseudo,
            "mixed_source": image / 255,
            "mixed_weight": v,
        }
        return Mixed([view], loss, memory, mix_metrics(confident, mask), images)

    return Mix(init, make, by_thresholds)


def source_mask(
    key: jax.Array,
    label: jax.Array,
    pastes: jax.Array,
    num_classes: int,
    *,
    with_ignore: bool,
    per_batch: bool,
    table: jax.Array | None,
) -> jax.Array:
    """Where the source's own classes are that go into the mixed image.

    Args:
      key: one key for the batch.
      label: int [B, H, W].
      pastes: bool [B], whether long-tail classes join them, so that these are fewer.
      num_classes: C.
      with_ignore, per_batch: see `single`.
      table: bool [C, C], which classes to add to the chosen ones; None for none.

    Returns:
      bool [B, H, W].
    """
    present = mixing.present_classes(
        label, num_classes, with_ignore=with_ignore, per_batch=per_batch
    )
    ranks = mixing.random_ranks(key, present, per_batch=per_batch)
    half = mixing.half_of(present)
    counts = jnp.where(pastes, jnp.maximum(half - 2, 1), half)
    if table is None:
        chosen = ranks < counts[:, None]
    else:
        chosen = mixing.expand_related(ranks, counts, present, table)
    return mixing.class_mask(label, chosen)


def blurred(key: jax.Array, image: jax.Array, taps: int) -> jax.Array:
    """[B, H, W, 3]: each image by a Gaussian of a deviation of its own, ~ U(0.1, 2)."""
    radius = jax.random.uniform(key, (len(image),), minval=_BLUR[0], maxval=_BLUR[1])
    blur = functools.partial(color.gaussian_blur, taps=taps // 2, mode="reflect")
    return jax.vmap(blur)(image, radius)
