"""The published recipes of colour augmentation, on the device, with static shapes.

A recipe is a list of `color`'s operations with the range of each.  A view takes a key
and a batch and returns the batch, normalised; geometry is the host's (`data.geometry`),
apart from TUFL's affine warp.  Each example has its own random numbers, keyed by its
place in the global batch.

Two deliberate differences from TUFL: its noise and blur strengths are drawn once per
run and process, ours once per image; and its shadows are random crops of one
photograph, ours a smooth random field of the same strength.
"""

import functools

import jax
import jax.numpy as jnp

from uda_jax import color
from uda_jax.warp import affine_matrix, warp

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# Each recipe's operations with their smallest and largest amounts, and the smallest and
# largest intensity of shadows, standard deviation of noise (in whole grey levels) and
# of blurs (in pixels).
TUFL_SOURCE = (
    (color.brightness, 0.5, 1.5),
    (color.contrast, 0.5, 1.5),
    (color.saturation, 0.5, 1.5),
)
TUFL_STRONG = (
    (color.brightness, 0.4, 1.2),
    (color.contrast, 0.4, 2.0),
    (color.saturation, 0.5, 2.0),
    (color.sharpness, 0.4, 2.0),
)
TUFL_SHADOW = (0.01, 0.3)
TUFL_SOURCE_NOISE = (0, 4)
TUFL_STRONG_NOISE = (3, 4)
TUFL_BLUR = (0.0, 1.2)
TUFL_EQUALIZE_PROBABILITY = 0.3
MAXSQUARE_BLUR = (0.0, 1.0)
MAXSQUARE_BLUR_PROBABILITY = 0.5
SS_ADA_JITTER = (
    (color.brightness, 0.5, 1.5),
    (color.contrast, 0.5, 1.5),
    (color.saturation, 0.5, 1.5),
    (color.hue, -0.25, 0.25),
)
SS_ADA_JITTER_PROBABILITY = 0.8
SS_ADA_GREY_PROBABILITY = 0.2
SS_ADA_BLUR = (0.1, 2.0)
SS_ADA_BLUR_PROBABILITY = 0.5
DAFORMER_JITTER = (
    (color.lightness, -0.2, 0.2),
    (color.brightness, 0.8, 1.2),  # kornia's contrast: a factor, without the mean
    (color.hsv_saturation, 0.8, 1.2),
    (color.hue, -0.2, 0.2),
)
DAFORMER_JITTER_PROBABILITY = 0.8
DAFORMER_BLUR = (0.15, 1.15)
DAFORMER_BLUR_PROBABILITY = 0.5


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


def _between(bounds, u):
    return bounds[0] + u * (bounds[1] - bounds[0])


# --- TUFL -----------------------------------------------------------------------------


def _dirt(image, noise, u, numbers, deviations, strength):
    """Shadow, noise, blur by three numbers in [0, 1); `numbers` shape the shadow."""
    low, high = deviations
    intensity = strength * _between(TUFL_SHADOW, u[0])
    deviation = strength * (low + jnp.floor((high - low + 1) * u[1]))
    radius = strength * _between(TUFL_BLUR, u[2])
    field = color.shadow_field(numbers, *image.shape[:2])
    image = image * (1 - intensity * field[..., None] / 255)
    # Else XLA draws the noise again for every tap of the blur.
    image = jax.lax.optimization_barrier(jnp.clip(image + deviation * noise, 0, 255))
    return color.gaussian_blur(image, radius)


def _enhanced(image, factors, u, strength):
    """The factors' operations in order; strength moves their ranges' ends towards 1."""
    image = image.astype(jnp.float32)
    for i, (operation, low, high) in enumerate(factors):
        factor = _between((low, high), u[i])
        image = operation(image, 1 + strength * (factor - 1))
    return image


def _random_numbers(key, image, count):
    """Uniform [B, count + color.SHADOW_NUMBERS] and normal [B, H, W, 3].

    Two draws for the whole batch: the bits follow from the place in the global batch,
    on any number of devices, and a draw for each number takes seconds to compile.
    """
    number_key, noise_key = jax.random.split(key)
    shape = (image.shape[0], count + color.SHADOW_NUMBERS)
    uniform = jax.random.uniform(number_key, shape)
    return uniform, jax.random.normal(noise_key, image.shape)


def _source_colors(image, u, noise, strength):
    image = _enhanced(image, TUFL_SOURCE, u, strength)
    return _dirt(image, noise, u[3:6], u[6:], TUFL_SOURCE_NOISE, strength)


def _strong_colors(image, u, noise, strength):
    image = _enhanced(image, TUFL_STRONG, u, strength)
    image = _dirt(image, noise, u[4:7], u[8:], TUFL_STRONG_NOISE, strength)
    equalized = u[7] < strength * TUFL_EQUALIZE_PROBABILITY
    return jnp.where(equalized, color.equalize(image), image)


def source_view(
    key: jax.Array, image: jax.Array, *, color_strength: float = 1.0
) -> jax.Array:
    """TUFL's view of the labelled image: colours, then `normalize`; geometry unchanged.

    In this order: brightness, contrast and saturation by factors ~ U(0.5, 1.5); shadow
    by up to t ~ U(0.01, 0.3); Gaussian noise of sd in {0..4} grey levels; Gaussian blur
    of radius ~ U(0, 1.2) pixels.  (The original jitters before it crops, so that its
    contrast refers to the whole image's mean.)

    Args:
      key: one key for the batch.
      image: [B, H, W, 3] uint8 or float, 0..255.
      color_strength: in [0, 1]; scales every range towards no change, 0 is `normalize`.

    Returns:
      [B, H, W, 3] float32, normalised.
    """
    if color_strength == 0:
        return normalize(image)
    colors = functools.partial(_source_colors, strength=color_strength)
    uniform, noise = _random_numbers(key, image, 6)
    return normalize(jax.vmap(colors)(image, uniform, noise))


def strong_colors(
    key: jax.Array, image: jax.Array, *, color_strength: float = 1.0
) -> jax.Array:
    """The colours of TUFL's strong view, also of its mixed images; then `normalize`.

    In this order: factors of brightness ~ U(0.4, 1.2), contrast ~ U(0.4, 2), saturation
    ~ U(0.5, 2), sharpness ~ U(0.4, 2); shadow; noise of sd in {3, 4}; blur as in
    `source_view`; equalisation with probability 0.3.  Shapes as `source_view`.
    """
    if color_strength == 0:
        return normalize(image)
    colors = functools.partial(_strong_colors, strength=color_strength)
    uniform, noise = _random_numbers(key, image, 8)
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
    """TUFL's strong view of the unlabelled image, and where its pixels came from.

    `strong_colors`, then an affine warp about the centre (zeros outside, that is the
    mean colour).

    Args:
      key: one key for the batch.
      image: [B, H, W, 3] uint8 or float, 0..255.
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
    view = strong_colors(color_key, image, color_strength=color_strength)
    u = jax.random.uniform(affine_key, (image.shape[0], 4))
    matrix = affine_matrix(
        rotation * (2 * u[:, 0] - 1),
        shear * (2 * u[:, 1] - 1),
        scale[0] + (scale[1] - scale[0]) * u[:, 2],
        u[:, 3] < flip_probability,
    )
    return warp(view, matrix), matrix


# --- MaxSquare, ADVENT ----------------------------------------------------------------


def maxsquare_view(key: jax.Array, image: jax.Array) -> jax.Array:
    """With probability 0.5 a Gaussian blur of radius ~ U(0, 1) pixels; `normalize`.

    Chen, Xue, Cai, "Domain adaptation for semantic segmentation with maximum squares
    loss" (ICCV 2019), released code: source and target alike.  Shapes as `source_view`.
    """
    u = jax.random.uniform(key, (len(image), 2))
    radius = _between(MAXSQUARE_BLUR, u[:, 1])
    radius = jnp.where(u[:, 0] < MAXSQUARE_BLUR_PROBABILITY, radius, 0)
    return normalize(jax.vmap(color.gaussian_blur)(image.astype(jnp.float32), radius))


def plain_view(key: jax.Array, image: jax.Array) -> jax.Array:
    """`normalize` alone (ADVENT); the key is not used."""
    return normalize(image)


# What a supervised method may see of the labelled image: (key, image) -> normalised.
SOURCE_VIEWS = {"none": plain_view, "tufl": source_view, "maxsquare": maxsquare_view}


# --- SS-ADA ---------------------------------------------------------------------------


def _ss_ada_colors(image, u):
    numbers = 2 * len(SS_ADA_JITTER)
    jittered = color.jitter(SS_ADA_JITTER, image, u[:numbers])
    jitter_u, grey_u, blur_u, radius_u = u[numbers:]
    image = jnp.where(jitter_u < SS_ADA_JITTER_PROBABILITY, jittered, image)
    image = jnp.where(grey_u < SS_ADA_GREY_PROBABILITY, color.grayscale(image), image)
    radius = _between(SS_ADA_BLUR, radius_u)
    radius = jnp.where(blur_u < SS_ADA_BLUR_PROBABILITY, radius, 0)
    return color.gaussian_blur(image, radius, taps=7)


def ss_ada_views(
    key: jax.Array, image: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The unlabelled image as it is, and two independent strong views; each normalised.

    A strong view: with probability 0.8 brightness, contrast and saturation by factors ~
    U(0.5, 1.5) and a turn of the hue ~ U(-0.25, 0.25), in random order; grey with
    probability 0.2; Gaussian blur of radius ~ U(0.1, 2) pixels with probability 0.5.
    `mixing.cutmix` comes after it.  SS-ADA (released code), from UniMatch.

    Args:
      key: one key for the batch.
      image: [B, H, W, 3] uint8.

    Returns:
      (weak, strong, strong), [B, H, W, 3] float32.
    """
    u = jax.random.uniform(key, (len(image), 2, 2 * len(SS_ADA_JITTER) + 4))
    two_views = jax.vmap(_ss_ada_colors, (None, 0))
    strong = normalize(jax.vmap(two_views)(image.astype(jnp.float32), u))
    return normalize(image), strong[:, 0], strong[:, 1]


# --- DAFormer -------------------------------------------------------------------------


def _daformer_jitter(image, u):
    pixels = 255 * (image * jnp.array(STD) + jnp.array(MEAN))
    jitter = functools.partial(color.jitter, DAFORMER_JITTER)
    return normalize(jax.vmap(jitter)(pixels, u))


def daformer_kernel_size(side: int) -> int:
    """The blur's taps along an image's side: ceil(side / 10), less 1 if it is even."""
    tenth = -(-side // 10)
    return tenth - 1 + tenth % 2


def _daformer_blur(image, deviation):
    # A Gaussian of at most 1.15 leaves 2e-11 of it beyond 7 pixels: in float32 the
    # other taps change nothing.
    taps = tuple(min(daformer_kernel_size(n) // 2, 7) for n in image.shape[1:3])
    blur = functools.partial(color.gaussian_blur, taps=taps, mode="reflect")
    return jax.vmap(blur)(image, deviation)


def daformer_strong(key: jax.Array, image: jax.Array) -> jax.Array:
    """DAFormer's strong transform, of the images that class mix made.

    With probability 0.8, for the whole batch at once, the jitter of kornia 0.5.8: shift
    of all channels ~ U(-0.2, 0.2) of the full scale, factor ~ U(0.8, 1.2), saturation
    in HSV ~ U(0.8, 1.2), turn of the hue ~ U(-0.2, 0.2), in random order.  Then with
    probability 0.5, at once too, a Gaussian blur of standard deviation ~ U(0.15, 1.15)
    pixels with reflected borders.  Amounts and order are each image's own.

    Hoyer, Dai, Van Gool, "DAFormer" (CVPR 2022), section 3.3 and released code.

    Args:
      key: one key for the batch.
      image: [B, H, W, 3] float32, normalised.

    Returns:
      [B, H, W, 3] float32, normalised.
    """
    batch_key, image_key = jax.random.split(key)
    jitter_u, blur_u = jax.random.uniform(batch_key, (2,))
    u = jax.random.uniform(image_key, (len(image), 2 * len(DAFORMER_JITTER) + 1))

    def unchanged(image, _):
        return image

    jittered = jitter_u > 1 - DAFORMER_JITTER_PROBABILITY
    image = jax.lax.cond(jittered, _daformer_jitter, unchanged, image, u[:, :-1])
    blurred = blur_u > 1 - DAFORMER_BLUR_PROBABILITY
    deviation = _between(DAFORMER_BLUR, u[:, -1])
    return jax.lax.cond(blurred, _daformer_blur, unchanged, image, deviation)
