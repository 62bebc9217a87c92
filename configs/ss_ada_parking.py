r"""SS-ADA on parking lots seen from above: 2023 to 2024, 7 classes, 140 target images.

Yan et al., "SS-ADA: A Semi-Supervised Active Domain Adaptation Framework for Semantic
Segmentation", 2024, https://arxiv.org/abs/2407.12788.

    python -m uda_jax.main --config configs/ss_ada_parking.py \
        --workdir runs/ss_ada_parking

Half of the target's images get labels in three rounds, those of highest entropy;
`:quarter` a quarter of them.  `:joint` learns from the source and all of the target's
labels, `:target_only` from the latter.  The authors' README reports for BiSeNet (mIoU
on 2024's validation images, best / last checkpoint):

    half         73.09 / 72.83        joint         74.41 / 72.79
    quarter      71.67 / 71.06        target_only   71.63 / 70.20

None has been run here: the data is not public yet.  Numbers are those of the shipped
config, but for its constant learning rate, which came of a scheduler that drove another
optimizer; here the rate falls as the config says.  Class weights and thresholds by IoU
are off there, as here; configs/ss_ada.py has them.

It starts from torchvision's ImageNet weights: put resnet18-5c106cde.pth into
data/weights, or give its path: --config.init_from=FILE.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks
from uda_jax.round_plan import plan_rounds

IMAGES = 140
# Share of the labels at last, epochs, learning rate.
VARIANTS = {
    "half": (0.5, 200, 0.05),
    "quarter": (0.25, 200, 0.05),
    "joint": (1.0, 100, 0.01),
    "target_only": (1.0, 100, 0.01),
}


def get_config(variant: str = "half") -> ConfigDict:
    share, epochs, learning_rate = benchmarks.choose(VARIANTS, variant)
    config = benchmarks.base_config("parking_2023_to_2024")
    config.init_from = "data/weights/resnet18-5c106cde.pth"
    config.init_new_heads = True
    config.batch_size = 4
    method = dict(name="ss_ada", supervised_loss="prob_ohem", min_kept=200_000)
    if share == 1:
        config.steps = epochs * (IMAGES // config.batch_size)
        config.rounds = ((0, IMAGES),)
        method |= dict(learns_from=variant)
    else:
        plan = plan_rounds(
            num_images=IMAGES,
            batch_size=config.batch_size,
            init_share=0.01,
            total_share=share,
            rounds=(20, 40, 60),
            epochs=epochs,
        )
        config.steps, config.rounds = plan.total_steps, plan.entries
        config.data.partner = True
    config.active = ConfigDict(dict(strategy="entropy", labels="dataset"))
    config.optimizer = ConfigDict(
        dict(
            name="sgd",
            learning_rate=learning_rate,
            momentum=0.9,
            weight_decay=1e-4,
            head_multiplier=10.0,
        )
    )
    config.schedule = ConfigDict(
        dict(
            name="poly",
            power=0.9,
            warmup_steps=1000,
            warmup_form="linear",
            warmup_start=0.0,
        )
    )
    config.method = ConfigDict(method)
    return config
