r"""Every method beside each other: minicity, or photographs, with a small DeepLabV2.

    python -m uda_jax.main --config configs/small_methods.py:minicity_maxsquare \
        --workdir runs/small_methods_minicity_maxsquare

MaxSquare on minicity, the default; `:minicity_minent`, `:minicity_maxsquare_iw`,
`:minicity_maxsquare_iw_multi`, `:minicity_advent`, `:minicity_adaptsegnet` and
`:minicity_tufl` are the others, `:minicity_source` as many steps more on the source
alone; `:camvid_...` the same from CamVid's day to its dusk.  All have one network, the
same data, steps and learning rate; what differs stands in one table.  TUFL alone has
statistics="target", for its published form, "joint", is one pass over both domains; the
others have their published "separate".  Run first

    python -m uda_jax.main --config configs/source_only_minicity.py:deeplabv2 \
        --workdir runs/source_only_minicity_deeplabv2

or, for CamVid, configs/source_only_camvid.py:deeplabv2.  Numbers, how the weights were
chosen, and what each part contributes: docs/results.md; methods: docs/methods.md.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks
from uda_jax.benchmark_rows import SMALL_DEEPLAB

# Benchmark, start, class weights of its training, sizes at half of the images', factor
# on the weights of the target's term: without class weights CamVid's cross-entropy is a
# sixth of minicity's, so what stands against it is smaller too.
DATA = {
    "minicity": (
        *("minicity", "runs/source_only_minicity_deeplabv2", "middle"),
        *((128, 256), (96, 192), 1.0),
    ),
    "camvid": (
        *("camvid_day_to_dusk", "runs/source_only_camvid_deeplabv2", "none"),
        *((180, 240), (128, 192), 0.1),
    ),
}
TARGET_WEIGHTS = (
    *("entropy_weight", "entropy_aux_weight", "target_weight"),
    *("adversarial_weight", "adversarial_aux_weight"),
)

# Colours of the source as in its own training.
TWO_DOMAINS = dict(source_view="tufl", target_view="none", statistics="separate")
MAXSQUARE = dict(
    name="maxsquare",
    target_loss="max_square",
    threshold=0.95,
    aux_weight=0.1,
    **TWO_DOMAINS,
)
ADVENT = dict(
    name="advent",
    gan="vanilla",
    adversarial_weight=0.1,
    adversarial_aux_weight=0.02,
    aux_weight=0.1,
    **TWO_DOMAINS,
)
# The published weights are for networks that saw ImageNet, and for a hundred times as
# many steps: these are 10 to 1000 times as large.
METHODS = {
    "source": dict(
        name="source_only",
        source_loss="regular",
        heads="deep",
        aux_weight=0.1,
        view="tufl",
        color_strength=1.0,
    ),
    "minent": dict(
        name="minent",
        entropy="normalized",
        entropy_weight=1.0,
        entropy_aux_weight=0.2,
        aux_weight=0.1,
        **TWO_DOMAINS,
    ),
    "maxsquare": dict(
        **MAXSQUARE, target_weight=40.0, image_ratio=0.0, multi_level=False
    ),
    "maxsquare_iw": dict(
        **MAXSQUARE, target_weight=20.0, image_ratio=0.2, multi_level=False
    ),
    "maxsquare_iw_multi": dict(
        **MAXSQUARE, target_weight=20.0, image_ratio=0.2, multi_level=True
    ),
    "advent": dict(**ADVENT, signal="self_information"),
    "adaptsegnet": dict(**ADVENT, signal="softmax"),
    "tufl": dict(
        name="tufl",
        unsup_loss="focal",
        unsup_weight=0.08,
        gamma=2.0,
        threshold=0.8,
        top_ratio=1.0,
        fraction=0.8,
        sharpness=8.0,
        momentum=0.9,
        momentum_decay=0.0,
        threshold_updates="per_head",
        source_loss="regular",
        heads="deep",
        statistics="target",
        color_strength=1.0,
        source_color_strength=1.0,
        rotation=30.0,
        shear=5.0,
        scale=(0.8, 1.2),
    ),
}
VARIANTS = {
    f"{data}_{method}": (DATA[data], METHODS[method])
    for data in DATA
    for method in METHODS
}


def get_config(variant: str = "minicity_maxsquare") -> ConfigDict:
    data, method = benchmarks.choose(VARIANTS, variant)
    benchmark, start, class_weights, size, crop_size, factor = data
    config = benchmarks.base_config(benchmark)
    config.init_from = start
    config.batch_size = 4
    config.steps = 200
    for geometry in (config.data.source, config.data.target):
        geometry.resize = size
        geometry.crop_size = crop_size
        geometry.scales = (1.0, 1.25)
    config.evaluation.size = size
    # As configs/source_only_minicity.py:deeplabv2 trains it.
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
    config.method = ConfigDict({**method, "class_weights": class_weights})
    for name in set(TARGET_WEIGHTS) & set(method):
        config.method[name] = factor * method[name]
    if method["name"] == "source_only":
        config.target.reader = ""  # the target is not looked at
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
    config.evaluate_every = 100
    config.panels_every = 200
    return config
