"""The published runs' numbers a second time, looked up in what the papers' programs do.

Nothing here is read off configs/: who changes a number there has to find the same
number published.  Sizes and data are the subject of test_benchmark_table.py; minicity
and CamVid have no published run.
"""

import pytest
from test_configs import CASES, get_config

from uda_jax.methods import METHODS

# --- optimizers and schedules ---------------------------------------------------------

# One optimizer for MaxSquare, AdaptSegNet and ADVENT: heads learn ten times as fast,
# biases and BatchNorm decay too, and most parameters stand in the list several times.
SGD = dict(
    name="sgd",
    learning_rate=2.5e-4,
    momentum=0.9,
    weight_decay=5e-4,
    head_multiplier=10,
    decay_of="all",
    duplicates="legacy_inplace",
)
# TUFL's command says 0.5e-5 and its program multiplies every group's rate by ten.
TUFL_SGD = dict(
    name="sgd", learning_rate=5e-5, momentum=0.9, weight_decay=5e-4, head_multiplier=1
)


def poly(**horizon):
    return dict(name="poly", power=0.9, warmup_steps=0, **horizon)


def adversaries(horizon):
    adam = dict(name="adam", learning_rate=1e-4, beta1=0.9, beta2=0.99, eps=1e-8)
    return dict(optimizer={**adam, "weight_decay": 0}, schedule=poly(horizon=horizon))


# --- methods --------------------------------------------------------------------------

# MaxSquare mirrors and blurs either domain, ADVENT and AdaptSegNet only resize.
BLURRED = dict(source_view="maxsquare", target_view="maxsquare")
PLAIN = dict(source_view="none", target_view="none")
TWO = dict(class_weights="none", statistics="separate")  # passes of BatchNorm

SOURCE = dict(
    name="source_only",
    class_weights="none",
    source_loss="valid",
    heads="last",
    aux_weight=0.1,
    view="maxsquare",
)
SOURCE_MULTI = {**SOURCE, "heads": "weighted"}
PSEUDO_LABELS = {**SOURCE_MULTI, "view": "none"}
MINENT = dict(
    name="minent",
    entropy="per_class",
    entropy_weight=0.1,
    entropy_aux_weight=0,
    aux_weight=0,
    **BLURRED,
    **TWO,
)
MINENT_ADVENT = dict(
    name="minent",
    entropy="normalized",
    entropy_weight=0.001,
    entropy_aux_weight=0.0002,
    aux_weight=0.1,
    **PLAIN,
    **TWO,
)
MAXSQUARE = dict(
    name="maxsquare",
    target_loss="max_square",
    target_weight=0.1,
    image_ratio=0,
    multi_level=False,
    **BLURRED,
    **TWO,
)
IW = {**MAXSQUARE, "image_ratio": 0.2}
IW_MULTI = {**IW, "multi_level": True, "aux_weight": 0.1, "threshold": 0.95}
IW_MULTI_GTA5 = {**IW_MULTI, "target_weight": 0.09}
IW_MULTI_CITY = {**IW_MULTI, "threshold": 0.98}
ADVENT = dict(
    name="advent",
    signal="self_information",
    gan="vanilla",
    adversarial_weight=0.001,
    adversarial_aux_weight=0.0002,
    aux_weight=0.1,
    **PLAIN,
    **TWO,
)
ADAPTSEGNET = {**ADVENT, "signal": "softmax"}
ADAPTSEGNET_SINGLE = {**ADAPTSEGNET, "adversarial_aux_weight": 0, "aux_weight": 0}
LEAST_SQUARES = {
    **ADAPTSEGNET_SINGLE,
    "gan": "least_squares",
    "adversarial_weight": 0.01,
}
TUFL = dict(
    name="tufl",
    unsup_loss="focal",
    unsup_weight=0.08,
    gamma=2,
    threshold=0.8,
    fraction=0.8,
    sharpness=8,
    momentum=0.9,
    threshold_updates="per_head",
    class_weights="middle",
    source_loss="regular",
    heads="deep",
)
# Stage two: the command's weight is 0.5, the rest are the program's defaults; "whole"
# turns on what the command leaves off.
TUFL_MIX = dict(
    name="single",
    weight=0.5,
    confidence=0.968,
    with_ignore=True,
    long_tail_probability=0,
    long_tail_choice="uniform",
    related="none",
)
TUFL_WHOLE_MIX = {
    **TUFL_MIX,
    "long_tail_probability": 0.3,
    "long_tail_choice": "thresholds",
    "related": "street_crosscity13",
}
TUFL_ADAPTIVE = {**TUFL, "unsup_loss": "adaptive_focal"}
STAGE_TWO = {**TUFL, "fda_beta": 0, "mix": TUFL_MIX}
WHOLE = {**STAGE_TWO, "unsup_loss": "adaptive_focal", "mix": TUFL_WHOLE_MIX}

# --- networks: branches, affine, whether there is an auxiliary head -------------------

TWO_BRANCHES = (2, "stem_frozen", False)
TWO_BRANCHES_MULTI = (2, "stem_frozen", True)
ADAPTSEGNET_NET, ADAPTSEGNET_NET_SINGLE = (2, "frozen", True), (2, "frozen", False)
FOUR_BRANCHES = (4, "frozen", True)

# --- the table ------------------------------------------------------------------------

CITIES = ("rome", "rio", "tokyo", "taipei")
# Steps and horizon.  80,000 of 200,000; ten epochs of 2,975 in a schedule of 2,976
# each; ADVENT's loop makes one step more than its 120,000, its MinEnt's does not.
FROM_IMAGENET, TEN_EPOCHS = (80_000, 200_000), (29_750, 29_760)
ASN_STEPS, ON_SYNTHIA = (150_000, 250_000), (90_000, 90_000)

# (steps, horizon), network, method, scored with mirror images; batches are of one image
PUBLISHED = {
    "source_only_synthetic:gta5": (FROM_IMAGENET, TWO_BRANCHES, SOURCE, True),
    "source_only_synthetic:synthia": (FROM_IMAGENET, TWO_BRANCHES, SOURCE, False),
    **{
        f"source_only_{name}": (FROM_IMAGENET, TWO_BRANCHES_MULTI, SOURCE_MULTI, True)
        for name in (
            *("synthetic:gta5_multi", "synthetic:synthia_multi"),
            "crosscity:multi",
        )
    },
    **{
        f"source_only_crosscity:{city}": (FROM_IMAGENET, TWO_BRANCHES, SOURCE, True)
        for city in CITIES
    },
    # SYNTHIA's scores are of a README whose commands, but the last, have no mirrors.
    **{
        f"{name}:{task}": (TEN_EPOCHS, TWO_BRANCHES, method, task != "synthia")
        for name, method in (
            *(("minent", MINENT), ("maxsquare", MAXSQUARE)),
            ("maxsquare_iw", IW),
        )
        for task in ("gta5", "synthia", *CITIES)
    },
    **{
        f"maxsquare_iw_multi:{task}": (TEN_EPOCHS, TWO_BRANCHES_MULTI, method, True)
        for task, method in (
            *(("gta5", IW_MULTI_GTA5), ("synthia", IW_MULTI)),
            *((city, IW_MULTI_CITY) for city in CITIES),
        )
    },
    "minent_advent:gta5": ((120_000, 250_000), FOUR_BRANCHES, MINENT_ADVENT, False),
    "minent_advent:synthia": (ON_SYNTHIA, FOUR_BRANCHES, MINENT_ADVENT, False),
    "advent:gta5": ((120_001, 250_000), FOUR_BRANCHES, ADVENT, False),
    "advent:synthia": (ON_SYNTHIA, FOUR_BRANCHES, ADVENT, False),
    # One step less than stage 1, from the same weights.
    "intrada_gta5:inter": ((120_001, 250_000), FOUR_BRANCHES, ADVENT, False),
    "intrada_gta5:intra": ((120_000, 250_000), FOUR_BRANCHES, ADVENT, False),
    "intrada_gta5:self_training": (
        *((120_000, 250_000), FOUR_BRANCHES, PSEUDO_LABELS, False),
    ),
    "intrada_synthia:inter": (ON_SYNTHIA, FOUR_BRANCHES, ADVENT, False),
    "intrada_synthia:intra": (ON_SYNTHIA, FOUR_BRANCHES, ADVENT, False),
    "intrada_synthia:self_training": (
        *(ON_SYNTHIA, FOUR_BRANCHES, PSEUDO_LABELS, False),
    ),
    "adaptsegnet:gta5": (ASN_STEPS, ADAPTSEGNET_NET, ADAPTSEGNET, False),
    "adaptsegnet:synthia": (ASN_STEPS, ADAPTSEGNET_NET, ADAPTSEGNET, False),
    "adaptsegnet:single": (
        *(ASN_STEPS, ADAPTSEGNET_NET_SINGLE, ADAPTSEGNET_SINGLE, False),
    ),
    "adaptsegnet:least_squares": (
        *(ASN_STEPS, ADAPTSEGNET_NET_SINGLE, LEAST_SQUARES, False),
    ),
}
TUFL_CITIES = {
    f"{name}:{city}{ending}": method
    for city in CITIES
    for name, ending, method in (
        ("tufl_rio", "", TUFL),
        ("tufl_rio", "_adaptive", TUFL_ADAPTIVE),
        ("tufl_stage2_rio", "_published", STAGE_TWO),
        ("tufl_stage2_rio", "", WHOLE),
    )
}
# TUFL's start, and how TUFL was trained on GTA5 and SYNTHIA: nobody published it.
UNPUBLISHED = (
    *("minicity", "camvid", "small_methods"),
    *("source_only_cityscapes13", "tufl_synthetic", "tufl_stage2_synthetic"),
    "ss_ada:",  # SS-ADA ships a config for its parking lots alone
)
# SS-ADA's steps, rounds, rate, and what it learns from.
PARKING = {
    "ss_ada_parking:half": (
        *(4100, ((0, 1), (680, 23), (1260, 23), (1720, 23)), 0.05, "all"),
    ),
    "ss_ada_parking:quarter": (
        *(5540, ((0, 1), (680, 11), (1320, 11), (1900, 12)), 0.05, "all"),
    ),
    # 100 epochs of 140 images in batches of four.
    "ss_ada_parking:joint": (3500, ((0, 140),), 0.01, "joint"),
    "ss_ada_parking:target_only": (3500, ((0, 140),), 0.01, "target_only"),
}

# DAFormer's, DACS's and EBDA's images of each domain and steps, their method's row, and
# whether rare classes are sampled.
THINGS = (6, 7, 11, 12, 13, 14, 15, 16, 17, 18)
SELF_TRAINING = dict(
    name="daformer",
    alpha=0.999,
    threshold=0.968,
    ignore_top=15,
    ignore_bottom=120,
    feature_weight=0.005,
    feature_classes=THINGS,
    feature_min_ratio=0.75,
    colors="daformer",
    pool_per_image=False,
    source_view="none",
    statistics="student",
)
DACS = dict(alpha=0.99, ignore_top=0, ignore_bottom=0, feature_weight=0)
BALANCE = dict(
    name="ebda", quantile=0.6, momentum=0.9999, second_forward=True, region="all"
)
V2 = {**BALANCE, "balance": "constant", "entropy": 0.4, "balance_weight": 0.1}
V1 = {**BALANCE, "balance": "quantile", "entropy": 0.6, "balance_weight": 0.01}
NO_ROWS = dict(ignore_top=0, ignore_bottom=0)
SELF_TRAINED = {
    **{
        f"daformer_{name}": (2, 40_000, {}, True)
        for name in ("gta5", "synthia", "acdc", "darkzurich")
    },
    "dacs_gta5": (2, 40_000, {**DACS, "feature_classes": ()}, False),
    "ebda_acdc:v2": (1, 50_000, V2, True),
    "ebda_acdc:v1": (1, 50_000, V1, True),
    "ebda_acdc:clean": (2, 40_000, V2, True),
    "ebda_acdc:clean_v1": (2, 40_000, V1, True),
    # The released program names this task and has no config for it.
    "ebda_foggy_rain:v2": (2, 40_000, {**V2, **NO_ROWS}, True),
    "ebda_foggy_rain:v1": (2, 40_000, {**V1, **NO_ROWS}, True),
    "ebda_foggy_rain:daformer": (2, 40_000, NO_ROWS, True),
}


def test_every_published_run_is_in_the_table():
    published = {case for case in CASES if not any(x in case for x in UNPUBLISHED)}
    assert published == {*PUBLISHED, *TUFL_CITIES, *PARKING, *SELF_TRAINED}


def test_what_the_small_self_training_runs_change():
    """What all of them have; each variant goes over that."""
    method = lambda case: get_config(f"daformer_minicity:{case}").method.to_dict()
    shared = {**method("daformer"), "name": ""}
    ours = {"alpha": 0.99, "source_view": "tufl", "statistics": "target"}
    no_rows = {"ignore_top": 0, "ignore_bottom": 0}
    assert {**ours, **no_rows}.items() <= shared.items()
    no_features = {"feature_weight": 0.0, "feature_classes": ()}
    for case, changed in {
        "dacs": no_features,
        "no_fd": no_features,
        "no_rcs": {},
        "alpha": {"alpha": 0.999},
        "published": {
            "alpha": 0.999,
            "source_view": "none",
            "statistics": "student",
        },
        "ebda_v1": {"balance": "quantile", "entropy": 0.6, "balance_weight": 0.01},
        "ebda_v2": {"balance": "constant", "entropy": 0.4, "balance_weight": 0.1},
    }.items():
        row = {**method(case), "name": ""}
        assert {**shared, **changed}.items() <= row.items(), case
        sampled = get_config(f"daformer_minicity:{case}").data.sampling.name
        assert sampled == ("uniform" if case in ("dacs", "no_rcs") else "rare_class")
    control = method("statistics")
    assert control["entropy_weight"] == 0 and control["statistics"] == "target"


@pytest.mark.parametrize("case", PUBLISHED)
def test_a_run_has_the_published_numbers(case):
    (steps, horizon), (branches, affine, multi_level), method, flip = PUBLISHED[case]
    config = get_config(case).to_dict()
    discriminator = adversaries(horizon) if method["name"] == "advent" else {}
    model = config["model"]
    assert (config["batch_size"], config["accumulate_steps"]) == (1, 1)
    assert (config["steps"], config["schedule"]) == (steps, poly(horizon=horizon))
    assert config["optimizer"] == SGD
    assert config["method"] == method
    assert config["discriminator"] == discriminator
    assert (model["name"], model["backbone"]) == ("deeplabv2", "resnet101")
    assert (model["branches"], model["affine"]) == (branches, affine)
    assert (model["multi_level"], model["width"]) == (multi_level, 1)
    assert config["batch_norm"] == "train"
    assert config["evaluation"]["flip"] == flip


@pytest.mark.parametrize("case", TUFL_CITIES)
def test_tufl_has_the_published_numbers(case):
    config = get_config(case).to_dict()
    assert (config["batch_size"], config["steps"]) == (2, 2_000)  # one on each GPU
    assert config["schedule"] == poly()
    assert config["optimizer"] == TUFL_SGD
    assert config["method"] == TUFL_CITIES[case]
    # Both of stage two's networks are stage one's.
    assert config["frozen_from"] == ""
    assert config["batch_norm"] == "frozen"
    assert not config["evaluation"]["flip"]


@pytest.mark.parametrize("case", PARKING)
def test_ss_ada_on_parking_lots(case):
    steps, rounds, rate, learns_from = PARKING[case]
    config = get_config(case).to_dict()
    assert (config["batch_size"], config["accumulate_steps"]) == (4, 1)
    assert (config["steps"], config["rounds"]) == (steps, rounds)
    assert config["active"] == {"strategy": "entropy", "labels": "dataset"}
    assert config["optimizer"] == dict(
        name="sgd",
        learning_rate=rate,
        momentum=0.9,
        weight_decay=1e-4,
        head_multiplier=10,
    )
    linear = dict(warmup_steps=1000, warmup_form="linear", warmup_start=0)
    assert config["schedule"] == dict(name="poly", power=0.9, **linear)
    assert config["model"]["form"] == "ss_ada"
    method = METHODS["ss_ada"].__kwdefaults__ | config["method"]
    assert method == dict(
        name="ss_ada",
        supervised_loss="prob_ohem",
        min_kept=200_000,
        ohem_threshold=0.7,
        class_weights="none",
        upper=2,
        threshold=0,
        class_threshold=False,
        threshold_steps=0,
        strong_weight=0.25,
        perturbed_weight=0.5,
        learns_from=learns_from,
        statistics="joint",
    )


@pytest.mark.parametrize("case", SELF_TRAINED)
def test_self_training_has_the_published_numbers(case):
    batch_size, steps, method, rare_classes = SELF_TRAINED[case]
    config = get_config(case).to_dict()
    assert (config["batch_size"], config["steps"]) == (batch_size, steps)
    assert config["accumulate_steps"] == 1
    assert config["method"] == {**SELF_TRAINING, **method}
    decay_of = "all" if case == "dacs_gta5" else "all_but_backbone_norms"
    assert config["optimizer"] == dict(
        name="adamw",
        learning_rate=6e-5,
        beta1=0.9,
        beta2=0.999,
        eps=1e-8,
        weight_decay=0.01,
        head_multiplier=10,
        decay_of=decay_of,
    )
    assert config["schedule"] == dict(
        name="mmseg_poly", power=1, warmup_steps=1500, warmup_ratio=1e-6
    )
    rare = dict(temperature=0.01, min_pixels=3000, min_crop_ratio=0.5)
    sampling = {"name": "rare_class", **rare} if rare_classes else {"name": "uniform"}
    assert config["data"]["sampling"] == sampling
    backbone = "resnet101" if case == "dacs_gta5" else "mit_b5"
    assert config["model"]["backbone"] == backbone
    assert not config["evaluation"]["flip"]
