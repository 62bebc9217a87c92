"""Colours against Pillow, warps against the original's numbers, and properties."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from uda_jax import augment
from uda_jax.warp import affine_matrix, warp

GOLDENS = Path(__file__).parent / "goldens" / "tufl_ssada.npz"


@pytest.fixture(scope="module")
def photo():
    """A smooth, coloured picture with edges and some noise: uint8 [40, 56, 3]."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :56]
    image = np.stack([3 * x + y, 255 - 4 * y, 128 + 60 * np.sin(x / 5)], -1)
    image[8:20, 10:30] = [200, 30, 60]
    return np.clip(image + rng.normal(0, 5, image.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def affine_golden():
    with np.load(GOLDENS) as file:
        keys = ("affine_params", "affine_A", "affine_out", "in_zb")
        return [file[f"tufl/{k}"] for k in keys]


def test_normalize_by_hand_and_back():
    image = np.array([[[0, 128, 255]]], np.uint8)
    out = augment.normalize(image)
    expected = [
        (0 - 0.485) / 0.229,
        (128 / 255 - 0.456) / 0.224,
        (1 - 0.406) / 0.225,
    ]
    np.testing.assert_allclose(out[0, 0], expected, rtol=1e-6)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(augment.denormalize(out), image / 255, atol=1e-6)


@pytest.mark.parametrize("factor", [0.4, 1.0, 1.7])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (augment.brightness, ImageEnhance.Brightness),
        (augment.contrast, ImageEnhance.Contrast),
        (augment.saturation, ImageEnhance.Color),
        (augment.sharpness, ImageEnhance.Sharpness),
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
        out = jax.jit(augment.equalize)(image.astype(np.float32))
        np.testing.assert_array_equal(out, ImageOps.equalize(Image.fromarray(image)))


@pytest.mark.parametrize("radius", [0.0, 0.5, 1.2])
def test_blur_is_near_pillows(photo, radius):
    expected = Image.fromarray(photo).filter(ImageFilter.GaussianBlur(radius))
    out = augment.gaussian_blur(photo.astype(np.float32), radius)
    difference = np.abs(out - np.asarray(expected, np.float32))
    assert difference.max() < 8 and difference.mean() < 1


def test_blur_keeps_a_constant_image_and_the_mean():
    flat = jnp.full((8, 9, 3), 100.0)
    np.testing.assert_allclose(augment.gaussian_blur(flat, 1.0), flat, rtol=1e-6)
    dot = jnp.zeros((15, 15, 3)).at[7, 7].set(255.0)
    np.testing.assert_allclose(augment.gaussian_blur(dot, 1.2).sum(), 765, rtol=1e-4)


def test_shadow_field_is_smooth_and_in_range():
    numbers = np.random.default_rng(0).random((2, augment.SHADOW_NUMBERS))
    field, other = (augment.shadow_field(n, 64, 96) for n in numbers)
    assert field.shape == (64, 96)
    assert field.min() >= 0 and field.max() <= 255 and field.max() - field.min() > 200
    assert np.abs(np.diff(field, axis=0)).mean() < 10
    assert np.abs(field - other).mean() > 10


def test_affine_matrix_equals_the_original(affine_golden):
    rotation, shear, scale, flip = affine_golden[0].T
    ours = affine_matrix(rotation, shear, scale, flip > 0)
    np.testing.assert_allclose(ours, affine_golden[1], atol=1e-6)


def test_warp_equals_the_original(affine_golden):
    _, matrix, expected, logits = affine_golden
    ours = jax.jit(warp)(np.moveaxis(logits, 1, -1), matrix)
    np.testing.assert_allclose(ours, np.moveaxis(expected, 1, -1), atol=2e-5)


def test_identity_and_flip_are_exact():
    x = np.random.default_rng(0).normal(size=(2, 6, 9, 3)).astype(np.float32)
    zero, one = jnp.zeros(2), jnp.ones(2)
    same = affine_matrix(zero, zero, one, jnp.array([False, True]))
    out = jax.jit(warp)(x, same)
    np.testing.assert_allclose(out[0], x[0], atol=1e-5)
    np.testing.assert_allclose(out[1], x[1, :, ::-1], atol=1e-5)


def test_warp_outside_is_zero():
    matrix = jnp.array([[[1.0, 0, 5], [0, 1, 0]], [[3.0, 0, 0], [0, 3, 0]]])
    out = jax.jit(warp)(jnp.ones((2, 6, 8, 1)), matrix)
    np.testing.assert_array_equal(out[0], 0)
    assert out[1, 0].max() == 0 and out[1, 3, 4] == 1


def test_warp_gradient_is_its_transpose():
    # <warp(x), g> = <x, gradient>: the warp is linear in x.
    keys = jax.random.split(jax.random.key(0))
    x, g = (jax.random.normal(k, (2, 7, 10, 3)) for k in keys)
    matrix = affine_matrix(
        jnp.array([20.0, -30]),
        jnp.array([5.0, -3]),
        jnp.array([0.8, 1.2]),
        jnp.array([True, False]),
    )
    y, transpose = jax.vjp(lambda x: jax.jit(warp)(x, matrix), x)
    np.testing.assert_allclose(jnp.sum(y * g), jnp.sum(x * transpose(g)[0]), rtol=1e-4)


def test_views_have_shape_range_and_are_keyed(photo):
    batch = jnp.stack([photo, photo])
    key = jax.random.key(3)
    source = jax.jit(augment.source_view)
    strong = jax.jit(augment.strong_view)
    view, (moved, matrix) = source(key, batch), strong(key, batch)
    assert view.shape == moved.shape == batch.shape and matrix.shape == (2, 2, 3)
    assert view.dtype == moved.dtype == matrix.dtype == jnp.float32
    for out in (view, moved):
        assert np.all(np.isfinite(out))
        assert np.all(out > -2.2) and np.all(out < 2.7)
        # Each example has its own randomness, although the two images are the same.
        assert np.abs(out[0] - out[1]).mean() > 0.05
    np.testing.assert_array_equal(view, source(key, batch))
    assert np.abs(view - source(jax.random.key(4), batch)).mean() > 0.05
    # An example's randomness depends on its place alone, not on the batch's size.
    np.testing.assert_allclose(source(key, batch[:1])[0], view[0], atol=1e-5)


def test_strength_zero_changes_no_colour(photo):
    batch, key = photo[None], jax.random.key(0)
    plain = augment.normalize(batch)
    np.testing.assert_array_equal(
        augment.source_view(key, batch, color_strength=0), plain
    )
    still = dict(rotation=0.0, shear=0.0, scale=(1.0, 1.0), flip_probability=0.0)
    moved, _ = augment.strong_view(key, batch, color_strength=0, **still)
    np.testing.assert_allclose(moved, plain, atol=1e-4)


def test_matrix_stays_in_the_published_ranges():
    image = jnp.zeros((64, 4, 4, 3), jnp.uint8)
    _, matrix = jax.jit(augment.strong_view)(jax.random.key(0), image)
    scale = np.hypot(matrix[:, 0, 0], matrix[:, 1, 0])
    assert scale.min() >= 0.8 and scale.max() <= 1.2 and np.ptp(scale) > 0.2
    angle = np.degrees(np.arctan2(matrix[:, 1, 0], np.abs(matrix[:, 0, 0])))
    assert np.abs(angle).max() <= 30.001 and np.ptp(angle) > 40
    flipped = np.mean(matrix[:, 0, 0] < 0)
    assert 0.2 < flipped < 0.8
    np.testing.assert_array_equal(matrix[:, :, 2], 0)
