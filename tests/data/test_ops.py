import cv2
import grain
import numpy as np
import pytest
from PIL import Image

from uda_jax.data.ops import (
    Frozen,
    HorizontalFlip,
    RandomCrop,
    RandomScale,
    Resize,
    geometry,
    resize,
)
from uda_jax.errors import UserError


def example(height=40, width=60, block=4):
    """An image whose red channel is the label, in blocks."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 200, (height // block, width // block), np.uint8)
    label = np.kron(small, np.ones((block, block), np.uint8))
    return {"image": np.stack([label] * 3, -1), "label": label, "name": "a"}


def run(op, element, seed=0):
    if isinstance(op, grain.transforms.Map):
        return op.map(element)
    return op.random_map(element, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "op", [HorizontalFlip(0.5), RandomCrop((13, 21)), RandomCrop((40, 60))]
)
def test_image_and_label_move_alike(op, seed):
    out = run(op, example(), seed)
    np.testing.assert_array_equal(out["image"][..., 0], out["label"])
    assert out["image"].dtype == out["label"].dtype == np.uint8
    assert out["name"] == "a"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "op",
    [
        RandomScale((0.5, 1.5, 2.0)),
        Resize((20, 30)),
        Resize((80, 150)),
        RandomCrop((60, 70)),
    ],
)
def test_image_and_label_stay_aligned_when_resized(op, seed):
    # Half black and half white: the boundary must be at one place in both.
    label = np.zeros((40, 60), np.uint8)
    label[15:, 22:] = 1
    out = run(op, {"image": np.stack([label * 255] * 3, -1), "label": label}, seed)
    assert out["image"].shape[:2] == out["label"].shape
    assert set(np.unique(out["label"])) <= {0, 1}
    wrong = (out["image"][..., 0] > 127) != (out["label"] == 1)
    assert wrong.sum() <= 0.02 * wrong.size
    # Not on one side only, as it would be with another pixel centre.
    assert abs(int((out["image"][..., 0] > 127).sum()) - int(out["label"].sum())) <= (
        sum(out["label"].shape)
    )


@pytest.mark.parametrize("size", [(20, 30), (80, 120), (55, 79), (30, 90)])
def test_labels_are_resized_as_by_pillow(size):
    element = example()
    expected = Image.fromarray(element["label"]).resize(size[::-1], Image.NEAREST)
    differing = resize(element, size)["label"] != np.array(expected)
    assert differing.mean() < 0.002  # ties


def test_images_are_enlarged_as_by_pillow():
    element = example()
    expected = Image.fromarray(element["image"]).resize((75, 50), Image.BILINEAR)
    difference = resize(element, (50, 75))["image"].astype(int) - np.array(expected)
    assert np.abs(difference).max() <= 1


def test_images_are_averaged_when_they_shrink():
    stripes = np.zeros((8, 8, 3), np.uint8)
    stripes[:, ::2] = 200
    assert np.all(resize({"image": stripes}, (4, 4))["image"] == 100)


def test_flip_probability():
    element = example()
    for probability, expected in ((0.0, 0), (1.0, 200), (0.25, 50)):
        flips = sum(
            not np.array_equal(
                run(HorizontalFlip(probability), element, seed)["label"],
                element["label"],
            )
            for seed in range(200)
        )
        assert abs(flips - expected) <= 20 * (0 < probability < 1)
    out = run(HorizontalFlip(1.0), element)
    np.testing.assert_array_equal(out["label"], element["label"][:, ::-1])


def test_scale_sizes_and_choices():
    sizes = {
        run(RandomScale((0.75, 1.0, 1.25)), example(), seed)["label"].shape
        for seed in range(30)
    }
    assert sizes == {(30, 45), (40, 60), (50, 75)}


def test_every_window_can_be_cropped():
    label = np.arange(12, dtype=np.uint8).reshape(3, 4)
    element = {"image": np.stack([label] * 3, -1), "label": label}
    corners = {
        int(run(RandomCrop((2, 3)), element, seed)["label"][0, 0]) for seed in range(60)
    }
    assert corners == {0, 1, 4, 5}


@pytest.mark.parametrize("shape", [(39, 100), (100, 39), (7, 5), (40, 59), (64, 65)])
def test_small_images_are_enlarged_before_the_crop(shape):
    label = np.ones(shape, np.uint8)
    element = {"image": np.full((*shape, 3), 9, np.uint8), "label": label}
    out = run(RandomCrop((40, 60)), element)
    assert out["image"].shape == (40, 60, 3)
    assert np.all(out["label"] == 1) and np.all(out["image"] == 9)  # nothing filled


def test_the_enlargement_is_the_published_one():
    # Width too small alone: f = 60 / 50 and int(f * side + 1).
    seen = []
    element = {"image": np.zeros((100, 50, 3), np.uint8)}
    original = cv2.resize
    try:
        cv2.resize = lambda x, size, **kw: seen.append(size) or original(x, size, **kw)
        run(RandomCrop((40, 60)), element)
    finally:
        cv2.resize = original
    assert seen == [(61, 121)]


def test_inputs_are_left_alone():
    element = example()
    before = {k: np.copy(v) for k, v in element.items()}
    for op in geometry(crop_size=(16, 16), resize=(30, 50), scales=(0.5, 2.0)):
        run(op, element)
    for key, value in before.items():
        np.testing.assert_array_equal(value, element[key])


def test_frozen_draws_once():
    op = Frozen(RandomCrop((16, 16)), seed=3)
    first = run(op, example(), 0)
    assert all(
        np.array_equal(run(op, example(), seed)["label"], first["label"])
        for seed in range(5)
    )
    assert not np.array_equal(
        run(Frozen(op.transform, seed=4), example())["label"], first["label"]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(crop_size=(0, 4)), "crop_size"),
        (dict(crop_size=(4,)), "crop_size"),
        (dict(crop_size=(4, 4), resize=(4, 4, 4)), "resize"),
        (dict(crop_size=(4, 4), scales=()), "scales"),
        (dict(crop_size=(4, 4), scales=(1.0, -1.0)), "scales"),
        (dict(crop_size=(4, 4), flip_probability=1.5), "flip_probability"),
    ],
)
def test_impossible_numbers_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        geometry(**options)
