r"""Every method on minicity, with a small DeepLabV2.

    python -m uda_jax.main --config configs/minicity_methods.py \
        --workdir runs/minicity_methods

MaxSquare; behind a colon `:source`, `:minent`, `:maxsquare_iw`, `:maxsquare_iw_multi`,
`:advent`, `:adaptsegnet` and `:tufl`, into a workdir of its own each.  All have the
same network, data and number of steps; what differs stands in one table.  Run first

    python -m uda_jax.main --config configs/source_only_minicity.py:deeplabv2 \
        --workdir runs/source_only_minicity_deeplabv2

Numbers: docs/results.md; methods: docs/methods.md.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks

# As configs/source_only_minicity.py:deeplabv2 trains it.
MODEL = dict(
    name="deeplabv2",
    backbone="resnet18",
    form="original",
    branches=4,
    multi_level=True,
    affine="trained",  # from scratch they must be
    input_form="imagenet",
    width=0.25,
)
STEPS = 150
SGD = dict(name="sgd", momentum=0.9, weight_decay=5e-4, head_multiplier=1.0)
ADAM = dict(name="adam", beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.0)
# Colours of the source as in its own training.  "target" lets the running statistics of
# BatchNorm follow the target: this network has no ImageNet past, and its own are those
# of the source.
TWO_DOMAINS = dict(
    class_weights="middle",
    source_view="tufl",
    target_view="none",
    statistics="target",
)

# The learning rate, that of the discriminators (0: there are none), and the method.
VARIANTS = {
    # As many steps more without a target: what the others have to beat.
    "source": (0.003, 0.0, dict(name="source_only", class_weights="middle")),
    "minent": (
        0.003,
        0.0,
        dict(
            name="minent",
            entropy="normalized",
            entropy_weight=0.001,
            entropy_aux_weight=0.0002,
            aux_weight=0.1,
            **TWO_DOMAINS,
        ),
    ),
    "maxsquare": (
        0.003,
        0.0,
        dict(name="maxsquare", target_weight=0.1, image_ratio=0.0, **TWO_DOMAINS),
    ),
    "maxsquare_iw": (
        0.003,
        0.0,
        dict(name="maxsquare", target_weight=0.1, image_ratio=0.2, **TWO_DOMAINS),
    ),
    "maxsquare_iw_multi": (
        0.003,
        0.0,
        dict(
            name="maxsquare",
            target_weight=0.1,
            image_ratio=0.2,
            threshold=0.95,
            multi_level=True,
            aux_weight=0.1,
            **TWO_DOMAINS,
        ),
    ),
    "advent": (
        0.003,
        1e-4,
        dict(
            name="advent",
            signal="self_information",
            gan="vanilla",
            adversarial_weight=0.001,
            adversarial_aux_weight=0.0002,
            aux_weight=0.1,
            **TWO_DOMAINS,
        ),
    ),
    "adaptsegnet": (
        0.003,
        1e-4,
        dict(
            name="advent",
            signal="softmax",
            gan="vanilla",
            adversarial_weight=0.001,
            adversarial_aux_weight=0.0002,
            aux_weight=0.1,
            **TWO_DOMAINS,
        ),
    ),
    "tufl": (
        0.003,
        0.0,
        dict(
            name="tufl",
            unsup_loss="focal",
            unsup_weight=0.08,
            gamma=2.0,
            threshold=0.8,
            class_weights="middle",
            statistics="target",
        ),
    ),
}


def get_config(variant: str = "maxsquare") -> ConfigDict:
    rate, discriminator_rate, method = benchmarks.choose(VARIANTS, variant)
    config = benchmarks.base_config("minicity")
    config.init_from = "runs/source_only_minicity_deeplabv2"
    if method["name"] == "source_only":
        config.target.reader = ""  # the target is not looked at
    config.batch_size = 4
    config.steps = STEPS
    # Half size, as in configs/source_only_minicity.py.
    for geometry in (config.data.source, config.data.target):
        geometry.resize = (128, 256)
        geometry.crop_size = (96, 192)
        geometry.scales = (1.0, 1.25)
    config.evaluation.size = (128, 256)
    config.model = ConfigDict(MODEL)
    config.optimizer = ConfigDict({**SGD, "learning_rate": rate})
    if discriminator_rate:
        config.discriminator = ConfigDict(
            dict(
                optimizer={**ADAM, "learning_rate": discriminator_rate},
                schedule=dict(name="poly", power=0.9, warmup_steps=0),
            )
        )
    config.method = ConfigDict(method)
    config.evaluate_every = 50
    config.panels_every = STEPS
    return config
