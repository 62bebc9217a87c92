"""Cross-entropies with a label."""

import jax
import jax.numpy as jnp

from uda_jax.losses.pixels import masked_mean


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
