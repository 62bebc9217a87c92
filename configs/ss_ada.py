r"""SS-ADA with BiSeNet: GTA5, SYNTHIA or Cityscapes to a city with some labels.

Yan et al., "SS-ADA: A Semi-Supervised Active Domain Adaptation Framework for Semantic
Segmentation", 2024, https://arxiv.org/abs/2407.12788.

    python -m uda_jax.main --config configs/ss_ada.py --workdir runs/ss_ada

is GTA5 to Cityscapes, `:synthia` from SYNTHIA (16 classes), `:acdc` Cityscapes to ACDC.
1 % of the target's images have labels at first, three rounds bring them to 25 %.  The
authors ship no config for these: network, crops, rates and epochs are those of their
supervised one for Cityscapes, the rounds those of their parking lots
(configs/ss_ada_parking.py), and how images are picked is their abstract's
"Entropy-IoU Sum", as we read it.  They have published no score for them, and none has
been run here, where neither the data nor the weights can be had.

It starts from torchvision's ImageNet weights: put resnet18-5c106cde.pth into
data/weights, or give its path: --config.init_from=FILE.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks
from uda_jax.round_plan import plan_rounds

# Benchmark, and the images of its target's training set.
VARIANTS = {
    "gta5": ("gta5_to_cityscapes_ss_ada", 2975),
    "synthia": ("synthia_to_cityscapes_advent", 2975),
    "acdc": ("cityscapes_to_acdc", 1600),
}


def get_config(variant: str = "gta5") -> ConfigDict:
    benchmark, num_images = benchmarks.choose(VARIANTS, variant)
    config = benchmarks.base_config(benchmark)
    config.init_from = "data/weights/resnet18-5c106cde.pth"
    config.init_new_heads = True
    config.batch_size = 4  # two images of each kind on each of two GPUs
    plan = plan_rounds(
        num_images=num_images,
        batch_size=config.batch_size,
        init_share=0.01,
        total_share=0.25,
        rounds=(20, 40, 60),
        epochs=200,
    )
    config.steps, config.rounds = plan.total_steps, plan.entries
    config.active = ConfigDict(dict(strategy="entropy_iou_sum", labels="dataset"))
    recipe = benchmarks.base_config("gta5_to_cityscapes_ss_ada")
    config.model, config.evaluation = recipe.model, recipe.evaluation
    config.data = recipe.data
    config.data.partner = True
    config.optimizer = ConfigDict(
        dict(
            name="sgd",
            learning_rate=0.005,
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
    config.method = ConfigDict(
        dict(
            name="ss_ada",
            supervised_loss="prob_ohem",
            min_kept=200_000,
            ohem_threshold=0.7,
            class_weights="iou",
            upper=2.0,
            threshold=0.0,
            strong_weight=0.25,
            perturbed_weight=0.5,
        )
    )
    config.evaluate_every = 5_000
    return config
