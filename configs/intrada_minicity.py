r"""IntraDA on minicity: ADVENT, ranking, ADVENT again from easy to hard images.

    bash scripts/intrada.sh configs/intrada_minicity.py runs/intrada_minicity

does all three; by hand, with the same folders:

    python -m uda_jax.main --config configs/intrada_minicity.py:inter \
        --workdir runs/intrada_minicity/inter
    python -m uda_jax.rank --workdir runs/intrada_minicity/inter \
        --output runs/intrada_minicity/rank
    python -m uda_jax.main --config configs/intrada_minicity.py \
        --workdir runs/intrada_minicity/intra

Pan et al., "Unsupervised Intra-domain Adaptation for Semantic Segmentation through
Self-Supervision", CVPR 2020.  `:inter` is stage 1; `:intra`, the default, has the easy
target images with pseudo-labels for its source and the hard ones for its target, and
starts where stage 1 did, as the authors do (from stage 1 with
--config.init_from=runs/intrada_minicity/inter).  `:self_training` learns from the
pseudo-labels alone, `:intra_minent` has another method in stage 3.  Run
configs/source_only_minicity.py:deeplabv2 first.  Here stage 3 gains nothing over stage
1: docs/results.md says how much and why.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks
from uda_jax.benchmark_rows import SMALL_DEEPLAB

FOLDER = "runs/intrada_minicity"

VIEWS = dict(source_view="tufl", target_view="none", statistics="separate")
# The weights are those of configs/small_methods.py.
ADVENT = dict(
    name="advent",
    signal="self_information",
    gan="vanilla",
    adversarial_weight=0.1,
    adversarial_aux_weight=0.02,
    aux_weight=0.1,
    class_weights="middle",
    **VIEWS,
)
MINENT = dict(
    name="minent",
    entropy="normalized",
    entropy_weight=1.0,
    entropy_aux_weight=0.2,
    aux_weight=0.1,
    class_weights="middle",
    **VIEWS,
)
SOURCE = dict(
    name="source_only",
    source_loss="regular",
    heads="deep",
    aux_weight=0.1,
    class_weights="middle",
    view="tufl",
    color_strength=1.0,
)
METHODS = {
    "intra": ADVENT,
    "intra_minent": MINENT,
    "self_training": SOURCE,
    "inter": ADVENT,
}


def get_config(stage: str = "intra") -> ConfigDict:
    method = benchmarks.choose(METHODS, stage)
    config = benchmarks.base_config("minicity")
    config.init_from = "runs/source_only_minicity_deeplabv2"
    if stage == "inter":
        config.next = tuple(
            f"rank configs/intrada_minicity.py:{name}"
            for name in METHODS
            if name != stage
        )
    else:
        for domain, part in (("source", "easy"), ("target", "hard")):
            root = f"{FOLDER}/rank/{part}.jsonl"
            config[domain] = ConfigDict(dict(reader="manifest", root=root))
    config.batch_size = 4
    config.steps = 200
    for geometry in (config.data.source, config.data.target):
        geometry.resize = (128, 256)
        geometry.crop_size = (96, 192)
        geometry.scales = (1.0, 1.25)
    config.evaluation.size = (128, 256)
    config.model = ConfigDict(SMALL_DEEPLAB)
    config.optimizer = ConfigDict(
        dict(
            name="sgd",
            learning_rate=0.003,
            momentum=0.9,
            weight_decay=5e-4,
            head_multiplier=1.0,
        )
    )
    config.schedule = ConfigDict(dict(name="poly", power=0.9, warmup_steps=0))
    config.method = ConfigDict(method)
    if method["name"] == "advent":
        config.discriminator = ConfigDict(
            dict(
                optimizer=dict(
                    name="adam",
                    learning_rate=1e-4,
                    beta1=0.9,
                    beta2=0.99,
                    eps=1e-8,
                    weight_decay=0.0,
                ),
                schedule=dict(name="poly", power=0.9, warmup_steps=0),
            )
        )
    if method["name"] == "source_only":
        config.target.reader = ""  # the hard images, if there are any, are not seen
    config.evaluate_every = 100
    config.panels_every = 200
    return config
