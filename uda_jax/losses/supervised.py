"""Cross-entropies with a label."""

import jax
import jax.numpy as jnp

from uda_jax.losses.pixels import kth_smallest, masked_mean


def _pixel_cross_entropy(
    logits: jax.Array, label: jax.Array, class_weights: jax.Array | None
) -> jax.Array:
    """-w_y ln p_y per pixel, 0 where the label is not in [0, C)."""
    # Compare and select, not a gather: so the gradient is elementwise, not a scatter.
    chosen = label[..., None] == jnp.arange(logits.shape[-1])
    weights = 1.0 if class_weights is None else jnp.asarray(class_weights)
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.sum(jnp.where(chosen, weights * log_probs, 0.0), axis=-1)


def cross_entropy(
    logits: jax.Array,
    label: jax.Array,
    class_weights: jax.Array | None = None,
    *,
    pixel_weights: jax.Array | None = None,
    normaliser: str = "all",
) -> jax.Array:
    """Cross-entropy: sum over valid pixels of v * -w_y ln p_y, divided by a count.

    Args:
      logits: [..., C].
      label: [...] train ids; ignored pixels add nothing to the sum.
      class_weights: [C] w, or None for ones.  Never part of the denominator.
      pixel_weights: [...] v, or None for ones.  Never part of the denominator.
      normaliser: "all" divides by the number of pixels, ignored ones included (TUFL);
        "valid" by the number of pixels with a label, at least 1.

    Returns:
      float32 scalar, 0 if everything is ignored.
    """
    loss = _pixel_cross_entropy(logits, label, class_weights)
    if pixel_weights is not None:
        loss = loss * pixel_weights
    if normaliser == "all":
        return jnp.mean(loss)
    if normaliser == "valid":
        return masked_mean(loss, (label >= 0) & (label < logits.shape[-1]))
    raise ValueError(f'normaliser is "{normaliser}"; allowed are "all" and "valid"')


def ohem_cross_entropy(
    logits: jax.Array,
    label: jax.Array,
    class_weights: jax.Array | None = None,
    *,
    min_kept: int,
    threshold: float = 0.7,
) -> jax.Array:
    """Cross-entropy of the hard pixels (online hard example mining).

    With l = -w_y ln p_y (0 where ignored) and T = -ln(threshold): the mean of all l > T
    if more than `min_kept` pixels exceed T, else the mean of the `min_kept` largest l
    (ignored pixels count with their 0 there, as in the original).  T is compared with
    the class-weighted loss.

    Args:
      logits: [..., C].
      label: [...] train ids.
      class_weights: [C] or None.
      min_kept: a number of pixels below label.size; TUFL uses label.size // 16.
      threshold: probability below which an unweighted pixel is hard.

    Returns:
      float32 scalar, 0 if everything is ignored.

    Raises:
      ValueError: min_kept is not in [0, label.size).
    """
    if not 0 <= min_kept < label.size:
        raise ValueError(f"min_kept is {min_kept}; it must be in [0, {label.size})")
    loss = _pixel_cross_entropy(logits, label, class_weights).ravel()
    limit = -jnp.log(jnp.float32(threshold))
    ranked = -jnp.sort(-loss)
    largest = jnp.sum(ranked[:min_kept]) / max(min_kept, 1)
    return jnp.where(ranked[min_kept] > limit, masked_mean(loss, loss > limit), largest)


def prob_ohem_cross_entropy(
    logits: jax.Array,
    label: jax.Array,
    class_weights: jax.Array | None = None,
    *,
    min_kept: int = 200_000,
    threshold: float = 0.7,
) -> jax.Array:
    """Cross-entropy of the pixels whose true class has a low probability.

    With P = p_y (1 where ignored) and kappa = the min(numel, min_kept)-th smallest P of
    all pixels, ignored ones included: the valid pixels with P <= max(threshold, kappa)
    are kept, which are at least `min_kept`.  All valid pixels are kept if `min_kept` is
    0 or above their number.  Loss = sum over kept of w_y * -ln p_y / sum over kept of
    w_y: torch's weighted mean.  The weights have no say in the choice, and no gradient
    flows through it.

    Args:
      logits: [..., C].
      label: [...] train ids.
      class_weights: [C] w, or None for ones.  Part of the denominator.
      min_kept: a number of pixels of the whole batch, at least 0.
      threshold: probability below which a pixel is hard.

    Returns:
      float32 scalar, 0 with a zero gradient if everything is ignored or what is kept
      weighs nothing.

    Raises:
      ValueError: min_kept is below 0.

    Source: SS-ADA's released code (ProbOhemCrossEntropy2d, from U2PL).  Differences:
    nothing kept gives NaN there; several devices choose there each among its own
    pixels, here among those of the global batch.
    """
    if min_kept < 0:
        raise ValueError(f"min_kept is {min_kept}; it must be at least 0")
    valid = (label >= 0) & (label < logits.shape[-1])
    loss = _pixel_cross_entropy(logits, label, None)
    kept = valid
    if min_kept:
        # The loss of an ignored pixel is 0, so that its probability is 1.
        probability = jax.lax.stop_gradient(jnp.exp(-loss))
        kappa = kth_smallest(probability, min(label.size, min_kept))
        hard = probability <= jnp.maximum(kappa, jnp.float32(threshold))
        kept = valid & (hard | (min_kept > jnp.sum(valid)))
    weights = 1.0
    if class_weights is not None:
        weights = jnp.asarray(class_weights)[jnp.where(valid, label, 0)]
    weights = jnp.where(kept, weights, 0.0)
    total = jnp.sum(weights)
    return jnp.sum(weights * loss) / jnp.where(total > 0, total, 1.0)
