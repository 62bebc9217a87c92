"""Filters against their formulas, and what they must not do to labels."""

import cv2
import numpy as np
import pytest

from uda_jax.data.resizing import FILTERS, resize, resize_image, resize_label

SIZES = [(20, 30), (80, 120), (55, 79), (30, 90), (17, 61)]


def noise(height=40, width=60, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    return {"image": image, "label": rng.integers(0, 19, (height, width), np.uint8)}


def cubic(x):
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def triangle(x):
    return np.maximum(1 - np.abs(x), 0)


def matrix(n_in, n_out, kernel, grows):
    """[n_out, n_in] weights; a kernel that grows is as wide as an output pixel."""
    scale = n_in / n_out
    width = max(scale, 1) if grows else 1
    centres = (np.arange(n_out)[:, None] + 0.5) * scale
    distance = (np.arange(n_in) + 0.5 - centres) / width
    if not grows:  # pixels outside are copies of the outermost
        distance = np.clip(centres - 0.5, 0, n_in - 1) - np.arange(n_in)
    weights = kernel(distance)
    return weights / weights.sum(1, keepdims=True)


# Both sides grow or both shrink: elsewhere Pillow's versions differ in which side comes
# first, and values out of [0, 255] are cut off in between.
@pytest.mark.parametrize("size", [(20, 30), (80, 120), (55, 79), (17, 43), (31, 22)])
@pytest.mark.parametrize(
    ("how", "kernel", "grows"),
    [
        ("pillow_bicubic", cubic, True),
        ("pillow_bilinear", triangle, True),
        ("opencv_bilinear", triangle, False),
    ],
)
def test_images_follow_the_formula(size, how, kernel, grows):
    image = noise()["image"]
    rows = matrix(image.shape[0], size[0], kernel, grows)
    columns = matrix(image.shape[1], size[1], kernel, grows)
    across = np.clip(np.einsum("xw,hwc->hxc", columns, image), 0, 255)
    expected = np.clip(np.einsum("yh,hxc->yxc", rows, across), 0, 255)
    out = resize_image(image, size, how)
    assert out.shape == (*size, 3) and out.dtype == np.uint8
    assert np.abs(out - expected).max() <= 1.1  # rounded after each side


def test_area_averages_what_shrinks_and_interpolates_what_grows():
    stripes = np.zeros((8, 8, 3), np.uint8)
    stripes[:, ::2] = 200
    assert np.all(resize_image(stripes, (4, 4), "area") == 100)
    image = noise()["image"]
    for size in ((80, 120), (20, 90)):
        expected = resize_image(image, size, "opencv_bilinear")
        np.testing.assert_array_equal(resize_image(image, size, "area"), expected)


@pytest.mark.parametrize("size", [*SIZES, (13, 7)])
@pytest.mark.parametrize("how", FILTERS)
def test_labels_take_the_nearest_pixel(size, how):
    for axis in (0, 1):
        label = np.indices((40, 60))[axis].astype(np.uint8)  # says where it was
        out = resize_label(label, size, how)
        assert out.shape == size and out.dtype == np.uint8
        taken = out.T[0] if axis == 0 else out[0]
        assert np.all(out == (taken[:, None] if axis == 0 else taken))
        old, new = label.shape[axis], size[axis]
        if how == "opencv_bilinear":
            np.testing.assert_array_equal(taken, np.arange(new) * old // new)
        else:  # between two pixels, either is nearest
            centres = (np.arange(new) + 0.5) * old / new
            assert np.abs(taken + 0.5 - centres).max() <= 0.5 + 1e-9
        if how != "opencv_bilinear" and 2 * new == old:
            np.testing.assert_array_equal(taken, np.arange(new) * 2 + 1)


@pytest.mark.parametrize("how", FILTERS)
def test_the_same_size_is_the_same_pixels(how):
    element = noise()
    out = resize(element, (40, 60), how)
    assert out["image"] is element["image"] and out["label"] is element["label"]


@pytest.mark.parametrize("how", FILTERS)
def test_a_label_of_another_size_follows_from_its_own(how):
    element = {**noise(), "label": noise(38, 61)["label"], "name": "a"}
    out = resize(element, (20, 30), how)
    assert out["image"].shape == (20, 30, 3) and out["name"] == "a"
    expected = resize_label(element["label"], (20, 30), how)
    np.testing.assert_array_equal(out["label"], expected)
    # To the image's own size too, where the image has nothing to do.
    out = resize(element, (40, 60), how)
    assert out["label"].shape == (40, 60) and out["image"] is element["image"]


@pytest.mark.parametrize("how", FILTERS)
@pytest.mark.parametrize("size", SIZES)
def test_labels_and_valid_get_no_new_values(how, size):
    element = {**noise(), "valid": np.ones((40, 60), np.uint8)}
    element["label"] = np.where(element["label"] > 9, 255, 0).astype(np.uint8)
    out = resize(element, size, how)
    assert set(np.unique(out["label"])) == {0, 255}
    assert out["valid"].shape == size and np.all(out["valid"] == 1)


def test_filters_differ_where_the_libraries_do():
    image = cv2.GaussianBlur(noise(128, 256)["image"], (0, 0), 0.8)
    opencv = resize_image(image, (50, 100), "opencv_bilinear").astype(int)
    pillow = resize_image(image, (50, 100), "pillow_bilinear")
    assert np.abs(opencv - pillow).mean() > 5
