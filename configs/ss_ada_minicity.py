r"""SS-ADA on minicity: a source city, and labels for a quarter of the target's images.

    python -m uda_jax.main --config configs/ss_ada_minicity.py \
        --workdir runs/ss_ada_minicity

Yan et al., "SS-ADA: A Semi-Supervised Active Domain Adaptation Framework for Semantic
Segmentation", 2024, https://arxiv.org/abs/2407.12788.  It starts from the source-only
network of the same form, configs/source_only_minicity.py:ss_ada.  25 of the 500 target
images have labels from the start, drawn at random; after 100 and 200 steps 50 more get
theirs, those for which entropy + 1 - IoU is largest.  `:entropy` and `:random` pick
otherwise, `:person` waits for you to label 10 images, twice, see docs/methods.md.
`:target_only` learns from the labels of 125 images alone, drawn at random, `:joint`
from those and the source, `:oracle` from those of all 500.  Numbers: docs/results.md.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks

QUARTER = ((0, 25), (100, 50), (200, 50))
# Rounds, how they pick, who labels, what is learned from.
VARIANTS = {
    "entropy_iou_sum": (QUARTER, "entropy_iou_sum", "dataset", "all"),
    "entropy": (QUARTER, "entropy", "dataset", "all"),
    "random": (QUARTER, "random", "dataset", "all"),
    "person": (((100, 10), (200, 10)), "entropy_iou_sum", "person", "all"),
    "joint": (((0, 125),), "random", "dataset", "joint"),
    "target_only": (((0, 125),), "random", "dataset", "target_only"),
    "oracle": (((0, 500),), "random", "dataset", "target_only"),
}


def get_config(variant: str = "entropy_iou_sum") -> ConfigDict:
    rounds, strategy, labels, learns_from = benchmarks.choose(VARIANTS, variant)
    config = benchmarks.base_config("minicity")
    config.init_from = "runs/source_only_minicity_ss_ada"
    config.steps = 600
    config.batch_size = 4
    config.rounds = rounds
    config.active = ConfigDict(dict(strategy=strategy, labels=labels))
    for geometry in (config.data.source, config.data.target):
        geometry.resize = (128, 256)
        geometry.crop_size = (96, 192)
        geometry.scales = (1.0, 1.25)
    config.evaluation.size = (128, 256)
    config.model.update(form="ss_ada", width=0.25)
    config.optimizer = ConfigDict(
        dict(
            name="sgd",
            # SS-ADA's sum is divided by three, and its rate was the best at that.
            learning_rate=0.4 if learns_from == "all" else 0.15,
            momentum=0.9,
            weight_decay=5e-4,
            head_multiplier=1.0,
        )
    )
    config.schedule = ConfigDict(dict(name="poly", power=0.9, warmup_steps=0))
    config.method = ConfigDict(
        dict(
            name="ss_ada",
            supervised_loss="prob_ohem",
            min_kept=5_000,
            learns_from=learns_from,
        )
    )
    if learns_from == "all":
        config.data.partner = True
        config.method.update(class_weights="iou", statistics="target")
    config.evaluate_every = 300
    config.panels_every = 600
    return config
