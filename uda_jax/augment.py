"""Colour augmentation on the device: keyed, batched, with static shapes.

What TUFL (Yan et al., T-ITS 2023, released code) does with Pillow on the host, as float
arithmetic on the 0..255 scale, clipped after each operation like Pillow, but never
rounded to integers in between (up to about a grey level apart; equalize rounds, because
it needs a histogram).  Each example has its own random numbers, keyed by its place in
the global batch.  Two deliberate differences from the original: its noise and blur
strengths are drawn once per run and process, ours once per image; and its shadows are
random crops of one photograph, ours a smooth random field of the same strength.
"""

import functools

import jax
import jax.numpy as jnp

from uda_jax.warp import affine_matrix, warp

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# Pillow's weights of R, G, B in its conversion to grey.
_GREY = (19595 / 65536, 38470 / 65536, 7471 / 65536)
# 1.2 is the largest blur radius in use: beyond 4 pixels a Gaussian of it is below 0.4%.
_BLUR_TAPS = 4

SHADOW_NUMBERS = 12 + 108 + 1  # two grids and the edges' sharpness


def normalize(image: jax.Array) -> jax.Array:
    """(image / 255 - mean) / std with ImageNet's numbers.

    Args:
      image: [..., 3] RGB, uint8 or float on the 0..255 scale.

    Returns:
      [..., 3] float32.
    """
    scaled = image.astype(jnp.float32) / 255
    return (scaled - jnp.array(MEAN, jnp.float32)) / jnp.array(STD, jnp.float32)


def denormalize(image: jax.Array) -> jax.Array:
    """The inverse of `normalize`, clipped to [0, 1]: float32 [..., 3] to look at."""
    return jnp.clip(image * jnp.array(STD) + jnp.array(MEAN), 0, 1)


# --- operations on one float image [H, W, 3] on the 0..255 scale ----------------------


def _blend(degenerate: jax.Array, image: jax.Array, factor: jax.Array) -> jax.Array:
    return jnp.clip(degenerate + factor * (image - degenerate), 0, 255)


def _grey(image: jax.Array) -> jax.Array:
    return jnp.sum(image * jnp.array(_GREY), axis=-1, keepdims=True)


def brightness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """factor * image, clipped to 0..255 (Pillow's ImageEnhance.Brightness)."""
    return jnp.clip(factor * image, 0, 255)


def contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blends with the image's mean grey level; factor 1 changes nothing."""
    return _blend(jnp.round(jnp.mean(_grey(image))), image, factor)


def saturation(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blends with the grey image (Pillow's ImageEnhance.Color)."""
    return _blend(_grey(image), image, factor)


def sharpness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blends with the image after [1 1 1; 1 5 1; 1 1 1] / 13, its border untouched."""
    height, width, _ = image.shape
    rows = image[:-2] + image[1:-1] + image[2:]
    box = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    smooth = (box + 4 * image[1:-1, 1:-1]) / 13
    inner = jnp.zeros((height, width, 1), bool).at[1:-1, 1:-1].set(True)
    padded = jnp.pad(smooth, ((1, 1), (1, 1), (0, 0)))
    return _blend(jnp.where(inner, padded, image), image, factor)


def gaussian_blur(image: jax.Array, radius: jax.Array) -> jax.Array:
    """A Gaussian of standard deviation `radius` pixels (at most 1.2), edges repeated.

    Pillow approximates it by three box blurs: a few grey levels apart at sharp edges.
    """
    offsets = jnp.arange(-_BLUR_TAPS, _BLUR_TAPS + 1)
    taps = jnp.exp(-0.5 * (offsets / jnp.maximum(radius, 1e-3)) ** 2)
    taps = taps / jnp.sum(taps)
    for axis in (0, 1):
        pad = [(0, 0)] * 3
        pad[axis] = (_BLUR_TAPS, _BLUR_TAPS)
        padded = jnp.pad(image, pad, mode="edge")
        size = image.shape[axis]
        image = sum(
            taps[i] * jax.lax.slice_in_dim(padded, i, i + size, axis=axis)
            for i in range(2 * _BLUR_TAPS + 1)
        )
    return image


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


def shadow_field(numbers: jax.Array, height: int, width: int) -> jax.Array:
    """A smooth random field [height, width] in [0, 255]: where it is large, it darkens.

    Two octaves of random grids, interpolated and spread over the full range, with edges
    of random sharpness; `numbers` are SHADOW_NUMBERS of them, uniform in [0, 1).
    Stands in for the original's photograph of shadows.
    """
    coarse, fine = numbers[:12].reshape(3, 4), numbers[12:120].reshape(9, 12)
    field = jax.image.resize(coarse, (height, width), "cubic")
    field = field + 0.4 * jax.image.resize(fine, (height, width), "cubic")
    low, high = jnp.min(field), jnp.max(field)
    centred = 2 * (field - low) / jnp.maximum(high - low, 1e-6) - 1
    edge = 1 + 3 * numbers[120]
    return 127.5 * (1 + jnp.tanh(edge * centred) / jnp.tanh(edge))


def _dirt(image, noise, numbers, intensity, deviation, radius):
    """Shadow of an intensity, noise of a standard deviation, blur of a radius."""
    field = shadow_field(numbers, *image.shape[:2])
    image = image * (1 - intensity * field[..., None] / 255)
    # Else XLA draws the noise again for every tap of the blur.
    image = jax.lax.optimization_barrier(jnp.clip(image + deviation * noise, 0, 255))
    return gaussian_blur(image, radius)


# --- whole views of a batch -----------------------------------------------------------


def _between(uniform, low, high, strength):
    # A strength below 1 moves both ends of the published range towards 1 (no change).
    return 1 + strength * (low + uniform * (high - low) - 1)


def _random_numbers(key, image, count):
    """Uniform [B, count + SHADOW_NUMBERS] and normal [B, H, W, 3].

    Two draws for the whole batch: the bits follow from the place in the global batch,
    on any number of devices, and a draw for each number takes seconds to compile.
    """
    number_key, noise_key = jax.random.split(key)
    shape = (image.shape[0], count + SHADOW_NUMBERS)
    uniform = jax.random.uniform(number_key, shape)
    return uniform, jax.random.normal(noise_key, image.shape)


def _source_colors(image, u, noise, strength):
    image = image.astype(jnp.float32)
    image = brightness(image, _between(u[0], 0.5, 1.5, strength))
    image = contrast(image, _between(u[1], 0.5, 1.5, strength))
    image = saturation(image, _between(u[2], 0.5, 1.5, strength))
    intensity, deviation = 0.01 + 0.29 * u[3], jnp.floor(5 * u[4])
    strengths = (strength * x for x in (intensity, deviation, 1.2 * u[5]))
    return _dirt(image, noise, u[6:], *strengths)


def _strong_colors(image, u, noise, strength):
    image = image.astype(jnp.float32)
    image = brightness(image, _between(u[0], 0.4, 1.2, strength))
    image = contrast(image, _between(u[1], 0.4, 2.0, strength))
    image = saturation(image, _between(u[2], 0.5, 2.0, strength))
    image = sharpness(image, _between(u[3], 0.4, 2.0, strength))
    intensity, deviation = 0.01 + 0.29 * u[4], 3 + jnp.floor(2 * u[5])
    strengths = (strength * x for x in (intensity, deviation, 1.2 * u[6]))
    image = _dirt(image, noise, u[8:], *strengths)
    return jnp.where(u[7] < 0.3 * strength, equalize(image), image)


def source_view(
    key: jax.Array, image: jax.Array, *, color_strength: float = 1.0
) -> jax.Array:
    """The labelled image's colour augmentation, then `normalize`; geometry unchanged.

    In this order: brightness, contrast and saturation by factors ~ U(0.5, 1.5); shadow
    by up to t ~ U(0.01, 0.3); Gaussian noise of sd in {0..4} grey levels; Gaussian blur
    of radius ~ U(0, 1.2) pixels.  (The original jitters before it crops, so that its
    contrast refers to the whole image's mean.)

    Args:
      key: one key for the batch.
      image: [B, H, W, 3] uint8.
      color_strength: in [0, 1]; scales every range towards no change, 0 is `normalize`.

    Returns:
      [B, H, W, 3] float32, normalised.
    """
    if color_strength == 0:
        return normalize(image)
    colors = functools.partial(_source_colors, strength=color_strength)
    uniform, noise = _random_numbers(key, image, 6)
    return normalize(jax.vmap(colors)(image, uniform, noise))


def strong_view(
    key: jax.Array,
    image: jax.Array,
    *,
    color_strength: float = 1.0,
    rotation: float = 30.0,
    shear: float = 5.0,
    scale: tuple[float, float] = (0.8, 1.2),
    flip_probability: float = 0.5,
) -> tuple[jax.Array, jax.Array]:
    """The unlabelled image's strong view, and where its pixels came from.

    In this order: factors of brightness ~ U(0.4, 1.2), contrast ~ U(0.4, 2), saturation
    ~ U(0.5, 2), sharpness ~ U(0.4, 2); shadow; noise of sd in {3, 4}; blur as in
    `source_view`; equalisation with probability 0.3; `normalize`; an affine warp about
    the centre (zeros outside, that is the mean colour).

    Args:
      key: one key for the batch.
      image: [B, H, W, 3] uint8.
      color_strength: in [0, 1]; scales the colour ranges towards no change.
      rotation: largest angle, degrees, either way.
      shear: largest shear, degrees, either way.
      scale: smallest and largest factor of the sampling grid.
      flip_probability: of a left-right flip.

    Returns:
      ([B, H, W, 3] float32 normalised, [B, 2, 3] float32 matrix): `warp(y, matrix)`
      brings anything aligned with `image` into the strong view's geometry.
    """
    color_key, affine_key = jax.random.split(key)
    if color_strength > 0:
        colors = functools.partial(_strong_colors, strength=color_strength)
        uniform, noise = _random_numbers(color_key, image, 8)
        image = jax.vmap(colors)(image, uniform, noise)

    u = jax.random.uniform(affine_key, (image.shape[0], 4))
    matrix = affine_matrix(
        rotation * (2 * u[:, 0] - 1),
        shear * (2 * u[:, 1] - 1),
        scale[0] + (scale[1] - scale[0]) * u[:, 2],
        u[:, 3] < flip_probability,
    )
    return warp(normalize(image), matrix), matrix
