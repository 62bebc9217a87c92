r"""Supervised training on CamVid's day sequences, tested at dusk.

    python -m uda_jax.main --config configs/source_only_camvid.py \
        --workdir runs/source_only_camvid

What configs/tufl_camvid_dusk.py starts from.  `:oracle` trains on the 62 labelled dusk
images instead.  `:deeplabv2` trains the network that configs/small_methods.py starts
from, `:daformer` that of configs/daformer_camvid_dusk.py.  Numbers and intervals:
docs/results.md.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks
from uda_jax.benchmark_rows import SMALL_DAFORMER, SMALL_DEEPLAB

BISENET = dict(name="bisenet", backbone="resnet18", form="tufl", width=0.25)
SGD = dict(name="sgd", learning_rate=0.05, momentum=0.9, weight_decay=5e-4)
ADAMW = dict(
    name="adamw", learning_rate=1e-3, beta1=0.9, beta2=0.999, weight_decay=0.01
)
# Those of configs/small_methods.py.
METHODS = (
    *("source", "minent", "maxsquare", "maxsquare_iw", "maxsquare_iw_multi"),
    *("advent", "adaptsegnet", "tufl"),
)
TUFL = ("configs/tufl_camvid_dusk.py", "configs/tufl_camvid_dusk.py:adaptive")
SELF_TRAINING = ("daformer", "dacs", "ebda_v1", "ebda_v2")
# Benchmark, network, optimizer, steps and the stages that follow.
VARIANTS = {
    "source": ("camvid_day_to_dusk", BISENET, SGD, 450, TUFL),
    "long": ("camvid_day_to_dusk", BISENET, SGD, 1800, TUFL),
    "oracle": ("camvid_dusk_oracle", BISENET, SGD, 450, ()),
    "deeplabv2": (
        "camvid_day_to_dusk",
        SMALL_DEEPLAB,
        SGD,
        450,
        tuple(f"configs/small_methods.py:camvid_{name}" for name in METHODS),
    ),
    "daformer": (
        "camvid_day_to_dusk",
        SMALL_DAFORMER,
        ADAMW,
        450,
        tuple(f"configs/daformer_camvid_dusk.py:{name}" for name in SELF_TRAINING),
    ),
}


def get_config(variant: str = "source") -> ConfigDict:
    benchmark, model, optimizer, steps, following = benchmarks.choose(VARIANTS, variant)
    config = benchmarks.base_config(benchmark)
    config.next = following
    config.model = ConfigDict(model)
    config.batch_size = 4
    config.steps = steps
    # Half size, as in configs/source_only_minicity.py.
    for geometry in (config.data.source, config.data.target):
        geometry.resize = (180, 240)
        geometry.crop_size = (128, 192)
        geometry.scales = (1.0, 1.25)
    config.evaluation.size = (180, 240)
    config.optimizer = ConfigDict({**optimizer, "head_multiplier": 1.0})
    config.method = ConfigDict(dict(name="source_only", class_weights="none"))
    config.evaluate_every = steps
    config.panels_every = steps
    return config
