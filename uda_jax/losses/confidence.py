"""One view of the target: losses that ask for confident predictions, as TUFL has them.

Yan et al., T-ITS 2023, section III, and the released code.
"""

import jax
import jax.numpy as jnp

from uda_jax.losses.pixels import LOG_EPS, confident_mean, log


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
    loss = -jnp.sum(weights * probs * log(probs), axis=-1)
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
    present = frequency > LOG_EPS
    sharpened = jnp.where(present, probs**2 / jnp.where(present, frequency, 1.0), 0.0)
    sharpened = sharpened / jnp.sum(sharpened, axis=-1, keepdims=True)
    loss = -jnp.sum(weights * sharpened * log(probs), axis=-1) / jnp.log(num_classes)
    return confident_mean(loss, probs.max(-1) > threshold)
