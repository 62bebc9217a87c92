"""Weights along the seams of a mixed image."""

import jax
import jax.numpy as jnp

from uda_jax.errors import UserError


def check_windows(*, or_none: bool = False, **widths: int) -> None:
    """Raises a UserError unless each is odd and at least 3, with `or_none` or 0."""
    for name, width in widths.items():
        if (width < 3 or width % 2 == 0) and not (or_none and width == 0):
            none = ", or 0 for none" if or_none else ""
            raise UserError(
                f"{name} is {width}, but a pixel lies in the middle of its window: "
                f"give an odd number of pixels, at least 3{none}."
            )


def boundary_mask(mask: jax.Array, width: int) -> jax.Array:
    """Where a square of width x width pixels holds both True and False.

    max over the square - min over the square = 1; pixels outside the image count for
    nothing.  TUFL's `mixed_boundary` (released code), which doubles the weights there.

    Args:
      mask: bool [B, H, W].
      width: pixels, odd, at least 3.

    Returns:
      bool [B, H, W].

    Raises:
      UserError: an even width, or one below 3.
    """
    check_windows(width=width)
    return _any_near(mask, width) & _any_near(~mask, width)


def _any_near(mask, width):
    for axis in (1, 2):
        window = [1, 1, 1]
        window[axis] = width
        mask = jax.lax.reduce_window(
            mask, False, jax.lax.bitwise_or, window, (1, 1, 1), "SAME"
        )
    return mask


def distance_weights(mask: jax.Array, distance: float) -> jax.Array:
    """Weights that fall off on both sides of the mask's edge, from 1 to 0.

    With e the Euclidean distance to the next pixel of the other side, for each side:
    (max e - e) / (its largest value) where e < distance, else 0; max e is over the
    whole side.  TUFL's `bapa_boundary` (released code), which adds them to the weights.

    Args:
      mask: bool [B, H, W]; each example has its own maxima.
      distance: pixels; at 1 or less all weights are 0.

    Returns:
      float32 [B, H, W] in [0, 1].  A side whose pixels are all equally far, or that is
      the whole image, gets 0 (the original: NaN).
    """
    far = jnp.sqrt(_squared_distances(mask).astype(jnp.float32))

    def falling(side):
        farthest = jnp.max(far, (1, 2), keepdims=True, where=side, initial=0)
        weights = jnp.where(side & (far < distance), farthest - far, 0)
        largest = weights.max((1, 2), keepdims=True)
        return weights / jnp.where(largest > 0, largest, 1)

    return falling(mask) + falling(~mask)


def _squared_distances(mask):
    """Exact squared distance to the next pixel of the other side: int32 [B, H, W].

    First along the columns; then along the rows, where the smallest of g(j + s) + s^2
    over all s is found in rounds of one step to either side that costs 1, 3, 5, ...: s
    steps cost s^2.  It takes about as many rounds as the farthest pixel is away.
    """
    infinite = sum(mask.shape[1:])  # farther than any pixel

    def down(carry, side):
        count, before = carry
        count = jnp.where(side == before, jnp.minimum(count + 1, infinite), 1)
        return (count, side), count

    def along_columns(reverse):
        rows = jnp.moveaxis(mask, 1, 0)
        start = jnp.full(rows.shape[1:], infinite), rows[-1 if reverse else 0]
        return jnp.moveaxis(jax.lax.scan(down, start, rows, reverse=reverse)[1], 0, 1)

    along = jnp.minimum(along_columns(False), along_columns(True))
    # A neighbour on the other side is there already: 0 from there on.
    alike = mask[..., 1:] == mask[..., :-1]

    def padded(x, before, after):
        return jnp.pad(
            x, ((0, 0), (0, 0), (before, after)), constant_values=infinite**2
        )

    def one_step(carry):
        squared, cost, _ = carry
        left = padded(jnp.where(alike, squared[..., :-1], 0), 1, 0)
        right = padded(jnp.where(alike, squared[..., 1:], 0), 0, 1)
        near = jnp.minimum(left, right) + cost
        return jnp.minimum(squared, near), cost + 2, jnp.any(near < squared)

    start = along**2, jnp.int32(1), jnp.bool_(True)
    return jax.lax.while_loop(lambda carry: carry[2], one_step, start)[0]
