r"""Supervised training on minicity's source city: what adaptation starts from.

    python -m uda_jax.main --config configs/source_only_minicity.py \
        --workdir runs/source_only_minicity

`:oracle` trains on the target's labels instead: the upper bound that no adaptation
sees.  `:long` takes four times as many steps: what TUFL's two stages are compared from.
`:deeplabv2`, the start of configs/small_methods.py, `:ss_ada`, that of
configs/ss_ada_minicity.py, and `:daformer` train other networks.  All are a quarter as
wide as published, MiT-B0 in its decoder alone, and start from random weights, so that
two cores do it in minutes.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks
from uda_jax.benchmark_rows import SMALL_DAFORMER, SMALL_DEEPLAB

BISENET = dict(name="bisenet", backbone="resnet18", form="tufl", width=0.25)
SS_ADA = {**BISENET, "form": "ss_ada"}

SGD = dict(name="sgd", learning_rate=0.02, momentum=0.9, weight_decay=5e-4)
ADAMW = dict(
    name="adamw", learning_rate=1e-3, beta1=0.9, beta2=0.999, weight_decay=0.01
)

# Those of configs/small_methods.py.
METHODS = (
    *("source", "minent", "maxsquare", "maxsquare_iw", "maxsquare_iw_multi"),
    *("advent", "adaptsegnet", "tufl"),
)
TUFL = ("configs/tufl_minicity.py", "configs/tufl_minicity.py:adaptive")
SELF_TRAINING = ("daformer", "dacs", "ebda_v1", "ebda_v2")
# Benchmark, network, optimizer, steps and the stages that follow.
VARIANTS = {
    "source": ("minicity", BISENET, SGD, 900, TUFL),
    "long": ("minicity", BISENET, SGD, 3600, TUFL),
    "oracle": ("minicity_oracle", BISENET, SGD, 900, ()),
    "deeplabv2": (
        "minicity",
        SMALL_DEEPLAB,
        SGD,
        900,
        tuple(f"configs/small_methods.py:minicity_{name}" for name in METHODS),
    ),
    "ss_ada": ("minicity", SS_ADA, SGD, 900, ("configs/ss_ada_minicity.py",)),
    "daformer": (
        "minicity",
        SMALL_DAFORMER,
        ADAMW,
        900,
        tuple(f"configs/daformer_minicity.py:{name}" for name in SELF_TRAINING),
    ),
}


def get_config(variant: str = "source") -> ConfigDict:
    benchmark, model, optimizer, steps, following = benchmarks.choose(VARIANTS, variant)
    config = benchmarks.base_config(benchmark)
    config.next = following
    config.model = ConfigDict(model)
    config.optimizer = ConfigDict({**optimizer, "head_multiplier": 1.0})
    config.batch_size = 4
    config.steps = steps
    # Half size, for training and for the network's eyes in the evaluation: whole scenes
    # in the receptive field teach a network from scratch faster than details do.
    for geometry in (config.data.source, config.data.target):
        geometry.crop_size = (96, 192)
        geometry.resize = (128, 256)
        geometry.scales = (1.0, 1.25)
    config.evaluation.size = (128, 256)
    config.method = ConfigDict(dict(name="source_only", class_weights="middle"))
    config.evaluate_every = steps // 2
    config.panels_every = steps
    return config
