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

from uda_jax import benchmark_rows as rows
from uda_jax.benchmark_rows import Row
from uda_jax.labels import LABEL_SPACES

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
    model: Row = dataclasses.field(default_factory=lambda: dict(rows.BISENET))
    validation: Row = dataclasses.field(default_factory=dict)
    evaluation: Row = dataclasses.field(default_factory=dict)
    classes: tuple[str, ...] = _THIRTEEN
    also: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


_HALF = (512, 1024)  # of Cityscapes
# mmseg's evaluation: DAFormer's, EBDA's and VBLC's.
_MMSEG = {"filter": "opencv_bilinear", "resize": "logits", "align_corners": False}


def _maxsquare_task(source_size, target_size=_HALF, **fields) -> Benchmark:
    # MaxSquare scores at the reduced size, labels too: not comparable with the others.
    # A larger target trains alone: the evaluation program takes half of Cityscapes.
    evaluation = {"size": _HALF, "label_size": _HALF}
    return Benchmark(
        geometry=rows.maxsquare(source_size),
        target_geometry=rows.maxsquare(target_size),
        model=rows.deeplab(2, "stem_frozen"),
        evaluation={**evaluation, "filter": "pillow_bicubic"},
        **fields,
    )


def _advent_task(source_size, **fields) -> Benchmark:
    return Benchmark(
        geometry=rows.advent(source_size),
        target_geometry=rows.advent(_HALF),
        model=rows.deeplab(4, "frozen"),
        evaluation={"size": _HALF, "filter": "pillow_bicubic", "resize": "direct"},
        **fields,
    )


def _daformer_task(source_size, target_size=_HALF, **fields) -> Benchmark:
    return Benchmark(
        label_space="cityscapes19",
        geometry=rows.daformer(source_size, cat_max_ratio=0.75),
        target_geometry=rows.daformer(target_size),
        sampling=rows.RARE_CLASS,
        model=rows.DAFORMER,
        evaluation={"size": target_size, **_MMSEG},
        **fields,
    )


def _to_city(city: str) -> dict[str, Row]:
    return {
        "label_space": "crosscity13",
        "source": rows.cityscapes("train"),
        "validation": rows.cityscapes("val"),
        "target": rows.crosscity(city, "Train"),
        "test": rows.crosscity(city, "Test"),
    }


_TO_CITYSCAPES = {"target": rows.cityscapes("train"), "test": rows.cityscapes("val")}
_IN_19 = {"label_space": "cityscapes19", "classes": _NINETEEN}
_IN_16 = {
    "label_space": "cityscapes16",
    "classes": _SIXTEEN,
    "also": {"13 classes": _THIRTEEN},
}

# --- built in, or small ---------------------------------------------------------------

_MINICITY = Benchmark(
    label_space="crosscity13",
    source=rows.cityscapes("train", "data/minicity/source"),
    validation=rows.cityscapes("val", "data/minicity/source"),
    target=rows.crosscity("Minicity", "Train", "data/minicity/target"),
    test=rows.crosscity("Minicity", "Test", "data/minicity/target"),
    geometry=rows.tufl((192, 384), "area"),
    evaluation={"batch_size": 4},
)
_CAMVID_DUSK = Benchmark(
    label_space="camvid11",
    source=rows.camvid("train", "0006R0", "0016E5"),
    validation=rows.camvid("val"),
    target=rows.camvid("train", "0001TP"),
    test=rows.camvid("test", "0001TP"),
    geometry=rows.tufl((352, 480), "area"),
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
        source=rows.OWN,
        target=rows.OWN,
        test=rows.OWN,
        geometry=rows.tufl((512, 512)),
        classes=(),
    ),
    # Cityscapes to CrossCity: TUFL's crops and its windows of 647 pixels.
    **{
        f"cityscapes_to_{key}": Benchmark(
            geometry=rows.tufl((640, 1280)),
            evaluation={"mode": "chips", "window": (647, 647)},
            **_to_city(city),
        )
        for key, city in CITIES.items()
    },
    **{
        f"cityscapes_to_{key}_maxsquare": _maxsquare_task(_HALF, **_to_city(city))
        for key, city in CITIES.items()
    },
    **{
        f"gta5_to_cityscapes_{name}": _maxsquare_task(
            (720, 1280),
            target_size,
            source=rows.gta5("train"),
            validation=rows.gta5("val"),
            **_TO_CITYSCAPES,
            **_IN_19,
        )
        # IW+Multi, the paper's best, learns from a larger target.
        for name, target_size in (
            ("maxsquare", _HALF),
            ("maxsquare_multi", (640, 1280)),
        )
    },
    "gta5_to_cityscapes_advent": _advent_task(
        (720, 1280), source=rows.gta5("all"), **_TO_CITYSCAPES, **_IN_19
    ),
    "gta5_to_cityscapes_daformer": _daformer_task(
        (720, 1280), source=rows.gta5("all"), **_TO_CITYSCAPES, classes=_NINETEEN
    ),
    "synthia_to_cityscapes_maxsquare": _maxsquare_task(
        (760, 1280),
        source=rows.synthia("train"),
        validation=rows.synthia("val"),
        **_TO_CITYSCAPES,
        **_IN_16,
    ),
    "synthia_to_cityscapes_advent": _advent_task(
        (760, 1280), source=rows.synthia("all"), **_TO_CITYSCAPES, **_IN_16
    ),
    # A network of 19 classes, three of which SYNTHIA never shows.
    "synthia_to_cityscapes_daformer": _daformer_task(
        (760, 1280),
        source=rows.synthia("all"),
        **_TO_CITYSCAPES,
        classes=_SIXTEEN,
        also={"13 classes": _THIRTEEN},
    ),
    **{
        f"cityscapes_to_{name}": _daformer_task(
            _HALF,
            (540, 960),
            source=rows.cityscapes("train"),
            validation=rows.cityscapes("val"),
            target=row("train"),
            test=row("val"),
            classes=_NINETEEN,
        )
        for name, row in (("acdc", rows.acdc), ("dark_zurich", rows.dark_zurich))
    },
    **{
        f"cityscapes_to_{name}": Benchmark(
            label_space="cityscapes19",
            source=rows.cityscapes("train"),
            validation=rows.cityscapes("val"),
            target=rows.weather("train", *weather),
            test=rows.weather("val", *weather),
            geometry=rows.daformer((640, 1280), (640, 640), 0.75),
            target_geometry=rows.daformer((640, 1280), (640, 640)),
            sampling=rows.RARE_CLASS,
            model=rows.DAFORMER,
            evaluation={"size": (640, 1280), **_MMSEG},
            classes=_NINETEEN,
        )
        for name, weather in (
            ("foggy", ("foggy",)),
            ("rain", ("rain",)),
            ("foggy_rain", ("foggy", "rain")),
        )
    },
    # SS-ADA's Cityscapes recipe with a source, whose scores it has not published yet.
    "gta5_to_cityscapes_ss_ada": Benchmark(
        geometry=rows.ss_ada((640, 640)),
        model=rows.SS_ADA,
        source=rows.gta5("all"),
        evaluation={"mode": "sliding", "window": (640, 640), "stride": (426, 426)},
        **_TO_CITYSCAPES,
        **_IN_19,
    ),
    # SS-ADA's parking lots from above; its data is not public yet.
    "parking_2023_to_2024": Benchmark(
        label_space="parking7",
        source=rows.parking(2023, "train"),
        validation=rows.parking(2023, "val"),
        target=rows.parking(2024, "train"),
        test=rows.parking(2024, "val"),
        geometry=rows.ss_ada((800, 800)),
        model=rows.SS_ADA,
        classes=LABEL_SPACES["parking7"].classes,
    ),
}
