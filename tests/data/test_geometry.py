"""The recipes: order, sizes and numbers of the published programs."""

import ast
import json
from pathlib import Path

import grain
import numpy as np
import pytest
from PIL import Image

from uda_jax.data import ops as kinds
from uda_jax.data.geometry import (
    GEOMETRIES,
    advent,
    daformer,
    maxsquare,
    split_fixed,
    ss_ada,
    tufl,
)
from uda_jax.data.ops import apply
from uda_jax.data.resizing import FILTERS
from uda_jax.errors import UserError
from uda_jax.factories import build
from uda_jax.labels import IGNORE

GOLDENS = Path(__file__).parents[1] / "goldens"
# One of each, all to 16 x 24 pixels.
RECIPES = {
    "tufl": dict(crop_size=(16, 24), resize=(30, 44)),
    "maxsquare": dict(size=(16, 24)),
    "advent": dict(size=(16, 24)),
    "ss_ada": dict(crop_size=(16, 24)),
    "daformer": dict(resize=(30, 40), crop_size=(16, 24), cat_max_ratio=0.75),
}


def example(height=40, width=60, axis=1):
    """Image and label say at which row or column each pixel was."""
    label = np.indices((height, width))[axis].astype(np.uint8)
    return {"image": np.stack([label * 3] * 3, -1), "label": label, "name": "a"}


def names(ops):
    return [type(getattr(op, "transform", op)).__name__ for op in ops]


def test_every_recipe_is_here():
    assert GEOMETRIES.keys() == RECIPES.keys()


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize("name", RECIPES)
def test_image_and_label_stay_aligned(name, filter):
    ops = build(GEOMETRIES, "geometry", dict(RECIPES[name], name=name, filter=filter))
    for axis, seed in ((0, 0), (1, 1), (0, 2), (1, 3)):
        out = apply(ops, example(axis=axis), np.random.default_rng(seed))
        assert out["image"].shape == (16, 24, 3) and out["label"].shape == (16, 24)
        assert out["image"].dtype == out["label"].dtype == np.uint8
        known = out["label"] != IGNORE
        apart = out["image"][..., 0] / 3 - out["label"]
        # An output pixel is up to 2.5 wide, and TUFL resizes twice.
        assert np.abs(apart[known]).max() <= 2.5
        if "valid" in out:
            np.testing.assert_array_equal(out["valid"] == 1, known)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("size", [(40, 60), (39, 61), (9, 70), (70, 9), (9, 9)])
def test_one_size_comes_out_of_every_image(name, size):
    ops = GEOMETRIES[name](**RECIPES[name])
    element = {**example(*size), "label": example(size[0] + 3, size[1] - 2)["label"]}
    for item in (element, {"image": element["image"], "name": "b"}):
        out = apply(ops, item, np.random.default_rng(0))
        assert out["image"].shape == (16, 24, 3)
        assert ("label" in out) == ("label" in item)
        assert out.get("label", np.zeros((16, 24))).shape == (16, 24)


def test_tufl():
    ops = tufl(crop_size=(16, 24))
    assert names(ops) == ["HorizontalFlip", "RandomScale", "RandomCrop"]
    assert ops[1] == kinds.RandomScale((0.75, 1.0, 1.25, 1.5), "pillow_bilinear")
    ops = tufl(crop_size=(16, 24), resize=(8, 8), scales=(1.0,), filter="area")
    assert ops == (
        kinds.Resize((8, 8), "area"),
        kinds.HorizontalFlip(0.5),
        kinds.RandomCrop((16, 24), "area"),
    )
    frozen = tufl(crop_size=(16, 24), resize=(8, 8), frozen=True)
    assert names(frozen) == names(tufl(crop_size=(16, 24), resize=(8, 8)))
    assert [isinstance(op, kinds.Frozen) for op in frozen] == [False, True, True, True]


@pytest.mark.parametrize(
    ("size", "new", "labels_too"),
    [
        ((52, 95), (36, 64), True),  # as GTA5: 1914 x 1052 -> 1280 x 720
        ((64, 128), (32, 64), False),  # as Cityscapes: halved
        ((32, 64), (32, 64), True),
        ((45, 60), (15, 20), True),
    ],
)
def test_maxsquare_may_resize_before_it_mirrors(size, new, labels_too):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    label = rng.integers(0, 19, size, np.uint8)
    out = apply(
        maxsquare(size=new, flip_probability=1.0),
        {"image": image, "label": label},
        np.random.default_rng(0),
    )
    original = Image.fromarray(image).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    original = original.resize(new[::-1], Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(out["image"], original)
    if labels_too:
        original = Image.fromarray(label).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        original = original.resize(new[::-1], Image.Resampling.NEAREST)
        np.testing.assert_array_equal(out["label"], original)
    else:
        # The neighbour on the other side of the centre: what the docstring says.
        np.testing.assert_array_equal(out["label"], label[1::2, 1::2][:, ::-1])
        original = label[:, ::-1][1::2, 1::2]
        np.testing.assert_array_equal(original, label[1::2, 0::2][:, ::-1])


def test_advent_only_resizes():
    assert advent(size=(16, 24)) == (kinds.Resize((16, 24), "pillow_bicubic"),)
    element = example()
    out = apply(advent(size=(16, 24)), element, np.random.default_rng(0))
    expected = Image.fromarray(element["image"]).resize((24, 16), 3)
    np.testing.assert_array_equal(out["image"], expected)


def test_ss_ada_marks_what_it_filled_up():
    ops = ss_ada(crop_size=(16, 24))
    assert names(ops) == ["RandomLongSide", "Pad", "RandomCrop", "HorizontalFlip"]
    element = {"image": np.full((6, 40, 3), 9, np.uint8), "name": "a"}
    element["label"] = np.ones((6, 40), np.uint8)
    for seed in range(8):
        out = apply(ops, element, np.random.default_rng(seed))
        valid = out["valid"] == 1
        assert valid.any() and not valid.all()
        assert np.all(out["image"][valid] == 9) and np.all(out["image"][~valid] == 0)
        np.testing.assert_array_equal(out["label"], np.where(valid, 1, IGNORE))
        assert not valid[-1].any()  # filled up below, never above
    whole = apply(ops, example(80, 80), np.random.default_rng(0))
    assert np.all(whole["valid"] == 1)


def test_sizes_of_daformer():
    rows = json.loads((GOLDENS / "daformer.json").read_text())["rescale"]
    for key, (width, height) in rows.items():
        (w, h), (bound_w, bound_h) = ast.literal_eval(key)
        ops = daformer(resize=(bound_h, bound_w), crop_size=(512, 512))
        assert ops[0].fitted((h, w)) == (height, width), key


def test_daformer_fills_up_with_the_mean_colour():
    ops = daformer(resize=(8, 40), crop_size=(16, 24), flip_probability=0.0)
    assert names(ops) == ["ResizeKeepingAspect", "VariedCrop", "HorizontalFlip", "Pad"]
    assert ops[1] == kinds.VariedCrop((16, 24), 1.0)
    element = {"image": np.full((16, 80, 3), 9, np.uint8)}
    out = apply(ops, element, np.random.default_rng(0))["image"]
    assert np.all(out[:8] == 9) and np.all(out[8:] == (124, 116, 104))


@pytest.mark.parametrize("name", RECIPES)
def test_the_fixed_part(name):
    ops = GEOMETRIES[name](**RECIPES[name])
    fixed, rest = split_fixed(ops)
    assert fixed + rest == ops
    assert len(fixed) == (0 if name == "ss_ada" else 1)
    assert all(isinstance(op, grain.transforms.Map) for op in fixed)
    assert not rest or isinstance(rest[0], grain.transforms.RandomMap)
    # Applied in two parts, with one generator, nothing changes.
    rng = np.random.default_rng(3)
    parts = apply(rest, apply(fixed, example(), rng), rng)
    whole = apply(ops, example(), np.random.default_rng(3))
    for key in whole:
        np.testing.assert_array_equal(parts[key], whole[key])
    assert split_fixed(()) == ((), ())


SIZE = dict(crop_size=(4, 4))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tufl", dict(crop_size=(0, 4)), r"crop_size=\(0, 4\) must be two positive"),
        ("tufl", dict(crop_size=(4,)), "crop_size"),
        ("tufl", dict(SIZE, resize=(4, 4, 4)), "resize"),
        ("tufl", dict(SIZE, scales=()), "scales"),
        ("tufl", dict(SIZE, scales=(1.0, -1.0)), "scales"),
        ("tufl", dict(SIZE, flip_probability=1.5), "flip_probability=1.5"),
        ("tufl", dict(SIZE, filter="pillow"), 'did you mean "pillow_bicubic"'),
        ("maxsquare", dict(size=(4, True)), "size"),
        ("maxsquare", dict(size=(4, 4), filter="x"), 'filter "x" is unknown'),
        ("advent", dict(size=(4, -4)), "size"),
        ("ss_ada", dict(SIZE, ratios=(2.0, 0.5)), "ratios"),
        ("ss_ada", dict(SIZE, ratios=(0.0, 0.5)), "ratios"),
        ("ss_ada", dict(SIZE, ratios=(1.0,)), "ratios"),
        ("daformer", dict(SIZE, resize=(4, 4), cat_max_ratio=0.0), "cat_max_ratio=0.0"),
        ("daformer", dict(SIZE, resize=(), cat_max_ratio=0.5), "resize"),
        ("daformer", dict(SIZE, resize=(4, 4), filter="nearest"), "filter"),
        ("daformer", dict(SIZE, resize=4), "must be a tuple"),
    ],
)
def test_impossible_numbers_are_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        build(GEOMETRIES, "geometry", dict(options, name=name))
