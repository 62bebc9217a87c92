"""One picture out of two, by a mask."""

import jax
import jax.numpy as jnp


def class_mix(mask: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """x where the mask is True, y elsewhere.

    Args:
      mask: bool [B, H, W].
      x, y: [B, H, W] or [B, H, W, C] of one dtype: images, labels or weights; what
        broadcasts to that does too.

    Returns:
      The broadcast shape.
    """
    return jnp.where(_over_channels(mask, x, y), x, y)


def soft_mix(
    mask: jax.Array, x: jax.Array, y: jax.Array, weight: float | jax.Array
) -> jax.Array:
    """weight * mask * x + (1 - weight * mask) * y: y shines through x.

    TUFL's "Dual_soft" (released code), weight 0.8.

    Args:
      mask: bool [B, H, W].
      x, y: float [B, H, W] or [B, H, W, C].
      weight: of x, in [0, 1].

    Returns:
      x's shape and dtype.
    """
    share = weight * _over_channels(mask, x, y).astype(x.dtype)
    return share * x + (1 - share) * y


def _over_channels(mask, x, y):
    channels = max(jnp.ndim(x), jnp.ndim(y)) - mask.ndim
    return mask.reshape(mask.shape + (1,) * max(channels, 0))
