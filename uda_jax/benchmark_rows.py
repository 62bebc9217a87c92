"""The rows that benchmarks are made of: data sets, recipes, networks.

Each function gives a new row of a config: a name, or a reader, and the arguments of
what it names.  Sizes are (height, width).
"""

from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]


# --- data -----------------------------------------------------------------------------


def _row(reader: str, root: str, **options) -> Row:
    return {"reader": reader, "root": root, **options, "list_file": ""}


def cityscapes(split: str, root: str = "data/cityscapes") -> Row:
    options = {"split": split, "fraction": 1.0, "label_files": "label_ids"}
    return _row("cityscapes", root, **options)


def weather(split: str, *weather: str) -> Row:
    options = {"split": split, "weather": weather, "betas": ()}
    options["label_files"] = "label_ids"
    return _row("cityscapes_weather", "data/cityscapes", **options)


def gta5(split: str) -> Row:
    return _row("gta5", "data/gta5", split=split, label_files="label_ids")


def synthia(split: str) -> Row:
    return _row("synthia", "data/synthia", split=split, label_files="label_ids")


def crosscity(city: str, split: str, root: str = "data/crosscity") -> Row:
    return _row("crosscity", root, city=city, split=split)


def acdc(split: str) -> Row:
    options = {"split": split, "conditions": (), "label_files": "train_ids"}
    return _row("acdc", "data/acdc", **options)


def dark_zurich(split: str) -> Row:
    options = {"split": split, "label_files": "train_ids"}
    return _row("dark_zurich", "data/dark_zurich", **options)


def parking(year: int, split: str) -> Row:
    return _row("parking", f"data/bev_{year}", split=split)


def camvid(split: str, *sequences: str) -> Row:
    return _row("camvid", "data/camvid", split=split, sequences=sequences)


OWN = {
    "reader": "folder",
    "root": "",
    "images": "images",
    "labels_dir": "labels",
    "image_suffix": "",
    "label_suffix": ".png",
    "coding": "label_ids",
}


# --- published recipes ----------------------------------------------------------------


def tufl(crop_size: tuple[int, int], filter: str = "pillow_bilinear") -> Row:
    return {
        "name": "tufl",
        "crop_size": crop_size,
        "resize": (),
        "scales": (0.75, 1.0, 1.25, 1.5),
        "flip_probability": 0.5,
        "filter": filter,
        "frozen": False,
    }


def maxsquare(size: tuple[int, int]) -> Row:
    return {
        "name": "maxsquare",
        "size": size,
        "flip_probability": 0.5,
        "filter": "pillow_bicubic",
    }


def advent(size: tuple[int, int]) -> Row:
    return {"name": "advent", "size": size, "filter": "pillow_bicubic"}


def daformer(
    resize: tuple[int, int],
    crop_size: tuple[int, int] = (512, 512),
    cat_max_ratio: float = 1.0,
) -> Row:
    return {
        "name": "daformer",
        "resize": resize,
        "crop_size": crop_size,
        "cat_max_ratio": cat_max_ratio,
        "flip_probability": 0.5,
        "filter": "opencv_bilinear",
    }


def ss_ada(crop_size: tuple[int, int]) -> Row:
    return {
        "name": "ss_ada",
        "crop_size": crop_size,
        "ratios": (0.5, 2.0),
        "flip_probability": 0.5,
        "filter": "pillow_bilinear",
    }


RARE_CLASS = {
    "name": "rare_class",
    "temperature": 0.01,
    "min_pixels": 3000,
    "min_crop_ratio": 0.5,
}
# --- DAFormer's recipe ----------------------------------------------------------------

ADAMW = {
    "name": "adamw",
    "learning_rate": 6e-5,
    "beta1": 0.9,
    "beta2": 0.999,
    "eps": 1e-8,
    "weight_decay": 0.01,
    "head_multiplier": 10.0,
    "decay_of": "all_but_backbone_norms",
}
MMSEG_POLY = {
    "name": "mmseg_poly",
    "power": 1.0,
    "warmup_steps": 1500,
    "warmup_ratio": 1e-6,
}
# Classes whose features stay near ImageNet's.
THINGS = (
    *("traffic light", "traffic sign", "person", "rider", "car", "truck", "bus"),
    *("train", "motorcycle", "bicycle"),
    "bicyclist",  # in CamVid
)
SELF_TRAINING = {
    "alpha": 0.999,
    "threshold": 0.968,
    "ignore_top": 15,
    "ignore_bottom": 120,
    "feature_weight": 0.005,
    "feature_min_ratio": 0.75,
    "colors": "daformer",
    "pool_per_image": False,
    "source_view": "none",
    "statistics": "student",
}
# What differs: DACS, and the two forms of EBDA, the released source's and the compiled
# file's.
DACS = {"alpha": 0.99, "feature_weight": 0.0, "feature_classes": ()}
_BALANCE = {
    "quantile": 0.6,
    "momentum": 0.9999,
    "second_forward": True,
    "region": "all",
}
EBDA_V2 = {"balance": "constant", "entropy": 0.4, "balance_weight": 0.1, **_BALANCE}
EBDA_V1 = {"balance": "quantile", "entropy": 0.6, "balance_weight": 0.01, **_BALANCE}

# --- networks -------------------------------------------------------------------------

BISENET = {"name": "bisenet", "backbone": "resnet18", "form": "tufl", "width": 1.0}
SS_ADA = {**BISENET, "form": "ss_ada"}
DAFORMER = {"name": "daformer", "backbone": "mit_b5"}
# Of a quarter's width, for the comparison of methods on two cores.
SMALL_DEEPLAB = {
    "name": "deeplabv2",
    "backbone": "resnet18",
    "form": "original",
    "branches": 4,
    "multi_level": True,
    "affine": "trained",  # from random weights they must be
    "input_form": "imagenet",
    "width": 0.25,
}
# The published decoder would take more time than so small an encoder.
SMALL_DAFORMER = {
    "name": "daformer",
    "backbone": "mit_b0",
    "channels": 64,
    "width": 1.0,
}


def deeplab(branches: int, affine: str) -> Row:
    return {
        "name": "deeplabv2",
        "backbone": "resnet101",
        "form": "original",
        "branches": branches,
        "multi_level": True,
        "affine": affine,
        "input_form": "caffe_bgr",
        "width": 1.0,
    }
