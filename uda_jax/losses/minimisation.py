"""One view of the target: the entropies and squares that the field began with.

ADVENT (Vu et al., CVPR 2019), https://arxiv.org/abs/1811.12833, section 3, and
MaxSquare (Chen et al., ICCV 2019), https://arxiv.org/abs/1909.13589, section 3, as
their released programs compute them: those of `uda_jax.losses.confidence` with other
denominators, and with weights of images instead of classes.
"""

import jax
import jax.numpy as jnp

from uda_jax.losses.pixels import log


def _probs(logits: jax.Array) -> jax.Array:
    return jax.nn.softmax(logits.astype(jnp.float32))


def self_information(logits: jax.Array) -> jax.Array:
    """-p log(p + 1e-30) / log(C), the map that ADVENT's discriminator sees.

    Args:
      logits: [..., C].

    Returns:
      [..., C] float32, at least 0; its sum over the classes is at most 1.
    """
    probs = _probs(logits)
    return -probs * log(probs) / jnp.log(logits.shape[-1])


def normalized_entropy(logits: jax.Array) -> jax.Array:
    """ADVENT's entropy: -sum_c p_c log(p_c) / log(C), mean over all pixels.

    Args:
      logits: [..., C].

    Returns:
      float32 scalar in [0, 1]: 0 for certainty, 1 for equal probabilities.
    """
    return jnp.mean(jnp.sum(self_information(logits), -1))


def soft_cross_entropy(
    logits: jax.Array, pixel_weights: jax.Array | None = None
) -> jax.Array:
    """MaxSquare's "entropy": -sum_c p_c ln p_c / C, mean over all pixels.

    Args:
      logits: [B, H, W, C].
      pixel_weights: None, or [B, H, W] v of `image_wise_weights`, which sum up to about
        one in an image: -sum_hw v sum_c p_c ln p_c / C, mean over the images.

    Returns:
      float32 scalar in nats, at most ln(C) / C without weights.
    """
    probs = _probs(logits)
    return _weighted(-jnp.sum(probs * log(probs), -1), pixel_weights, logits.shape[-1])


def squared_probabilities(
    logits: jax.Array, pixel_weights: jax.Array | None = None
) -> jax.Array:
    """MaxSquare: -sum_c p_c^2 / (2 C), mean over all pixels.

    Args:
      logits: [B, H, W, C].
      pixel_weights: None, or [B, H, W] v of `image_wise_weights`:
        -sum_hw v sum_c p_c^2 / C, mean over the images.  The factor 1/2 is missing
        here as in the released program, so that the same weight of the term acts twice
        as strongly.

    Returns:
      float32 scalar, negative; -1 / (2 C) for certainty without weights.
    """
    total = jnp.sum(_probs(logits) ** 2, -1)
    scale = 1 if pixel_weights is not None else 0.5
    return -scale * _weighted(total, pixel_weights, logits.shape[-1])


def _weighted(values, pixel_weights, num_classes):
    if pixel_weights is None:
        return jnp.mean(values) / num_classes
    return jnp.mean(jnp.sum(pixel_weights * values, (-2, -1))) / num_classes


def image_wise_weights(logits: jax.Array, ratio: float = 0.2) -> jax.Array:
    """MaxSquare's IW: w_c = 1 / max(h_c^ratio * S^(1 - ratio), 1) of the pixel's class.

    h_c counts the pixels of an image that are predicted as class c, S all of them; a
    pixel's weight is that of its own predicted class.  Frequent classes weigh less per
    pixel; with ratio 0 every pixel weighs 1 / S.

    Args:
      logits: [B, H, W, C].
      ratio: alpha, in [0, 1].

    Returns:
      [B, H, W] float32 without gradient.

    Difference from the original: it multiplies [B, H, W] with [B, C, H, W], which fails
    for more than one image, or is wrong where B = C; here every image has its own.
    """
    prediction = jnp.argmax(jax.lax.stop_gradient(logits), -1)
    chosen = prediction[..., None] == jnp.arange(logits.shape[-1])
    counts = jnp.sum(chosen, (-3, -2), keepdims=True).astype(jnp.float32)
    pixels = logits.shape[-3] * logits.shape[-2]
    weights = 1 / jnp.maximum(counts**ratio * pixels ** (1 - ratio), 1)
    return jnp.sum(jnp.where(chosen, weights, 0), -1)
