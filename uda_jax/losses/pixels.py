"""Which pixels a loss is a mean over."""

import jax
import jax.numpy as jnp

LOG_EPS = 1e-30
_FLOOR = 1e-8


def log(probs: jax.Array) -> jax.Array:
    """ln(probs + 1e-30), finite at 0."""
    return jnp.log(probs + LOG_EPS)


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


def kth_smallest(values: jax.Array, k: int) -> jax.Array:
    """The k-th smallest of all values, from 1, without a gradient.

    Found bit by bit in 32 counts: a sort takes ten times as long on a CPU, and would
    gather the pixels of all devices on each of them.

    Args:
      values: float32 of any shape, none NaN.
      k: in [1, values.size].

    Returns:
      float32 scalar, one of the values (of -0 and 0, which are equal, either).

    Raises:
      ValueError: another dtype, or k is out of its range.
    """
    if values.dtype != jnp.float32 or not 1 <= k <= values.size:
        raise ValueError(f"k={k} of {values.size} values of {values.dtype}")
    sign = jnp.uint32(1 << 31)
    bits = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(values), jnp.uint32)
    # As unsigned integers in the order of the floats: negative ones are inverted.
    order = jnp.where(bits & sign, ~bits, bits | sign)

    def add_bit(i, found):
        longer = found | (sign >> jnp.uint32(i))
        return jnp.where(jnp.sum(order < longer) < k, longer, found)

    found = jax.lax.fori_loop(0, 32, add_bit, jnp.uint32(0))
    bits = jnp.where(found & sign, found ^ sign, ~found)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


def confident(logits: jax.Array, thresholds: jax.Array | float) -> jax.Array:
    """Where the largest probability exceeds its class's threshold: [...] bool.

    Args:
      logits: [..., C].
      thresholds: one number, or [C] one for each predicted class; compared with ">".
    """
    probs = jax.lax.stop_gradient(jax.nn.softmax(logits.astype(jnp.float32)))
    thresholds = jnp.broadcast_to(jnp.float32(thresholds), (logits.shape[-1],))
    return jnp.max(probs, -1) > thresholds[jnp.argmax(probs, -1)]


def confident_share(logits: jax.Array, threshold: float) -> jax.Array:
    """Share of an image's pixels whose largest probability is at least the threshold.

    The weight of TUFL's pseudo-labels, stage two: 0.968 there, compared with ">=" as
    published, from DACS.

    Args:
      logits: [B, H, W, C].
      threshold: in [0, 1].

    Returns:
      float32 [B] in [0, 1]: sum / (H * W).
    """
    probs = jax.lax.stop_gradient(jax.nn.softmax(logits.astype(jnp.float32)))
    return jnp.mean(jnp.max(probs, -1) >= threshold, (1, 2), dtype=jnp.float32)
