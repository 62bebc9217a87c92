"""Views: ranges, shares, keys; warps and blurs against the originals' numbers."""

import inspect
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uda_jax import augment, color
from uda_jax.warp import affine_matrix, warp

GOLDENS = Path(__file__).parent / "goldens"


@pytest.fixture(scope="module")
def photo():
    """Colours from dark to bright: uint8 [40, 56, 3]."""
    y, x = np.mgrid[:40, :56]
    image = [3 * x + y, 255 - 4 * y, 128 + 60 * np.sin(x / 5)]
    return np.stack(image, -1).astype(np.uint8)


@pytest.fixture(scope="module")
def affine_golden():
    with np.load(GOLDENS / "tufl_ssada.npz") as file:
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


def test_strong_colors_are_those_of_the_strong_view_and_take_floats(photo):
    # A mixed image is float; so is one in another's style.
    batch, key = jnp.stack([photo, photo]), jax.random.key(3)
    moved, matrix = jax.jit(augment.strong_view)(key, batch)
    floats = batch.astype(jnp.float32)
    alone = jax.jit(augment.strong_colors)(jax.random.split(key)[0], floats)
    assert alone.shape == batch.shape and alone.dtype == jnp.float32
    np.testing.assert_allclose(jax.jit(warp)(alone, matrix), moved, atol=1e-4)
    plain = augment.strong_colors(key, batch, color_strength=0)
    np.testing.assert_array_equal(plain, augment.normalize(batch))


def test_the_source_view_takes_floats(photo):
    batch, key = jnp.stack([photo, photo]), jax.random.key(3)
    view = jax.jit(augment.source_view)
    of_floats = view(key, batch.astype(jnp.float32))
    np.testing.assert_allclose(of_floats, view(key, batch), atol=1e-5)


def test_matrix_stays_in_the_published_ranges():
    options = inspect.signature(augment.strong_view).parameters
    published = dict(rotation=30, shear=5, scale=(0.8, 1.2), flip_probability=0.5)
    assert published == {name: options[name].default for name in published}
    image = jnp.zeros((64, 4, 4, 3), jnp.uint8)
    _, matrix = jax.jit(augment.strong_view)(jax.random.key(0), image)
    scale = np.hypot(matrix[:, 0, 0], matrix[:, 1, 0])
    assert scale.min() >= 0.8 and scale.max() <= 1.2 and np.ptp(scale) > 0.2
    angle = np.degrees(np.arctan2(matrix[:, 1, 0], np.abs(matrix[:, 0, 0])))
    assert np.abs(angle).max() <= 30.001 and np.ptp(angle) > 40
    flipped = np.mean(matrix[:, 0, 0] < 0)
    assert 0.2 < flipped < 0.8
    np.testing.assert_array_equal(matrix[:, :, 2], 0)


# --- the other recipes ----------------------------------------------------------------

BACKGROUND, DOT = (150, 90, 60), (60, 160, 150)


NORMALIZE = jax.jit(augment.normalize)


def dots(count):
    """One colour, and in the middle a pixel of another: uint8 [count, 24, 24, 3]."""
    image = np.full((count, 24, 24, 3), BACKGROUND, np.uint8)
    image[:, 12, 12] = DOT
    return image


def seen(view):
    """Of each image of `dots`: other colours?  grey?  blurred?"""
    pixels = 255 * (np.array(view) * augment.STD + augment.MEAN)
    corner, neighbour = pixels[:, 0, 0], pixels[:, 12, 13]
    other = np.abs(corner - BACKGROUND).max(1) > 0.01
    return other, np.ptp(corner, axis=1) < 0.01, np.any(neighbour != corner, axis=1)


def assert_share(happened, probability):
    """The share of independent draws, within three and a half standard deviations."""
    deviation = np.sqrt(probability * (1 - probability) / len(happened))
    assert abs(np.mean(happened) - probability) < 3.5 * deviation


def assert_largest_radius(views, largest):
    """The blurred dots' standard deviations go up to the largest and no further."""
    views = np.concatenate(views, dtype=np.float64)
    middle, neighbour = (views[:, 12, x] - views[:, 0, 0] for x in (12, 13))
    # A Gaussian's neighbours have exp(-0.5 / radius**2) of the middle, whatever became
    # of the colours before: in the channel that differs most, where it is blurred.
    best = np.abs(middle).argmax(1)[:, None]
    middle, neighbour = (np.take_along_axis(x, best, 1) for x in (middle, neighbour))
    ratio = (neighbour / middle)[neighbour / middle > 0.01]
    radii = np.sqrt(-0.5 / np.log(ratio))
    assert len(radii) > 50
    assert 0.95 * largest < radii.max() <= largest + 1e-3


@pytest.mark.parametrize("name", ["none", "maxsquare"])
def test_a_source_view_is_keyed_by_the_place(photo, name):
    batch, key = np.stack([photo] * 4), jax.random.key(8)
    view = jax.jit(augment.SOURCE_VIEWS[name])
    out = view(key, batch)
    assert out.shape == batch.shape and out.dtype == jnp.float32
    np.testing.assert_allclose(view(key, batch[:1])[0], out[0], atol=1e-5)
    changed = np.abs(out - NORMALIZE(batch)).max()
    assert changed < 1e-6 if name == "none" else changed > 0.01


def test_maxsquare_blurs_half_of_the_images():
    view = jax.jit(augment.maxsquare_view)(jax.random.key(0), dots(512))
    other, _, blurred = seen(view)
    assert not other.any()
    # A radius below about 0.18 leaves the neighbours as they are, in float32.
    assert_share(blurred, 0.5 * 0.82)
    assert_largest_radius([view], 1)


def test_ss_ada_views_have_the_published_probabilities():
    images, key = dots(256), jax.random.key(1)
    views = jax.jit(augment.ss_ada_views)
    weak, *strong = views(key, images)
    np.testing.assert_allclose(weak, NORMALIZE(images), atol=1e-6)
    for view in strong:
        other, grey, blurred = seen(view)
        assert_share(other, 1 - 0.2 * 0.8)
        assert_share(grey, 0.2)
        assert_share(blurred, 0.5 * 0.96)
    assert_largest_radius(strong, 2)
    # The two views, and the recipe's three parts, are independent.
    for first, second in zip(seen(strong[0]), seen(strong[1]), strict=True):
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.2
    assert abs(np.corrcoef(grey, blurred)[0, 1]) < 0.2
    for view, alone in zip(strong, views(key, images[:1])[1:], strict=True):
        assert view.dtype == jnp.float32
        assert view.min() > -2.2 and view.max() < 2.7
        # An example's randomness depends on its place alone.
        np.testing.assert_allclose(alone[0], view[0], atol=1e-5)


def test_daformer_jitters_and_blurs_whole_batches():
    image = NORMALIZE(dots(2))
    strong = jax.jit(augment.daformer_strong)
    views, jittered, blurred = [], [], []
    for seed in range(128):
        out = strong(jax.random.key(seed), image)
        other, _, spread = seen(out)
        # Each image has amounts of its own.
        assert np.any(out[0] != out[1]) == (other.any() or spread.any())
        views.append(out)
        jittered.append(other)
        blurred.append(spread)
    assert_share(np.any(jittered, 1), 0.8)
    assert_share(np.any(blurred, 1), 0.5)
    assert_largest_radius(views, 1.15)
    # Both images or none; but a deviation below about 0.18 leaves the neighbours alone.
    assert np.all(np.any(jittered, 1) == np.all(jittered, 1))
    assert np.mean(np.any(blurred, 1) == np.all(blurred, 1)) > 0.95
    alone = strong(jax.random.key(0), image[:1])
    np.testing.assert_allclose(alone[0], strong(jax.random.key(0), image)[0], atol=1e-5)


def test_daformer_blur_equals_the_original():
    golden = json.loads((GOLDENS / "daformer.json").read_text())
    for side, size in golden["ksizes"].items():
        assert augment.daformer_kernel_size(int(side)) == size
    for (height, width), deviation, key in [
        ((20, 30), 0.8, "blur_sigma0.8"),
        ((96, 64), 1.0, "blur96x64_sigma1.0"),
    ]:
        channel = np.arange(3)
        y = np.sin(0.05 * np.arange(1, height + 1)[:, None, None] * (channel + 1))
        x = np.cos(0.03 * np.arange(1, width + 1)[:, None] * (channel + 2))
        image = augment.normalize(((x + y + 2) / 4 * 255).astype(np.float32))
        sizes = [augment.daformer_kernel_size(side) for side in (height, width)]
        assert sizes == golden["ksize_" + f"{height}x{width}"]
        blur = jax.jit(augment._daformer_blur)
        out = blur(image[None], jnp.array([deviation]))[0]
        pixels, expected = np.moveaxis(np.array(out, np.float64), -1, 0), golden[key]
        ends = [*pixels.flat[:3], pixels.flat[-1]]
        np.testing.assert_allclose(
            [*ends, pixels.mean(), pixels.std(), np.abs(pixels).mean()],
            [
                *expected["first"],
                expected["last"],
                expected["mean"],
                expected["std"],
                expected["abssum"] / pixels.size,
            ],
            atol=1e-5,
        )


def test_daformer_blur_needs_no_further_taps():
    # 24 pixels: a kernel of 3; 512: of 51, of which 15 taps are kept.
    image = np.random.default_rng(0).normal(size=(1, 24, 512, 3)).astype(np.float32)
    kept = jax.jit(augment._daformer_blur)(image, jnp.array([1.15]))[0]
    options = dict(taps=(1, 25), mode="reflect")
    full = jax.jit(lambda x: color.gaussian_blur(x, 1.15, **options))(image[0])
    np.testing.assert_allclose(kept, full, rtol=0, atol=3e-7)
