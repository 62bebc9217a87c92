"""CutMix: a box of one example in another of the batch, with all that belongs to it.

A box is int32 [4], pixels: top, bottom, left, right; bottom and right are the first
ones outside.  Four zeros are the empty box.
"""

import jax
import jax.numpy as jnp

CUTMIX_PROBABILITY = 0.5
CUTMIX_AREA = (0.02, 0.4)  # shares of the image
CUTMIX_RATIO = (0.3, 1 / 0.3)  # height / width

# At the largest area one candidate in 17 fits, on average one in 4: none of 128 fits in
# 1.6 of 100,000 boxes, which then stay empty.
_CANDIDATES = 128


def first_box_that_fits(
    area: jax.Array,
    ratios: jax.Array,
    lefts: jax.Array,
    tops: jax.Array,
    size: tuple[int, int],
) -> jax.Array:
    """The first of K candidates that lies inside the image, empty if none does.

    A candidate is floor(sqrt(area * ratio)) high and floor(sqrt(area / ratio)) wide.

    Args:
      area: [] float, pixels, the same for all candidates.
      ratios: [K] float, height / width.
      lefts, tops: [K] int, the upper left corners, inside the image.
      size: (height, width) of the image.

    Returns:
      int32 [4], a box.
    """
    heights = jnp.sqrt(area * ratios).astype(jnp.int32)
    widths = jnp.sqrt(area / ratios).astype(jnp.int32)
    boxes = jnp.stack([tops, tops + heights, lefts, lefts + widths], -1)
    fits = (boxes[:, 1] <= size[0]) & (boxes[:, 3] <= size[1])
    return jnp.where(fits.any(), boxes[jnp.argmax(fits)], 0).astype(jnp.int32)


def cutmix_boxes(key: jax.Array, batch_size: int, size: tuple[int, int]) -> jax.Array:
    """CutMix's boxes: one for each example, empty with probability 0.5.

    Else the area is ~ U(0.02, 0.4) of the image; height / width ~ U(0.3, 1 / 0.3) and
    the corner ~ U over all pixels are drawn again until the box fits, which makes large
    boxes rounder and more central than their ranges say.  SS-ADA (released code), from
    UniMatch, whose images are square; the draws stop after 128 (see `_CANDIDATES`).

    Args:
      key: one key for the batch; an example's box depends on its place alone.
      batch_size: B, global.
      size: (height, width) of the images.

    Returns:
      int32 [B, 4], boxes for `cutmix`.
    """
    height, width = size
    u = jax.random.uniform(key, (batch_size, 2 + 3 * _CANDIDATES))
    ratio_u, left_u, top_u = jnp.split(u[:, 2:], 3, axis=1)

    def between(uniform, low, high):
        return low + uniform * (high - low)

    boxes = jax.vmap(first_box_that_fits, (0, 0, 0, 0, None))(
        between(u[:, 0], *CUTMIX_AREA) * height * width,
        between(ratio_u, *CUTMIX_RATIO),
        (left_u * width).astype(jnp.int32),
        (top_u * height).astype(jnp.int32),
        size,
    )
    return jnp.where(u[:, 1:2] < CUTMIX_PROBABILITY, boxes, 0)


def cutmix(x: jax.Array, other: jax.Array, boxes: jax.Array) -> jax.Array:
    """Inside each example's box the other one's values, outside its own.

    Args:
      x: [B, H, W] or [B, H, W, C]: images, labels, confidences or masks.
      other: the same shape and dtype.
      boxes: int [B, 4].

    Returns:
      x's shape and dtype.
    """
    top, bottom, left, right = (boxes[:, i, None, None] for i in range(4))
    row, column = jnp.arange(x.shape[1])[:, None], jnp.arange(x.shape[2])
    inside = (top <= row) & (row < bottom) & (left <= column) & (column < right)
    return jnp.where(inside.reshape(inside.shape + (1,) * (x.ndim - 3)), other, x)
