"""Colour operations on one image, from which `augment` builds the published recipes.

Each takes one float image [H, W, 3] on the 0..255 scale and an amount, a scalar, and
returns such an image; `jax.vmap` gives every image of a batch its own amount.  What the
originals do with Pillow on the host is done as float arithmetic, clipped after each
operation like Pillow, but pixels are never rounded to integers in between (up to about
a grey level apart; equalize rounds them, because it needs a histogram).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

# Pillow's weights of R, G, B in its conversion to grey.
_GREY = (19595 / 65536, 38470 / 65536, 7471 / 65536)
# kornia divides by max + 1e-6 on the 0..1 scale where Pillow divides by max.
_EPSILON = 255e-6

SHADOW_NUMBERS = 12 + 108 + 1  # two grids and the edges' sharpness


# --- Pillow's enhancers, used by TUFL and, through torchvision, by SS-ADA -------------


def _blend(degenerate: jax.Array, image: jax.Array, factor: jax.Array) -> jax.Array:
    return jnp.clip(degenerate + factor * (image - degenerate), 0, 255)


def _luminance(image: jax.Array) -> jax.Array:
    return jnp.sum(image * jnp.array(_GREY), axis=-1, keepdims=True)


def brightness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """factor * image, clipped to 0..255 (Pillow's ImageEnhance.Brightness)."""
    return jnp.clip(factor * image, 0, 255)


def contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blends with the image's mean grey level; factor 1 changes nothing."""
    return _blend(jnp.round(jnp.mean(_luminance(image))), image, factor)


def saturation(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blends with the grey image (Pillow's ImageEnhance.Color)."""
    return _blend(_luminance(image), image, factor)


def sharpness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blends with the image after [1 1 1; 1 5 1; 1 1 1] / 13, its border untouched."""
    height, width, _ = image.shape
    rows = image[:-2] + image[1:-1] + image[2:]
    box = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    smooth = (box + 4 * image[1:-1, 1:-1]) / 13
    inner = jnp.zeros((height, width, 1), bool).at[1:-1, 1:-1].set(True)
    padded = jnp.pad(smooth, ((1, 1), (1, 1), (0, 0)))
    return _blend(jnp.where(inner, padded, image), image, factor)


def grayscale(image: jax.Array) -> jax.Array:
    """Pillow's grey level, 0.299 R + 0.587 G + 0.114 B, in all three channels."""
    return jnp.broadcast_to(_luminance(image), image.shape)


def equalize(image: jax.Array) -> jax.Array:
    """Equalises each channel's histogram (Pillow's ImageOps.equalize, exactly)."""
    levels = jnp.round(image).astype(jnp.int32)
    channel = jnp.arange(3)
    counts = jnp.zeros((3, 256), jnp.int32).at[channel, levels].add(1)
    last = 255 - jnp.argmax(counts[:, ::-1] > 0, axis=1)
    pixels = image.shape[0] * image.shape[1]
    step = (pixels - counts[channel, last]) // 255
    safe = jnp.maximum(step, 1)[:, None]
    before = jnp.cumsum(counts, axis=1) - counts
    table = jnp.minimum((safe // 2 + before) // safe, 255)
    # Pillow leaves a channel alone when its step is 0 (few pixels or a single level).
    table = jnp.where(step[:, None] > 0, table, jnp.arange(256))
    return table[channel, levels].astype(image.dtype)


# --- operations in HSV, and kornia 0.5.8's, used by DAFormer --------------------------


def _wrap(sector: jax.Array) -> jax.Array:
    """Its remainder in turns of 6, up to rounding; jnp.mod is slow on a CPU."""
    return sector - 6 * jnp.floor(sector / 6)


def to_hsv(image: jax.Array) -> jax.Array:
    """Hue in turns [0, 1), saturation [0, 1], value 0..255: [H, W, 3].

    V = max, S = (max - min) / (V + 1e-6 of the full scale), H = the hexagon's; grey has
    H = 0; where two channels are both the largest, the first one counts.
    """
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    value = jnp.max(image, -1)
    spread = value - jnp.min(image, -1)
    safe = jnp.where(spread > 0, spread, 1)
    sector = jnp.where(
        red == value,
        _wrap((green - blue) / safe),
        jnp.where(green == value, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    return jnp.stack([sector / 6, spread / (value + _EPSILON), value], -1)


def from_hsv(hsv: jax.Array) -> jax.Array:
    """The inverse of `to_hsv`, for a hue of any number of turns, negative ones too.

    Channel = V - V S max(0, min(k, 4 - k, 1)) with k = (n + 6 H) mod 6 and n = 5, 3, 1
    for red, green, blue.
    """
    h, s, v = hsv[..., :1], hsv[..., 1:2], hsv[..., 2:]
    k = _wrap(jnp.array([5.0, 3.0, 1.0]) + 6 * h)
    return v - v * s * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)


def hue(image: jax.Array, turn: jax.Array) -> jax.Array:
    """Turns the hue by `turn` of the full circle; saturation and value stay.

    DAFormer's by kornia, and SS-ADA's by torchvision, which does it in Pillow's HSV of
    one byte a channel: steps of 1.4 degrees there, none here (a few grey levels apart).
    """
    return from_hsv(to_hsv(image) + jnp.stack([turn, 0.0, 0.0]))


def hsv_saturation(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Multiplies the saturation, clipped to [0, 1] (kornia's adjust_saturation)."""
    hsv = to_hsv(image)
    return from_hsv(hsv.at[..., 1].set(jnp.clip(factor * hsv[..., 1], 0, 1)))


def lightness(image: jax.Array, shift: jax.Array) -> jax.Array:
    """Adds 255 * shift, clipped to 0..255 (kornia 0.5.8's adjust_brightness)."""
    return jnp.clip(image + 255 * shift, 0, 255)


def jitter(recipe: Sequence[tuple], image: jax.Array, numbers: jax.Array) -> jax.Array:
    """A recipe's operations in random order, each once, with random amounts.

    Args:
      recipe: n of (operation, smallest amount, largest amount).
      image: [H, W, 3] float, 0..255.
      numbers: [2 n] uniform in [0, 1): the amounts, then the order (by rank).
    """
    operations, low, high = zip(*recipe, strict=True)
    low, high = jnp.array(low), jnp.array(high)
    amounts = low + numbers[: len(recipe)] * (high - low)

    # A loop: each operation is compiled once, not once for each place in the order.
    def step(image, index):
        return jax.lax.switch(index, operations, image, amounts[index]), None

    return jax.lax.scan(step, image, jnp.argsort(numbers[len(recipe) :]))[0]


# --- neighbourhoods -------------------------------------------------------------------


def gaussian_blur(
    image: jax.Array,
    radius: jax.Array,
    *,
    taps: int | tuple[int, int] = 4,
    mode: str = "edge",
) -> jax.Array:
    """A Gaussian of standard deviation `radius` pixels; radius 0 changes nothing.

    Pillow approximates it by three box blurs: a few grey levels apart at sharp edges.

    Args:
      image: [H, W, 3] float.
      radius: standard deviation, pixels.
      taps: on either side, down and across; 4 suit a radius up to 1.2 (a Gaussian of it
        is below 0.4% beyond).
      mode: "edge" repeats the border like Pillow, "reflect" mirrors about it.
    """
    for axis, reach in enumerate((taps, taps) if isinstance(taps, int) else taps):
        offsets = jnp.arange(-reach, reach + 1)
        weights = jnp.exp(-0.5 * (offsets / jnp.maximum(radius, 1e-3)) ** 2)
        weights = weights / jnp.sum(weights)
        pad = [(0, 0)] * 3
        pad[axis] = (reach, reach)
        padded = jnp.pad(image, pad, mode=mode)
        size = image.shape[axis]
        image = sum(
            weights[i] * jax.lax.slice_in_dim(padded, i, i + size, axis=axis)
            for i in range(2 * reach + 1)
        )
    return image


def shadow_field(numbers: jax.Array, height: int, width: int) -> jax.Array:
    """A smooth random field [height, width] in [0, 255]: where it is large, it darkens.

    Two octaves of random grids, interpolated and spread over the full range, with edges
    of random sharpness; `numbers` are SHADOW_NUMBERS of them, uniform in [0, 1).
    Stands in for the original's photograph of shadows (TUFL).
    """
    coarse, fine = numbers[:12].reshape(3, 4), numbers[12:120].reshape(9, 12)
    field = jax.image.resize(coarse, (height, width), "cubic")
    field = field + 0.4 * jax.image.resize(fine, (height, width), "cubic")
    low, high = jnp.min(field), jnp.max(field)
    centred = 2 * (field - low) / jnp.maximum(high - low, 1e-6) - 1
    edge = 1 + 3 * numbers[120]
    return 127.5 * (1 + jnp.tanh(edge * centred) / jnp.tanh(edge))
