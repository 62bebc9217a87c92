import grain
import numpy as np
import pytest

from uda_jax.data.ops import (
    Frozen,
    HorizontalFlip,
    Pad,
    RandomCrop,
    RandomLongSide,
    RandomScale,
    Resize,
    ResizeKeepingAspect,
    VariedCrop,
    apply,
)
from uda_jax.data.resizing import FILTERS
from uda_jax.labels import IGNORE

GRAY = (7, 7, 7)


def example(height=40, width=60, block=4):
    """An image painted with its label, in blocks."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 200, (height // block, width // block), np.uint8)
    label = np.kron(small, np.ones((block, block), np.uint8))
    return {"image": np.stack([label] * 3, -1), "label": label, "name": "a"}


def run(op, element, seed=0):
    if isinstance(op, grain.transforms.Map):
        return op.map(element)
    return op.random_map(element, np.random.default_rng(seed))


MOVING = [HorizontalFlip(0.5), VariedCrop((13, 21), 0.9), Pad((50, 50), (IGNORE,) * 3)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "op", [*MOVING, RandomCrop((13, 21), "area"), RandomCrop((40, 60), "area")]
)
def test_image_label_and_valid_move_alike(op, seed):
    element = example()
    element["valid"] = (element["label"] < 100).astype(np.uint8)
    out = run(op, element, seed)
    np.testing.assert_array_equal(out["image"][..., 0], out["label"])
    np.testing.assert_array_equal(out["valid"], out["label"] < 100)
    for key in ("image", "label", "valid"):
        assert out[key].dtype == np.uint8
        # No view keeps the whole image in memory.
        assert out[key] is element[key] or out[key].base is None
    assert out["name"] == "a"


@pytest.mark.parametrize("how", FILTERS)
@pytest.mark.parametrize(
    "op",
    [
        lambda how: RandomScale((0.5, 1.5, 2.0), how),
        lambda how: RandomLongSide((0.5, 2.0), how),
        lambda how: Resize((20, 30), how),
        lambda how: Resize((80, 150), how),
        lambda how: ResizeKeepingAspect((25, 100), how),
        lambda how: RandomCrop((60, 70), how),
    ],
)
def test_image_and_label_stay_aligned_when_resized(op, how):
    # Half black and half white: the boundary must be at one place in both.
    label = np.zeros((40, 60), np.uint8)
    label[15:, 22:] = 1
    element = {"image": np.stack([label * 255] * 3, -1), "label": label}
    for seed in range(4):
        out = run(op(how), {**element, "valid": label}, seed)
        assert out["image"].shape[:2] == out["label"].shape
        assert set(np.unique(out["label"])) <= {0, 1}
        np.testing.assert_array_equal(out["valid"], out["label"])
        wrong = (out["image"][..., 0] > 127) != (out["label"] == 1)
        # A pixel along either edge at most: which of two is the nearest depends on the
        # filter.
        assert wrong.sum() <= sum(wrong.shape)


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
        run(RandomScale((0.75, 1.0, 1.25), "area"), example(), seed)["label"].shape
        for seed in range(30)
    }
    assert sizes == {(30, 45), (40, 60), (50, 75)}


@pytest.mark.parametrize(
    ("shape", "scale", "expected"),
    [((55, 9), 1.25, (68, 11)), ((647, 10), 0.75, (485, 7)), ((9, 55), 1.5, (13, 82))],
)
def test_scaled_sizes_are_cut_not_rounded(shape, scale, expected):
    # 55 * 1.25 = 68.75, 647 * 0.75 = 485.25, 10 * 0.75 = 7.5, 55 * 1.5 = 82.5.
    element = {"image": np.zeros((*shape, 3), np.uint8)}
    assert run(RandomScale((scale,), "area"), element)["image"].shape[:2] == expected


def test_every_window_can_be_cropped():
    label = np.arange(12, dtype=np.uint8).reshape(3, 4)
    element = {"image": np.stack([label] * 3, -1), "label": label}
    corners = {
        int(run(op, element, seed)["label"][0, 0])
        for seed in range(60)
        for op in (RandomCrop((2, 3), "area"), VariedCrop((2, 3), 1.0))
    }
    assert corners == {0, 1, 4, 5}


@pytest.mark.parametrize("shape", [(39, 100), (100, 39), (7, 5), (40, 59), (64, 65)])
def test_small_images_are_enlarged_before_the_crop(shape):
    label = np.ones(shape, np.uint8)
    element = {"image": np.full((*shape, 3), 9, np.uint8), "label": label}
    out = run(RandomCrop((40, 60), "pillow_bilinear"), element)
    assert out["image"].shape == (40, 60, 3)
    assert np.all(out["label"] == 1) and np.all(out["image"] == 9)  # nothing filled


@pytest.mark.parametrize(
    ("window", "shape", "expected"),
    [
        # Narrower than high: the published rule goes by the width, f = 60 / 50.
        ((40, 60), (100, 50), (121, 61)),
        # Low, but wide enough: it goes by the height, f = 40 / 39.
        ((40, 60), (39, 80), (41, 83)),
        # CrossCity at scale 0.75: by the height alone it were (641, 1267) and a black
        # strip; here it is as wide as the window.
        ((640, 1280), (485, 960), (647, 1281)),
    ],
)
def test_small_images_become_as_large_as_the_window(
    window, shape, expected, monkeypatch
):
    seen = []
    nothing = lambda element, size, how: seen.append(size) or element
    monkeypatch.setattr("uda_jax.data.ops.resize", nothing)
    run(RandomCrop(window, "area"), {"image": np.zeros((*shape, 3), np.uint8)})
    assert seen == [expected]


def test_frozen_draws_once():
    op = Frozen(RandomCrop((16, 16), "area"), seed=3)
    first = run(op, example(), 0)
    assert all(
        np.array_equal(run(op, example(), seed)["label"], first["label"])
        for seed in range(5)
    )
    assert not np.array_equal(
        run(Frozen(op.transform, seed=4), example())["label"], first["label"]
    )


def test_apply_runs_all_in_order():
    element = example()
    ops = (Resize((20, 30), "area"), RandomCrop((7, 9), "area"), Pad((8, 9), GRAY))
    out = apply(ops, element, np.random.default_rng(5))
    expected = run(ops[2], run(ops[1], run(ops[0], element), 5))
    np.testing.assert_array_equal(out["image"], expected["image"])
    assert element["image"].shape == (40, 60, 3)


def test_inputs_are_left_alone():
    element = example()
    before = {k: np.copy(v) for k, v in element.items()}
    for op in (*MOVING, RandomLongSide((0.5, 2.0), "area"), Pad((9, 99), GRAY, True)):
        run(op, element)
    assert element.keys() == before.keys()
    for key, value in before.items():
        np.testing.assert_array_equal(value, element[key])


def test_long_side():
    sizes = {
        run(RandomLongSide((0.5, 1.1), "area"), example(30, 10, 1), seed)["label"].shape
        for seed in range(300)
    }
    # Any of int(0.5 * 30) ... int(1.1 * 30), the other side a third of it.
    assert sizes == {(n, int(n / 3 + 0.5)) for n in range(15, 34)}
    wide = run(RandomLongSide((2.0, 2.0), "area"), example(12, 20), 0)
    assert wide["image"].shape == (24, 40, 3)


@pytest.mark.parametrize(
    ("size", "bound", "expected"),
    [
        ((40, 60), (20, 30), (20, 30)),
        ((40, 60), (30, 20), (20, 30)),  # the order of the bound says nothing
        ((60, 40), (20, 30), (30, 20)),
        ((40, 60), (20, 60), (20, 30)),
        ((40, 60), (40, 30), (27, 40)),  # f = 40 / 60
        ((7, 9), (100, 100), (78, 100)),
    ],
)
def test_keeping_the_aspect(size, bound, expected):
    assert ResizeKeepingAspect(bound, "area").fitted(size) == expected
    out = run(ResizeKeepingAspect(bound, "opencv_bilinear"), example(*size, block=1))
    assert out["image"].shape == (*expected, 3) and out["label"].shape == expected


def test_keeping_the_aspect_of_a_label_of_another_size():
    element = {**example(), "label": example(40, 64)["label"]}
    out = run(ResizeKeepingAspect((20, 30), "opencv_bilinear"), element)
    assert out["image"].shape == (20, 30, 3)
    assert out["label"].shape == (19, 30)  # its own f = 30 / 64


@pytest.mark.parametrize(
    "op",
    [
        VariedCrop((20, 40), 0.75),
        RandomCrop((20, 40), "pillow_bilinear"),
        Pad((60, 70), GRAY),
    ],
)
def test_a_label_of_another_size_is_brought_to_its_image(op):
    label = np.zeros((50, 80), np.uint8)
    label[:, 40:] = 1  # half, as in the image
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, 30:] = 1
    out = run(op, {"image": image, "label": label}, 3)
    inside = out["image"][..., 0] < 2
    np.testing.assert_array_equal(out["image"][inside][:, 0], out["label"][inside])
    assert out["label"].shape == out["image"].shape[:2]
    mirrored = run(HorizontalFlip(1.0), {"image": image, "label": label})
    assert mirrored["label"].shape == label.shape and mirrored["label"][0, 0] == 1


@pytest.mark.parametrize(("ratio", "draws"), [(0.75, 11), (1.0, 1)])
def test_varied_crops_are_redrawn_ten_times(ratio, draws):
    label = np.zeros((8, 64), np.uint8)
    label[:, 20:44] = 3
    element = {"image": np.stack([label] * 3, -1), "label": label}
    # Of 57 windows 6 hold 3 to 5 columns of either class: less than 6 / 8 of one.
    good = []
    for seed in range(400):
        crop = run(VariedCrop((8, 8), ratio), element, seed)["label"]
        good.append(np.bincount(crop.ravel()).max() < 0.75 * 64)
    assert np.mean(good) == pytest.approx(1 - (51 / 57) ** draws, abs=0.06)


def test_ignored_pixels_are_no_class():
    label = np.full((8, 8), IGNORE, np.uint8)
    is_varied = VariedCrop((8, 8), 0.75)._is_varied
    assert not is_varied(label)
    label[0, 0] = 4
    assert not is_varied(label)
    label[0, 1] = 5
    assert is_varied(label)
    assert not VariedCrop((8, 8), 0.5)._is_varied(label)  # less than, not equal


def test_a_crop_without_label_is_drawn_once():
    element = example()
    first = run(VariedCrop((8, 8), 1.0), element, 2)["image"]
    del element["label"]
    assert np.array_equal(run(VariedCrop((8, 8), 0.01), element, 2)["image"], first)


def test_images_smaller_than_a_varied_crop_are_cut_to_what_there_is():
    element = example(40, 60)
    out = run(VariedCrop((50, 16), 0.9), element)
    assert out["image"].shape == (40, 16, 3) and out["label"].shape == (40, 16)


def test_padding():
    element = example(8, 12)
    out = run(Pad((10, 11), (1, 2, 3), adds_valid=True), element)
    assert out["image"].shape == (10, 12, 3)  # no side gets smaller
    np.testing.assert_array_equal(out["image"][:8], element["image"])
    assert np.all(out["image"][8:] == (1, 2, 3))
    assert np.all(out["label"][8:] == IGNORE)
    np.testing.assert_array_equal(out["label"][:8], element["label"])
    assert out["valid"].dtype == np.uint8
    assert np.all(out["valid"][:8] == 1) and np.all(out["valid"][8:] == 0)
    whole = run(Pad((8, 12), GRAY, adds_valid=True), element)
    assert whole["valid"].shape == (8, 12) and np.all(whole["valid"] == 1)
    assert "valid" not in run(Pad((10, 11), GRAY), element)
