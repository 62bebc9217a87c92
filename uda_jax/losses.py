"""Pure losses on logits [..., C]: arrays in, one float32 scalar out.

Shapes: logits [B, H, W, C] (any leading axes do), labels [B, H, W] integers in [0, C)
or IGNORE; every other label value counts as ignored too (the readers raise for those).
The pair losses and `entropy` follow TUFL (Yan et al., T-ITS 2023, section III, and the
released code), including its 1e-30 inside each log and its floor of 1e-8 per pixel.

Every mean is sum / max(count, 1): an empty mask gives 0 with a zero gradient (the
original gives NaN there, and drops the term of all heads).
"""

import jax
import jax.numpy as jnp

_LOG_EPS = 1e-30
_FLOOR = 1e-8


def _log(probs: jax.Array) -> jax.Array:
    return jnp.log(probs + _LOG_EPS)


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """sum(values where mask) / max(number of True in mask, 1); both of one shape."""
    total = jnp.sum(jnp.where(mask, values, 0))
    return total / jnp.maximum(jnp.sum(mask), 1).astype(values.dtype)


def confident_mean(
    values: jax.Array, mask: jax.Array, top_ratio: float = 1.0
) -> jax.Array:
    """Mean of the largest floor(n * top_ratio) of the n values where `mask`.

    Each value is first raised to at least 1e-8 (which stops its gradient below that).
    Denominator: the number of values kept; none kept gives 0.  The original's OHEM for
    unsupervised losses; with `top_ratio` 1 the plain masked mean.
    """
    values = jnp.maximum(values, _FLOOR)
    if top_ratio == 1.0:
        return masked_mean(values, mask)
    # -1 lies below the floor: what the mask excludes sorts last.
    ranked = -jnp.sort(-jnp.where(mask, values, -1.0), axis=None)
    kept = jnp.floor(jnp.sum(mask) * jnp.float32(top_ratio)).astype(jnp.int32)
    return masked_mean(ranked, jnp.arange(ranked.size) < kept)


# --- supervised ---------------------------------------------------------------------


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


# --- unsupervised, one view ---------------------------------------------------------


def entropy(
    logits: jax.Array,
    class_weights: jax.Array | None = None,
    *,
    threshold: float = -1.0,
    top_ratio: float = 1.0,
) -> jax.Array:
    """Entropy -sum_c w_c p_c ln p_c, averaged over the confident pixels.

    Args:
      logits: [..., C].
      class_weights: [C] w, or None for ones.
      threshold: a pixel counts if max_c p_c > threshold; -1 takes all pixels.
      top_ratio: share of those with the largest entropy that is kept.

    Returns:
      float32 scalar, nats; the denominator is the number of pixels kept, 0 if none.
    """
    probs = jax.nn.softmax(logits.astype(jnp.float32))
    weights = 1.0 if class_weights is None else jnp.asarray(class_weights)
    loss = -jnp.sum(weights * probs * _log(probs), axis=-1)
    return confident_mean(loss, probs.max(-1) > threshold, top_ratio)


def max_square(
    logits: jax.Array,
    class_weights: jax.Array | None = None,
    *,
    threshold: float = -1.0,
    legacy_sign: bool = False,
) -> jax.Array:
    """Maximum squares: -1/2 the mean over confident pixels of sum_c w_c p_c^2.

    Minimising it makes predictions confident (Chen et al., ICCV 2019).  TUFL's released
    `square` has the opposite sign, which flattens them: `legacy_sign` reproduces that.

    Args:
      logits: [..., C].
      class_weights: [C] w, or None for ones.
      threshold: a pixel counts if max_c p_c > threshold; -1 takes all pixels.
      legacy_sign: +1/2 instead of -1/2.

    Returns:
      float32 scalar; the denominator is the number of confident pixels, 0 if none.
    """
    probs = jax.nn.softmax(logits.astype(jnp.float32))
    weights = 1.0 if class_weights is None else jnp.asarray(class_weights)
    mean = confident_mean(
        jnp.sum(weights * probs**2, axis=-1), probs.max(-1) > threshold
    )
    return mean / 2 if legacy_sign else -mean / 2


def confidence_entropy(
    logits: jax.Array,
    class_weights: jax.Array | None = None,
    *,
    threshold: float = -1.0,
) -> jax.Array:
    """-sum_c w_c Q_c log2(p_c) / log2(C), averaged over the confident pixels.

    Q_c = (p_c^2 / f_c) / sum_k (p_k^2 / f_k) sharpens p and favours classes that the
    batch predicts rarely; f_c is the sum of p_c over all pixels.  The gradient flows
    through Q and f, as in the original.

    Args:
      logits: [..., C].
      class_weights: [C] w, or None for ones.
      threshold: a pixel counts if max_c p_c > threshold; -1 takes all pixels.

    Returns:
      float32 scalar; the denominator is the number of confident pixels, 0 if none.
    """
    num_classes = logits.shape[-1]
    probs = jax.nn.softmax(logits.astype(jnp.float32))
    weights = 1.0 if class_weights is None else jnp.asarray(class_weights)
    frequency = jnp.sum(probs, axis=tuple(range(probs.ndim - 1)))
    # A class that underflows everywhere would be 0 / 0: it takes part with 0 instead.
    present = frequency > _LOG_EPS
    sharpened = jnp.where(present, probs**2 / jnp.where(present, frequency, 1.0), 0.0)
    sharpened = sharpened / jnp.sum(sharpened, axis=-1, keepdims=True)
    loss = -jnp.sum(weights * sharpened * _log(probs), axis=-1) / jnp.log(num_classes)
    return confident_mean(loss, probs.max(-1) > threshold)


# --- unsupervised, two views of one image -------------------------------------------


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
    loss = -jnp.sum(weights * fixed * _log(other), axis=-1)
    if modulator is not None:
        loss = modulator(fixed, other) * loss
    own_entropy = -jnp.sum(weights * probs * _log(probs), axis=-1)
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


def confident(logits: jax.Array, thresholds: jax.Array | float) -> jax.Array:
    """Where the largest probability exceeds its class's threshold: [...] bool.

    Args:
      logits: [..., C].
      thresholds: one number, or [C] one for each predicted class; compared with ">".
    """
    probs = jax.lax.stop_gradient(jax.nn.softmax(logits.astype(jnp.float32)))
    thresholds = jnp.broadcast_to(jnp.float32(thresholds), (logits.shape[-1],))
    return jnp.max(probs, -1) > thresholds[jnp.argmax(probs, -1)]
