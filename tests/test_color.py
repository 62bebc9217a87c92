"""Colour operations against Pillow, colorsys and DAFormer's; the recipes' numbers."""

import colorsys
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from uda_jax import augment, color

GOLDENS = Path(__file__).parent / "goldens" / "daformer.json"


@pytest.fixture(scope="module")
def photo():
    """A smooth, coloured picture with edges and some noise: uint8 [40, 56, 3]."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :56]
    image = np.stack([3 * x + y, 255 - 4 * y, 128 + 60 * np.sin(x / 5)], -1)
    image[8:20, 10:30] = [200, 30, 60]
    return np.clip(image + rng.normal(0, 5, image.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("factor", [0.4, 1.0, 1.7])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (color.brightness, ImageEnhance.Brightness),
        (color.contrast, ImageEnhance.Contrast),
        (color.saturation, ImageEnhance.Color),
        (color.sharpness, ImageEnhance.Sharpness),
    ],
    ids=["brightness", "contrast", "saturation", "sharpness"],
)
def test_enhancers_equal_pillow(photo, ours, theirs, factor):
    expected = np.asarray(theirs(Image.fromarray(photo)).enhance(factor), np.float32)
    out = jax.jit(ours)(photo.astype(np.float32), factor)
    # Pillow truncates the blend and rounds its grey or smooth image: up to 1 + factor.
    assert np.abs(out - expected).max() <= 1 + abs(1 - factor) + 1e-3
    assert np.abs(out - expected).mean() < 0.8


def test_equalize_equals_pillow_exactly(photo):
    dull = (photo // 3 + 40).astype(np.uint8)
    flat = np.full_like(photo, 77)
    few = photo[:10, :12]  # 120 pixels: Pillow's step is 0, nothing changes
    for image in (photo, dull, flat, few):
        out = jax.jit(color.equalize)(image.astype(np.float32))
        np.testing.assert_array_equal(out, ImageOps.equalize(Image.fromarray(image)))


@pytest.mark.parametrize("radius", [0.0, 0.5, 1.2])
def test_blur_is_near_pillows(photo, radius):
    expected = Image.fromarray(photo).filter(ImageFilter.GaussianBlur(radius))
    out = jax.jit(color.gaussian_blur)(photo.astype(np.float32), radius)
    difference = np.abs(out - np.asarray(expected, np.float32))
    assert difference.max() < 8 and difference.mean() < 1


def test_blur_keeps_a_constant_image_and_the_mean():
    flat = jnp.full((8, 9, 3), 100.0)
    blur = jax.jit(color.gaussian_blur)
    np.testing.assert_allclose(blur(flat, 1.0), flat, rtol=1e-6)
    dot = jnp.zeros((15, 15, 3)).at[7, 7].set(255.0)
    np.testing.assert_allclose(blur(dot, 1.2).sum(), 765, rtol=1e-4)


def test_shadow_field_is_smooth_and_in_range():
    numbers = np.random.default_rng(0).random((2, color.SHADOW_NUMBERS))
    shadow_field = jax.jit(color.shadow_field, static_argnums=(1, 2))
    field, other = (shadow_field(n, 64, 96) for n in numbers)
    assert field.shape == (64, 96)
    assert field.min() >= 0 and field.max() <= 255 and field.max() - field.min() > 200
    assert np.abs(np.diff(field, axis=0)).mean() < 10
    assert np.abs(field - other).mean() > 10


def test_grayscale_equals_pillow(photo):
    expected = np.asarray(Image.fromarray(photo).convert("L"), np.float32)
    out = color.grayscale(photo.astype(np.float32))
    assert np.abs(out - expected[..., None]).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("turn", [-0.25, -0.1, 0.05, 0.25])
def test_hue_is_near_torchvisions(photo, turn):
    # In Pillow's HSV of bytes: the turn in whole steps of 1/255.
    hue, saturation, value = Image.fromarray(photo).convert("HSV").split()
    steps = int(turn * 255)
    shifted = (np.asarray(hue, int) + steps) % 256
    bands = (Image.fromarray(shifted.astype(np.uint8)), saturation, value)
    expected = np.asarray(Image.merge("HSV", bands).convert("RGB"), np.float32)
    out = jax.jit(color.hue)(photo.astype(np.float32), steps / 255)
    # A step is 6 levels at full saturation: one is lost where the hue is made a byte,
    # another where the byte wraps at 256; and a level each for saturation and value.
    difference = np.abs(out - expected)
    assert difference.max() < 6 + 6 + 2 and difference.mean() < 3


def test_hsv_equals_colorsys_ties_grey_and_black_included(photo):
    special = [[0, 0, 0], [255] * 3, [90, 90, 90], [9, 9, 0], [0, 9, 9], [9, 0, 9]]
    pixels = np.array([*special, *photo[::7, ::9].reshape(-1, 3)], np.float32)
    expected = np.array([colorsys.rgb_to_hsv(*(p / 255.0)) for p in pixels])
    to_hsv, from_hsv = jax.jit(color.to_hsv), jax.jit(color.from_hsv)
    out = np.array(to_hsv(pixels[None])[0]) / [1, 1, 255]
    np.testing.assert_allclose(out[..., 2], expected[..., 2], atol=1e-6)
    np.testing.assert_allclose(out[..., 1], expected[..., 1], atol=1e-3)
    # 0 and 1 are the same hue.
    away = np.abs(out[..., 0] - expected[..., 0])
    assert np.minimum(away, 1 - away).max() < 1e-6
    for turns in (-2, 0, 1):
        hsv = np.array(to_hsv(pixels[None])) + np.float32([turns, 0, 0])
        np.testing.assert_allclose(from_hsv(hsv)[0], pixels, atol=2e-3)


def test_neutral_amounts_change_nothing(photo):
    ones = (color.brightness, color.contrast, color.saturation, color.sharpness)
    zeros = (color.hue, color.lightness, color.gaussian_blur)
    neutral = {
        **dict.fromkeys((*ones, color.hsv_saturation), 1.0),
        **dict.fromkeys(zeros, 0.0),
    }
    image = photo.astype(np.float32)
    apply = jax.jit(lambda image: [op(image, x) for op, x in neutral.items()])
    for out, operation in zip(apply(image), neutral, strict=True):
        np.testing.assert_allclose(out, image, atol=1e-3, err_msg=operation.__name__)


def test_jitter_draws_the_order_of_each_image_anew(photo):
    recipe = ((color.brightness, 0.5, 0.5), (color.lightness, 0.2, 0.2))
    image = photo.astype(np.float32)
    numbers = np.random.default_rng(0).random((16, 4)).astype(np.float32)
    jitter = jax.jit(jax.vmap(lambda u: color.jitter(recipe, image, u)))
    first, last = image * 0.5 + 51, np.clip(image + 51, 0, 255) * 0.5
    for out, u in zip(jitter(numbers), numbers, strict=True):
        expected = first if u[2] < u[3] else last
        np.testing.assert_allclose(out, expected, rtol=1e-5)
    assert 3 < np.sum(numbers[:, 2] < numbers[:, 3]) < 13


# --- DAFormer's numbers ---------------------------------------------------------------


@pytest.fixture(scope="module")
def golden():
    return json.loads(GOLDENS.read_text())


def assert_equals(image, golden):
    """The numbers of a channels-first image against one that was summed up."""
    pixels = np.moveaxis(np.asarray(image, np.float64), -1, 0)
    assert list(pixels.shape) == golden["shape"][1:]
    ends = [*pixels.flat[:3], pixels.flat[-1]]
    np.testing.assert_allclose(ends, [*golden["first"], golden["last"]], atol=1e-5)
    sums = [pixels.mean(), pixels.std(), np.abs(pixels).mean()]
    expected = golden["mean"], golden["std"], golden["abssum"] / pixels.size
    np.testing.assert_allclose(sums, expected, atol=1e-5)


def closed_form(height, width):
    """The goldens' image, 0..255: ((sin + cos) + 2) / 4 of place and channel."""
    channel = np.arange(3)
    rows = np.sin(0.05 * np.arange(1, height + 1)[:, None, None] * (channel + 1))
    columns = np.cos(0.03 * np.arange(1, width + 1)[:, None] * (channel + 2))
    return ((rows + columns + 2) / 4 * 255).astype(np.float32)


def test_kornias_operations_equal_the_original(golden):
    cases = {
        "brightness+0.1": (color.lightness, 0.1),
        "contrast1.15": (color.brightness, 1.15),
        "saturation0.85": (color.hsv_saturation, 0.85),
        "hue-0.17turn": (color.hue, -0.17),
        "hue+0.1turn": (color.hue, 0.1),
    }
    image = closed_form(20, 30)
    assert_equals(image / 255, golden["denorm"])
    apply = jax.jit(lambda image: [op(image, x) for op, x in cases.values()])
    for key, out in zip(cases, apply(image), strict=True):
        assert_equals(out / 255, golden[key])


def test_kornias_jitter_equals_the_original(golden):
    # Saturation 1.1, shift -0.05, hue 0.3 rad, factor 0.9, as numbers in [0, 1).
    wanted = np.array([-0.05, 0.9, 1.1, 0.3 / (2 * np.pi)])
    low, high = np.array([row[1:] for row in augment.DAFORMER_JITTER]).T
    numbers = np.array([*((wanted - low) / (high - low)), 0.2, 0.4, 0.1, 0.3])
    jitter = jax.jit(lambda x, u: color.jitter(augment.DAFORMER_JITTER, x, u))
    out = jitter(closed_form(20, 30), numbers.astype(np.float32))
    assert_equals(out / 255, golden["jitter_order_2_0_3_1"])


# --- the published numbers ------------------------------------------------------------

# Of TUFL and SS-ADA in the order of their operations; DAFormer's by kornia 0.5.8, where
# brightness adds b - 1, contrast multiplies, and the hue turns by parts of the circle.
JITTERS = {
    "TUFL_SOURCE": [
        ("brightness", 0.5, 1.5),
        ("contrast", 0.5, 1.5),
        ("saturation", 0.5, 1.5),
    ],
    "TUFL_STRONG": [
        ("brightness", 0.4, 1.2),
        ("contrast", 0.4, 2.0),
        ("saturation", 0.5, 2.0),
        ("sharpness", 0.4, 2.0),
    ],
    "SS_ADA_JITTER": [
        ("brightness", 0.5, 1.5),
        ("contrast", 0.5, 1.5),
        ("saturation", 0.5, 1.5),
        ("hue", -0.25, 0.25),
    ],
    "DAFORMER_JITTER": [
        ("lightness", -0.2, 0.2),
        ("brightness", 0.8, 1.2),
        ("hsv_saturation", 0.8, 1.2),
        ("hue", -0.2, 0.2),
    ],
}
NUMBERS = {
    "TUFL_SHADOW": (0.01, 0.30),
    "TUFL_SOURCE_NOISE": (0, 4),
    "TUFL_STRONG_NOISE": (3, 4),
    "TUFL_BLUR": (0, 1.2),
    "TUFL_EQUALIZE_PROBABILITY": 0.3,
    "MAXSQUARE_BLUR": (0, 1),
    "MAXSQUARE_BLUR_PROBABILITY": 0.5,
    "SS_ADA_JITTER_PROBABILITY": 0.8,
    "SS_ADA_GREY_PROBABILITY": 0.2,
    "SS_ADA_BLUR": (0.1, 2),
    "SS_ADA_BLUR_PROBABILITY": 0.5,
    "DAFORMER_JITTER_PROBABILITY": 0.8,
    "DAFORMER_BLUR": (0.15, 1.15),
    "DAFORMER_BLUR_PROBABILITY": 0.5,
}


def test_recipes_have_the_published_numbers():
    recipes = {
        name: value
        for name, value in vars(augment).items()
        if name.startswith(("TUFL_", "MAXSQUARE_", "SS_ADA_", "DAFORMER_"))
    }
    jitters = {k: recipes.pop(k) for k in JITTERS}
    assert recipes == NUMBERS  # and there are no others
    for name, recipe in jitters.items():
        assert [(op.__name__, *ends) for op, *ends in recipe] == JITTERS[name]


# The numbers in [0, 1) for which the factors are 1 and change nothing.
STILL = {"source": [0.5] * 3, "strong": [0.75, 0.375, 1 / 3, 0.375]}


@pytest.mark.parametrize(
    ("name", "least", "largest"), [("source", 0, 4), ("strong", 3, 4)]
)
def test_tufls_shadow_noise_and_blur_by_hand(name, least, largest):
    # With noise of 1 everywhere its deviation is what a flat image gains; the shadow
    # goes from none to all of its intensity; a dot shows the radius of the blur.
    shape = np.random.default_rng(1).random(color.SHADOW_NUMBERS)
    end = 1 - 2**-20
    dirt = [(0, 0, 0), (end, 0, 0), (0, end, 0), (0, 0, end)]
    u = [[*STILL[name], *d, *shape] for d in dirt]
    if name == "strong":
        u = [[*row[:7], 0.301, *row[7:]] for row in u]
        u.append([*u[0][:7], 0.299, *shape])
    u = np.array(u, np.float32)
    dot = np.full((24, 24, 3), 100, np.float32)
    dot[12, 12] = 200
    function = getattr(augment, f"_{name}_colors")
    colors = jax.jit(jax.vmap(functools.partial(function, strength=1.0), (None, 0, 0)))
    noise = np.ones((len(u), 24, 24, 3), np.float32)
    plain, dark, noisy, soft, *equalized = np.array(colors(dot, u, noise))
    away = np.ones((24, 24), bool)
    away[11:14, 11:14] = False
    for image, shadow, deviation in (
        (plain, 0.01, least),
        (dark, 0.3, least),
        (noisy, 0.01, largest),
    ):
        assert image[away].max() == pytest.approx(100 + deviation, abs=0.02)
        assert image[away].min() == pytest.approx(
            100 * (1 - shadow) + deviation, abs=0.02
        )
    rise = soft[12, 12:14] - soft[12, 18]
    expected = np.exp(-0.5 / 1.2**2)
    np.testing.assert_allclose(rise[1] / rise[0], expected, atol=0.02)
    if name == "strong":  # with probability 0.3, to the full range
        assert np.ptp(equalized[0]) > 250
