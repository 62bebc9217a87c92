"""A confidence threshold for each class that follows what the network says of it.

TUFL (Yan et al., T-ITS 2023), section III-B, where paper and released code differ, the
code; the rule is that of IAST (Mei et al., ECCV 2020).
"""

import jax
import jax.numpy as jnp


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
