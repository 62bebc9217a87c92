"""Every benchmark's numbers a second time, looked up in what the papers published.

Nothing here is read off `uda_jax.benchmark_table`: who changes a number there has to
find the same number published.  Sizes are (height, width).
"""

import pytest

from uda_jax.benchmark_table import BENCHMARKS
from uda_jax.benchmarks import base_config

# --- scored classes -------------------------------------------------------------------

NINETEEN = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light",
    "traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car", "truck",
    "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
SIXTEEN = tuple(
    NINETEEN[i] for i in (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18)
)
THIRTEEN = tuple(NINETEEN[i] for i in (0, 1, 2, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18))
CAMVID = (
    "sky", "building", "pole", "road", "sidewalk", "vegetation", "traffic sign",
    "fence", "car", "person", "bicyclist",
)  # fmt: skip
PARKING = (
    "background", "parking line", "white line", "yellow line", "zebra crossing",
    "arrow", "slope",
)  # fmt: skip

ALL_19 = {"classes": NINETEEN, "also": {}}
ALL_16 = {"classes": SIXTEEN, "also": {"13 classes": THIRTEEN}}
ALL_13 = {"classes": THIRTEEN, "also": {}}
ALL_CAMVID = {"classes": CAMVID, "also": {}}
ALL_PARKING = {"classes": PARKING, "also": {}}

# --- networks -------------------------------------------------------------------------

BISENET = dict(name="bisenet", backbone="resnet18", width=1.0)
TUFL_NET = {**BISENET, "form": "tufl"}
SS_ADA_NET = {**BISENET, "form": "ss_ada"}
# Caffe's mean and BGR in either.  MaxSquare's return inside of the loop leaves two of
# the four branches; it trains all of BatchNorm's factors but the stem's, ADVENT none.
DEEPLAB = dict(
    name="deeplabv2",
    backbone="resnet101",
    form="original",
    multi_level=True,
    input_form="caffe_bgr",
    width=1.0,
)
MAXSQUARE_NET = {**DEEPLAB, "branches": 2, "affine": "stem_frozen"}
ADVENT_NET = {**DEEPLAB, "branches": 4, "affine": "frozen"}
DAFORMER_NET = dict(name="daformer", backbone="mit_b5")

# --- geometry and evaluation ----------------------------------------------------------


def tufl(crop_size, filter="pillow_bilinear"):
    return dict(
        name="tufl",
        crop_size=crop_size,
        resize=(),
        scales=(0.75, 1, 1.25, 1.5),
        flip_probability=0.5,
        filter=filter,
        frozen=False,
    )


def mirrored(size):
    return dict(
        name="maxsquare", size=size, flip_probability=0.5, filter="pillow_bicubic"
    )


def resized(size):
    return dict(name="advent", size=size, filter="pillow_bicubic")


def varied(resize, crop_size, cat_max_ratio):
    return dict(
        name="daformer",
        resize=resize,
        crop_size=crop_size,
        cat_max_ratio=cat_max_ratio,
        flip_probability=0.5,
        filter="opencv_bilinear",
    )


def long_side(crop_size):
    return dict(
        name="ss_ada",
        crop_size=crop_size,
        ratios=(0.5, 2),
        flip_probability=0.5,
        filter="pillow_bilinear",
    )


def evaluation(**changes):
    whole = dict(mode="whole", size=(), label_size=(), filter="area", window=())
    other = dict(stride=(), scales=(1,), flip=False, batch_size=1)
    resize = dict(resize="probabilities", align_corners=True)
    return {**whole, **other, **resize, **changes}


UNIFORM = {"name": "epochs"}
RARE = dict(name="rare_class", temperature=0.01, min_pixels=3000, min_crop_ratio=0.5)


def maxsquare(source_size, target_size=(512, 1024)):
    # Labels are made smaller too when it is scored, whatever the target's size was.
    return dict(
        geometries=(mirrored(source_size), mirrored(target_size)),
        sampling=UNIFORM,
        model=MAXSQUARE_NET,
        evaluation=evaluation(
            size=(512, 1024), label_size=(512, 1024), filter="pillow_bicubic"
        ),
    )


def advent(source_size):
    # Images are made smaller when it is scored, labels are not.
    return dict(
        geometries=(resized(source_size), resized((512, 1024))),
        sampling=UNIFORM,
        model=ADVENT_NET,
        evaluation=evaluation(
            size=(512, 1024), filter="pillow_bicubic", resize="direct"
        ),
    )


def daformer(source_size, target_size, crop_size=(512, 512)):
    # The target's labels choose no crop.
    return dict(
        geometries=(
            varied(source_size, crop_size, 0.75),
            varied(target_size, crop_size, 1.0),
        ),
        sampling=RARE,
        model=DAFORMER_NET,
        evaluation=evaluation(
            size=target_size,
            filter="opencv_bilinear",
            resize="logits",
            align_corners=False,
        ),
    )


def bisenet(geometry, model, **changes):
    return dict(
        geometries=(geometry, geometry),
        sampling=UNIFORM,
        model=model,
        evaluation=evaluation(**changes),
    )


TUFL = bisenet(tufl((640, 1280)), TUFL_NET, mode="chips", window=(647, 647))
MAXSQUARE = maxsquare((512, 1024))
ADVERSE = daformer((512, 1024), (540, 960))
VBLC = daformer((640, 1280), (640, 1280), (640, 640))
MINICITY = bisenet(tufl((192, 384), "area"), TUFL_NET, batch_size=4)
CAMVID_DUSK = bisenet(tufl((352, 480), "area"), TUFL_NET, batch_size=4)
OWN = bisenet(tufl((512, 512)), TUFL_NET)
SS_ADA_PARKING = bisenet(long_side((800, 800)), SS_ADA_NET)
SS_ADA_CITY = bisenet(
    long_side((640, 640)),
    SS_ADA_NET,
    mode="sliding",
    window=(640, 640),
    stride=(426, 426),  # int(640 * 2 / 3)
)

# --- data -----------------------------------------------------------------------------

# Root, and the options that leave everything in.
READERS = {
    "cityscapes": dict(root="data/cityscapes", fraction=1, label_files="label_ids"),
    "cityscapes_weather": dict(
        root="data/cityscapes", betas=(), label_files="label_ids"
    ),
    "gta5": dict(root="data/gta5", label_files="label_ids"),
    "synthia": dict(root="data/synthia", label_files="label_ids"),
    "crosscity": dict(root="data/crosscity"),
    "acdc": dict(root="data/acdc", conditions=(), label_files="train_ids"),
    "dark_zurich": dict(root="data/dark_zurich", label_files="train_ids"),
    "parking": {},
    "camvid": dict(root="data/camvid"),
}


def row(reader, split, **options):
    whole = {"reader": reader, "list_file": "", "split": split, **READERS[reader]}
    return {**whole, **options}


CITYSCAPES = CITY, _ = row("cityscapes", "train"), row("cityscapes", "val")
GTA5 = row("gta5", "all")  # 24,966 images
GTA5_TRAIN = row("gta5", "train")  # 12,403 images: MaxSquare's alone
FOLDER = dict(
    reader="folder",
    root="",
    images="images",
    labels_dir="labels",
    image_suffix="",
    label_suffix=".png",
    coding="label_ids",
)
SYNTHIA, SYNTHIA_TRAIN = row("synthia", "all"), row("synthia", "train")
MINI = row("cityscapes", "train", root="data/minicity/source")
MINI_CITY = tuple(
    row("crosscity", split, city="Minicity", root="data/minicity/target")
    for split in ("Train", "Test")
)
DUSK = tuple(row("camvid", split, sequences=("0001TP",)) for split in ("train", "test"))
DAY = row("camvid", "train", sequences=("0006R0", "0016E5"))


def of_city(city):
    return tuple(row("crosscity", split, city=city) for split in ("Train", "Test"))


def of_weather(*weather):
    return tuple(
        row("cityscapes_weather", split, weather=weather) for split in ("train", "val")
    )


RIO, ROME, TAIPEI, TOKYO = map(of_city, ("Rio", "Rome", "Taipei", "Tokyo"))
ACDC = row("acdc", "train"), row("acdc", "val")
DARK_ZURICH = row("dark_zurich", "train"), row("dark_zurich", "val")
PARKING_2023 = row("parking", "train", root="data/bev_2023")
PARKING_2024 = tuple(
    row("parking", split, root="data/bev_2024") for split in ("train", "val")
)

# --- the table ------------------------------------------------------------------------

# Benchmark: label space, source, (target, test), the recipe, the scored classes.
PUBLISHED = {
    # Ours: no paper's.
    "minicity": ("crosscity13", MINI, MINI_CITY, MINICITY, ALL_13),
    "minicity_oracle": ("crosscity13", MINI_CITY[0], MINI_CITY, MINICITY, ALL_13),
    "camvid_day_to_dusk": ("camvid11", DAY, DUSK, CAMVID_DUSK, ALL_CAMVID),
    "camvid_dusk_oracle": ("camvid11", DUSK[0], DUSK, CAMVID_DUSK, ALL_CAMVID),
    "own": ("", FOLDER, (FOLDER, FOLDER), OWN, {"classes": (), "also": {}}),
    # TUFL
    "cityscapes_to_rio": ("crosscity13", CITY, RIO, TUFL, ALL_13),
    "cityscapes_to_rome": ("crosscity13", CITY, ROME, TUFL, ALL_13),
    "cityscapes_to_taipei": ("crosscity13", CITY, TAIPEI, TUFL, ALL_13),
    "cityscapes_to_tokyo": ("crosscity13", CITY, TOKYO, TUFL, ALL_13),
    # MaxSquare
    "cityscapes_to_rio_maxsquare": ("crosscity13", CITY, RIO, MAXSQUARE, ALL_13),
    "cityscapes_to_rome_maxsquare": ("crosscity13", CITY, ROME, MAXSQUARE, ALL_13),
    "cityscapes_to_taipei_maxsquare": ("crosscity13", CITY, TAIPEI, MAXSQUARE, ALL_13),
    "cityscapes_to_tokyo_maxsquare": ("crosscity13", CITY, TOKYO, MAXSQUARE, ALL_13),
    "gta5_to_cityscapes_maxsquare": (
        "cityscapes19", GTA5_TRAIN, CITYSCAPES, maxsquare((720, 1280)), ALL_19
    ),
    "gta5_to_cityscapes_maxsquare_multi": (
        "cityscapes19", GTA5_TRAIN, CITYSCAPES,
        maxsquare((720, 1280), (640, 1280)), ALL_19,
    ),
    "synthia_to_cityscapes_maxsquare": (
        "cityscapes16", SYNTHIA_TRAIN, CITYSCAPES, maxsquare((760, 1280)), ALL_16
    ),
    # ADVENT
    "gta5_to_cityscapes_advent": (
        "cityscapes19", GTA5, CITYSCAPES, advent((720, 1280)), ALL_19
    ),
    "synthia_to_cityscapes_advent": (
        "cityscapes16", SYNTHIA, CITYSCAPES, advent((760, 1280)), ALL_16
    ),
    # DAFormer, and EBDA
    "gta5_to_cityscapes_daformer": (
        "cityscapes19", GTA5, CITYSCAPES,
        daformer((720, 1280), (512, 1024)), ALL_19,
    ),
    "synthia_to_cityscapes_daformer": (
        "cityscapes19", SYNTHIA, CITYSCAPES,
        daformer((760, 1280), (512, 1024)), ALL_16,
    ),
    "cityscapes_to_acdc": ("cityscapes19", CITY, ACDC, ADVERSE, ALL_19),
    "cityscapes_to_dark_zurich": ("cityscapes19", CITY, DARK_ZURICH, ADVERSE, ALL_19),
    # VBLC
    "cityscapes_to_foggy": ("cityscapes19", CITY, of_weather("foggy"), VBLC, ALL_19),
    "cityscapes_to_rain": ("cityscapes19", CITY, of_weather("rain"), VBLC, ALL_19),
    "cityscapes_to_foggy_rain": (
        "cityscapes19", CITY, of_weather("foggy", "rain"), VBLC, ALL_19
    ),
    # SS-ADA
    "gta5_to_cityscapes_ss_ada": (
        "cityscapes19", GTA5, CITYSCAPES, SS_ADA_CITY, ALL_19
    ),
    "parking_2023_to_2024": (
        "parking7", PARKING_2023, PARKING_2024, SS_ADA_PARKING, ALL_PARKING
    ),
}  # fmt: skip


def test_every_benchmark_is_in_the_table():
    assert set(PUBLISHED) == set(BENCHMARKS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_benchmark_has_the_published_numbers(name):
    space, source, (target, test), recipe, scored = PUBLISHED[name]
    config = base_config(name).to_dict()
    data = config["data"]
    found = {
        "label_space": config["label_space"],
        "source": config["source"],
        "target": config["target"],
        "test": config["test"],
        "geometries": (data["source"], data["target"]),
        "sampling": data["sampling"],
        "model": config["model"],
        "evaluation": config["evaluation"],
        "classes": BENCHMARKS[name].classes,
        "also": BENCHMARKS[name].also,
    }
    expected = {"label_space": space, "source": source, "target": target, "test": test}
    assert found == {**expected, **recipe, **scored}
