"""Every published adaptation task as a row: data, sizes, network and evaluation.

Sizes are (height, width).  A name is `<source>_to_<target>` and, where several papers
use the same data differently, `_<paper>`.  Sources of the numbers: TUFL (Yan et al.,
T-ITS 2023), SS-ADA (Yan et al.), MaxSquare (Chen et al., ICCV 2019), ADVENT (Vu et al.,
CVPR 2019), whose sizes AdaptSegNet shares, DAFormer (Hoyer et al., CVPR 2022), whose
data EBDA shares, and VBLC (Li et al., AAAI 2023) for fog and rain; their released
programs where papers are silent.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from uda_jax.labels import LABEL_SPACES

Row = Mapping[str, Any]

_NINETEEN, _SIXTEEN, _THIRTEEN = (
    LABEL_SPACES[name].classes
    for name in ("cityscapes19", "cityscapes16", "crosscity13")
)
CITIES = {"rio": "Rio", "rome": "Rome", "taipei": "Taipei", "tokyo": "Tokyo"}


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One adaptation task.

    Attributes:
      label_space: key of `LABEL_SPACES`.
      source: reader, root and options of the labelled training images.
      target: the same of the training images whose labels are never read.
      test: the same of the labelled images that scores are reported on.
      geometry: name and options of the host's part of the augmentation, a row of
        `uda_jax.data.geometry.GEOMETRIES`: sizes, crops, resize filter.
      target_geometry: that of the target; empty where it is the source's.
      sampling: name and options of how source images are drawn, a row of
        `uda_jax.data.sampling.SAMPLINGS`.
      model: the network of the published results; `input_form` says how it sees
        colours: "imagenet" normalised RGB, "caffe_bgr" BGR minus Caffe's mean.
      validation: labelled source images outside of the training, to choose numbers by;
        empty where there are none.
      evaluation: what differs from `base_config`'s `evaluation`.
      classes: class names that the mean IoU goes over.
      also: further means that the field reports beside it, {name: class names}.
    """

    label_space: str
    source: Row
    target: Row
    test: Row
    geometry: Row
    target_geometry: Row = dataclasses.field(default_factory=dict)
    sampling: Row = dataclasses.field(default_factory=lambda: {"name": "epochs"})
    model: Row = dataclasses.field(default_factory=lambda: dict(_BISENET))
    validation: Row = dataclasses.field(default_factory=dict)
    evaluation: Row = dataclasses.field(default_factory=dict)
    classes: tuple[str, ...] = _THIRTEEN
    also: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


_BISENET = {"name": "bisenet", "backbone": "resnet18", "form": "tufl", "width": 1.0}
_SS_ADA = {**_BISENET, "form": "ss_ada"}
_DAFORMER = {"name": "daformer", "backbone": "mit_b5"}


def _deeplab(branches: int, affine: str) -> Row:
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


# --- data -----------------------------------------------------------------------------


def _row(reader: str, root: str, **options) -> Row:
    return {"reader": reader, "root": root, **options, "list_file": ""}


def _cityscapes(split: str, root: str = "data/cityscapes") -> Row:
    options = {"split": split, "fraction": 1.0, "label_files": "label_ids"}
    return _row("cityscapes", root, **options)


def _weather(split: str, *weather: str) -> Row:
    options = {"split": split, "weather": weather, "betas": ()}
    options["label_files"] = "label_ids"
    return _row("cityscapes_weather", "data/cityscapes", **options)


def _gta5(split: str) -> Row:
    return _row("gta5", "data/gta5", split=split, label_files="label_ids")


def _synthia(split: str) -> Row:
    return _row("synthia", "data/synthia", split=split, label_files="label_ids")


def _crosscity(city: str, split: str, root: str = "data/crosscity") -> Row:
    return _row("crosscity", root, city=city, split=split)


def _acdc(split: str) -> Row:
    options = {"split": split, "conditions": (), "label_files": "train_ids"}
    return _row("acdc", "data/acdc", **options)


def _dark_zurich(split: str) -> Row:
    options = {"split": split, "label_files": "train_ids"}
    return _row("dark_zurich", "data/dark_zurich", **options)


def _parking(year: int, split: str) -> Row:
    return _row("parking", f"data/bev_{year}", split=split)


def _camvid(split: str, *sequences: str) -> Row:
    return _row("camvid", "data/camvid", split=split, sequences=sequences)


# --- published recipes ----------------------------------------------------------------


def _tufl(crop_size: tuple[int, int], filter: str = "pillow_bilinear") -> Row:
    return {
        "name": "tufl",
        "crop_size": crop_size,
        "resize": (),
        "scales": (0.75, 1.0, 1.25, 1.5),
        "flip_probability": 0.5,
        "filter": filter,
        "frozen": False,
    }


def _maxsquare(size: tuple[int, int]) -> Row:
    return {
        "name": "maxsquare",
        "size": size,
        "flip_probability": 0.5,
        "filter": "pillow_bicubic",
    }


def _advent(size: tuple[int, int]) -> Row:
    return {"name": "advent", "size": size, "filter": "pillow_bicubic"}


def _daformer(
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


_RARE_CLASS = {
    "name": "rare_class",
    "temperature": 0.01,
    "min_pixels": 3000,
    "min_crop_ratio": 0.5,
}
_HALF = (512, 1024)  # of Cityscapes


def _maxsquare_task(source_size, **fields) -> Benchmark:
    # MaxSquare scores at the reduced size, labels too: not comparable with the others.
    return Benchmark(
        geometry=_maxsquare(source_size),
        target_geometry=_maxsquare(_HALF),
        model=_deeplab(2, "stem_frozen"),
        evaluation={"size": _HALF, "label_size": _HALF, "filter": "pillow_bicubic"},
        **fields,
    )


def _advent_task(source_size, **fields) -> Benchmark:
    return Benchmark(
        geometry=_advent(source_size),
        target_geometry=_advent(_HALF),
        model=_deeplab(4, "frozen"),
        evaluation={"size": _HALF, "filter": "pillow_bicubic"},
        **fields,
    )


def _daformer_task(source_size, target_size=_HALF, **fields) -> Benchmark:
    return Benchmark(
        label_space="cityscapes19",
        geometry=_daformer(source_size, cat_max_ratio=0.75),
        target_geometry=_daformer(target_size),
        sampling=_RARE_CLASS,
        model=_DAFORMER,
        evaluation={"size": target_size, "filter": "opencv_bilinear"},
        **fields,
    )


def _to_city(city: str) -> dict[str, Row]:
    return {
        "label_space": "crosscity13",
        "source": _cityscapes("train"),
        "validation": _cityscapes("val"),
        "target": _crosscity(city, "Train"),
        "test": _crosscity(city, "Test"),
    }


_TO_CITYSCAPES = {"target": _cityscapes("train"), "test": _cityscapes("val")}
_IN_19 = {"label_space": "cityscapes19", "classes": _NINETEEN}
_IN_16 = {
    "label_space": "cityscapes16",
    "classes": _SIXTEEN,
    "also": {"13 classes": _THIRTEEN},
}

_OWN = {
    "reader": "folder",
    "root": "",
    "images": "images",
    "labels_dir": "labels",
    "image_suffix": "",
    "label_suffix": ".png",
    "coding": "label_ids",
}

# --- built in, or small ---------------------------------------------------------------

_MINICITY = Benchmark(
    label_space="crosscity13",
    source=_cityscapes("train", "data/minicity/source"),
    validation=_cityscapes("val", "data/minicity/source"),
    target=_crosscity("Minicity", "Train", "data/minicity/target"),
    test=_crosscity("Minicity", "Test", "data/minicity/target"),
    geometry=_tufl((192, 384), "area"),
    evaluation={"batch_size": 4},
)
_CAMVID_DUSK = Benchmark(
    label_space="camvid11",
    source=_camvid("train", "0006R0", "0016E5"),
    validation=_camvid("val"),
    target=_camvid("train", "0001TP"),
    test=_camvid("test", "0001TP"),
    geometry=_tufl((352, 480), "area"),
    evaluation={"batch_size": 4},
    classes=LABEL_SPACES["camvid11"].classes,
)

# An oracle trains on the labels of the target's training images: an upper bound.
BENCHMARKS: dict[str, Benchmark] = {
    "minicity": _MINICITY,
    "minicity_oracle": dataclasses.replace(_MINICITY, source=_MINICITY.target),
    "camvid_day_to_dusk": _CAMVID_DUSK,
    "camvid_dusk_oracle": dataclasses.replace(
        _CAMVID_DUSK, source=_CAMVID_DUSK.target, validation={}
    ),
    # A user's own folders: the config fills in what is empty here.
    "own": Benchmark(
        label_space="",
        source=_OWN,
        target=_OWN,
        test=_OWN,
        geometry=_tufl((512, 512)),
        classes=(),
    ),
    # Cityscapes to CrossCity: TUFL's crops and its windows of 647 pixels.
    **{
        f"cityscapes_to_{key}": Benchmark(
            geometry=_tufl((640, 1280)),
            evaluation={"mode": "chips", "window": (647, 647)},
            **_to_city(city),
        )
        for key, city in CITIES.items()
    },
    **{
        f"cityscapes_to_{key}_maxsquare": _maxsquare_task(_HALF, **_to_city(city))
        for key, city in CITIES.items()
    },
    "gta5_to_cityscapes_maxsquare": _maxsquare_task(
        (720, 1280),
        source=_gta5("train"),
        validation=_gta5("val"),
        **_TO_CITYSCAPES,
        **_IN_19,
    ),
    "gta5_to_cityscapes_advent": _advent_task(
        (720, 1280), source=_gta5("all"), **_TO_CITYSCAPES, **_IN_19
    ),
    "gta5_to_cityscapes_daformer": _daformer_task(
        (720, 1280), source=_gta5("all"), **_TO_CITYSCAPES, classes=_NINETEEN
    ),
    "synthia_to_cityscapes_maxsquare": _maxsquare_task(
        (760, 1280),
        source=_synthia("train"),
        validation=_synthia("val"),
        **_TO_CITYSCAPES,
        **_IN_16,
    ),
    "synthia_to_cityscapes_advent": _advent_task(
        (760, 1280), source=_synthia("all"), **_TO_CITYSCAPES, **_IN_16
    ),
    # A network of 19 classes, three of which SYNTHIA never shows.
    "synthia_to_cityscapes_daformer": _daformer_task(
        (760, 1280),
        source=_synthia("all"),
        **_TO_CITYSCAPES,
        classes=_SIXTEEN,
        also={"13 classes": _THIRTEEN},
    ),
    "cityscapes_to_acdc": _daformer_task(
        _HALF,
        (540, 960),
        source=_cityscapes("train"),
        validation=_cityscapes("val"),
        target=_acdc("train"),
        test=_acdc("val"),
        classes=_NINETEEN,
    ),
    "cityscapes_to_dark_zurich": _daformer_task(
        _HALF,
        (540, 960),
        source=_cityscapes("train"),
        validation=_cityscapes("val"),
        target=_dark_zurich("train"),
        test=_dark_zurich("val"),
        classes=_NINETEEN,
    ),
    **{
        f"cityscapes_to_{name}": Benchmark(
            label_space="cityscapes19",
            source=_cityscapes("train"),
            validation=_cityscapes("val"),
            target=_weather("train", *weather),
            test=_weather("val", *weather),
            geometry=_daformer((640, 1280), (640, 640), 0.75),
            target_geometry=_daformer((640, 1280), (640, 640)),
            sampling=_RARE_CLASS,
            model=_DAFORMER,
            evaluation={"size": (640, 1280), "filter": "opencv_bilinear"},
            classes=_NINETEEN,
        )
        for name, weather in (
            ("foggy", ("foggy",)),
            ("rain", ("rain",)),
            ("foggy_rain", ("foggy", "rain")),
        )
    },
    # SS-ADA's parking lots from above; its data is not public yet.
    "parking_2023_to_2024": Benchmark(
        label_space="parking7",
        source=_parking(2023, "train"),
        validation=_parking(2023, "val"),
        target=_parking(2024, "train"),
        test=_parking(2024, "val"),
        geometry={
            "name": "ss_ada",
            "crop_size": (800, 800),
            "ratios": (0.5, 2.0),
            "flip_probability": 0.5,
            "filter": "pillow_bilinear",
        },
        model=_SS_ADA,
        classes=LABEL_SPACES["parking7"].classes,
    ),
}
