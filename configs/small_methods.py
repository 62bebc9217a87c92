r"""Every method beside each other: minicity, or photographs, with a small DeepLabV2.

    python -m uda_jax.main --config configs/small_methods.py \
        --workdir runs/small_methods

MaxSquare on minicity; `:minicity_minent`, `:minicity_maxsquare_iw`,
`:minicity_maxsquare_iw_multi`, `:minicity_advent`, `:minicity_adaptsegnet` and
`:minicity_tufl` are the others, `:minicity_source` as many steps more on the source
alone; `:camvid_...` the same from CamVid's day to its dusk.  All have one network, the
same data, steps and learning rate; what differs stands in one table.  Run first

    python -m uda_jax.main --config configs/source_only_minicity.py:deeplabv2 \
        --workdir runs/source_only_minicity_deeplabv2

or, for CamVid, configs/source_only_camvid.py:deeplabv2.  Numbers, how the weights were
chosen, and what each part contributes: docs/results.md; methods: docs/methods.md.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks

# Benchmark, start, class weights of its training, sizes at half of the images'.
DATA = {
    "minicity": (
        *("minicity", "runs/source_only_minicity_deeplabv2", "middle"),
        *((128, 256), (96, 192)),
    ),
    "camvid": (
        *("camvid_day_to_dusk", "runs/source_only_camvid_deeplabv2", "none"),
        *((180, 240), (128, 192)),
    ),
}

# The published weights are for networks that saw ImageNet, and for a hundred times as
# many steps: these are 10 to 1000 times as large.
METHODS = {
    "source": dict(name="source_only"),
    "minent": dict(name="minent", entropy_weight=1.0, entropy_aux_weight=0.2),
    "maxsquare": dict(name="maxsquare", target_weight=40.0),
    "maxsquare_iw": dict(name="maxsquare", target_weight=20.0, image_ratio=0.2),
    "maxsquare_iw_multi": dict(
        name="maxsquare", target_weight=20.0, image_ratio=0.2, multi_level=True
    ),
    "advent": dict(name="advent", adversarial_weight=0.1, adversarial_aux_weight=0.02),
    "adaptsegnet": dict(
        name="advent",
        signal="softmax",
        adversarial_weight=0.1,
        adversarial_aux_weight=0.02,
    ),
    "tufl": dict(name="tufl", unsup_weight=0.08, statistics="target"),
}
VARIANTS = {
    f"{data}_{method}": (DATA[data], METHODS[method])
    for data in DATA
    for method in METHODS
}


def get_config(variant: str = "minicity_maxsquare") -> ConfigDict:
    data, method = benchmarks.choose(VARIANTS, variant)
    benchmark, start, class_weights, size, crop_size = data
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
    config.model = ConfigDict(
        dict(
            name="deeplabv2",
            backbone="resnet18",
            form="original",
            branches=4,
            multi_level=True,
            affine="trained",  # from scratch they must be
            input_form="imagenet",
            width=0.25,
        )
    )
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
    if method["name"] == "source_only":
        config.target.reader = ""  # the target is not looked at
    if method["name"] in ("minent", "maxsquare", "advent"):
        # Colours of the source as in its own training.
        config.method.update(source_view="tufl", target_view="none")
    if method["name"] == "advent":
        config.discriminator = ConfigDict(
            dict(
                optimizer=dict(
                    name="adam",
                    learning_rate=1e-4,
                    beta1=0.9,
                    beta2=0.99,
                    weight_decay=0.0,
                ),
                schedule=dict(name="poly", power=0.9, warmup_steps=0),
            )
        )
    config.evaluate_every = 100
    config.panels_every = 200
    return config
