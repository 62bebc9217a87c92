"""Two views of one target image that should agree: TUFL's losses.

Yan et al., T-ITS 2023, section III, and the released code.
"""

import jax
import jax.numpy as jnp

from uda_jax.losses.pixels import confident_mean, log


def _pair(before, after, class_weights, modulator):
    """M * -sum_c w_c P_c ln q_c per pixel, with the gradient of the entropy of p.

    P = stop_gradient(p).  The published
    sum_c w_c (P_c (ln P_c - M ln q_c) - p_c ln p_c) has this value, because the two
    entropies cancel, and this gradient; here they cancel exactly, not up to rounding.
    """
    probs = jax.nn.softmax(before.astype(jnp.float32))
    weights = 1.0 if class_weights is None else jnp.asarray(class_weights)
    fixed = jax.lax.stop_gradient(probs)
    other = jax.nn.softmax(after.astype(jnp.float32))
    loss = -jnp.sum(weights * fixed * log(other), axis=-1)
    if modulator is not None:
        loss = modulator(fixed, other) * loss
    own_entropy = -jnp.sum(weights * probs * log(probs), axis=-1)
    return loss + (own_entropy - jax.lax.stop_gradient(own_entropy))


def neutral_cross_entropy(
    before: jax.Array,
    after: jax.Array,
    mask: jax.Array,
    class_weights: jax.Array | None = None,
    *,
    top_ratio: float = 1.0,
) -> jax.Array:
    """Consistency of two views: -sum_c w_c P_c ln q_c, averaged over `mask`.

    p = softmax(before), q = softmax(after), P = stop_gradient(p).  The gradient towards
    `after` is that of this cross-entropy; towards `before` it is that of the entropy
    -sum_c w_c p_c ln p_c ("neutral": its value does not show in the loss).

    Args:
      before: [..., C] logits of the weak view, already warped onto the strong one.
      after: [..., C] logits of the strong view.
      mask: [...] bool, pixels that take part; see `confident`.
      class_weights: [C] w, or None for ones.
      top_ratio: share of the pixels with the largest loss that is kept.

    Returns:
      float32 scalar; the denominator is the number of pixels kept, 0 if none.
    """
    return confident_mean(_pair(before, after, class_weights, None), mask, top_ratio)


def unsup_focal(
    before: jax.Array,
    after: jax.Array,
    mask: jax.Array,
    class_weights: jax.Array | None = None,
    *,
    gamma: float = 2.0,
    modulator: str = "difference",
) -> jax.Array:
    """Unsupervised focal loss: -M sum_c w_c P_c ln q_c, averaged over `mask`.

    As `neutral_cross_entropy`, with a factor M per pixel that fades out where the views
    agree; k = argmax p.  The gradient flows through q_k in M.  No `top_ratio`: the
    original's flags for it do not reach this loss.

    Args:
      before: [..., C] logits of the weak view, already warped onto the strong one.
      after: [..., C] logits of the strong view.
      mask: [...] bool, pixels that take part; see `confident`.
      class_weights: [C] w, or None for ones.
      gamma: exponent of M, at least 1.
      modulator: "difference": M = |P_k - q_k|^gamma (the original's `focal`);
        "error": M = |1 - q_k|^gamma (its `adapt_focal`).

    Returns:
      float32 scalar; the denominator is the number of pixels in `mask`, 0 if none.
    """
    if modulator not in ("difference", "error"):
        raise ValueError(
            f'modulator is "{modulator}"; allowed are "difference" and "error"'
        )

    def focus(fixed, other):
        chosen = jnp.argmax(fixed, -1)[..., None] == jnp.arange(fixed.shape[-1])
        own = jnp.sum(jnp.where(chosen, other, 0.0), axis=-1)
        goal = jnp.max(fixed, -1) if modulator == "difference" else 1.0
        return jnp.abs(goal - own) ** gamma

    return confident_mean(_pair(before, after, class_weights, focus), mask)
