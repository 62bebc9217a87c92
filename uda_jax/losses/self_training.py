"""DAFormer's and EBDA's losses beside cross-entropy: feature distance, entropy."""

import jax
import jax.numpy as jnp

from uda_jax.labels import IGNORE
from uda_jax.losses.pixels import kth_smallest, masked_mean


def feature_distance(
    features: jax.Array, reference: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
    """Mean over the masked positions of ||f - g||, over the channels.

    Args:
      features, reference: [B, h, w, C] f and g.
      mask: bool [B, h, w], or None for all positions of the batch.

    Returns:
      float32 scalar; 0 with a zero gradient for an empty mask (NaN in the original,
      with that gradient too), and where f = g.  Hoyer et al., DAFormer, section 3.4.
    """
    difference = (features - reference).astype(jnp.float32)
    squares = jnp.sum(difference**2, -1)
    # A square root has no derivative at 0.
    positive = squares > 0
    distance = jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), 0)
    if mask is None:
        return jnp.mean(distance)
    return masked_mean(distance, mask)


def majority_label(
    label: jax.Array, num_classes: int, stride: int, min_ratio: float
) -> jax.Array:
    """The label of squares: the class of most of a square's pixels.

    Args:
      label: [B, H, W] train ids; C or more counts as one class, that of ignored pixels.
      num_classes: C.
      stride: a square's side; what is left over on the right and below is not seen.
      min_ratio: least share of the square's pixels, in [0, 1].

    Returns:
      int32 [B, H // stride, W // stride]; `IGNORE` where no class has that share or
      most pixels are ignored; of classes with as many pixels the first.
    """
    batch_size, height, width = label.shape
    rows, columns = height // stride, width // stride
    label = label[:, : rows * stride, : columns * stride]
    squares = label.reshape(batch_size, rows, stride, columns, stride)
    counts = jnp.stack(
        [(squares == c).sum((2, 4)) for c in range(num_classes)]
        + [(squares >= num_classes).sum((2, 4))],
        axis=-1,
    )
    share, ids = counts.max(-1) / stride**2, jnp.argmax(counts, -1)
    return jnp.where((share >= min_ratio) & (ids < num_classes), ids, IGNORE)


def pixel_entropy(logits: jax.Array) -> jax.Array:
    """H = -sum_c p_c ln p_c: [..., C] -> float32 [...], in [0, ln C] nats."""
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.sum(jnp.exp(log_probs) * log_probs, -1)


def entropy_balance(
    logits: jax.Array, balance: jax.Array | float, mask: jax.Array | None = None
) -> jax.Array:
    """Mean over the masked pixels of (H - H*)^2, H each pixel's entropy.

    Its gradient with respect to a logit is (2 / N) (H - H*) (-p_k) (ln p_k + H).

    Args:
      logits: [B, H, W, C].
      balance: H* in nats; no gradient flows through it.
      mask: bool [B, H, W], or None for all pixels of the batch.

    Returns:
      float32 scalar, 0 for an empty mask.  EBDA (released code).
    """
    squares = (pixel_entropy(logits) - jax.lax.stop_gradient(balance)) ** 2
    return jnp.mean(squares) if mask is None else masked_mean(squares, mask)


def entropy_quantile(logits: jax.Array, quantile: float) -> jax.Array:
    """The floor(quantile * N)-th smallest of the batch's N pixel entropies, from 1.

    Args:
      logits: [B, H, W, C].
      quantile: in (0, 1]; what comes to less than 1 is the smallest.

    Returns:
      float32 scalar, without a gradient.
    """
    entropy = pixel_entropy(jax.lax.stop_gradient(logits))
    return kth_smallest(entropy, max(int(quantile * entropy.size), 1))
