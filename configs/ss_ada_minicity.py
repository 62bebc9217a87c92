r"""SS-ADA on minicity: a source city, and labels for a quarter of the target's images.

    python -m uda_jax.main --config configs/ss_ada_minicity.py \
        --workdir runs/ss_ada_minicity

Yan et al., "SS-ADA: A Semi-Supervised Active Domain Adaptation Framework for Semantic
Segmentation", 2024, https://arxiv.org/abs/2407.12788.  25 of the 500 target images have
labels from the start, drawn at random; 25 and 75 more get theirs on the way, those for
which entropy + 1 - IoU is largest.  `:entropy` and `:random` pick otherwise, `:person`
waits for you to label 10 images after 300 steps, see docs/methods.md.  `:target_only`
learns from the labels of 125 images alone, drawn at random, `:joint` from those and the
source, `:oracle` from all 500.  Nothing has been measured yet.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks

QUARTER = ((0, 25), (300, 25), (600, 75))
# Rounds, how they pick, who labels.
VARIANTS = {
    "entropy_iou_sum": (QUARTER, "entropy_iou_sum", "dataset"),
    "entropy": (QUARTER, "entropy", "dataset"),
    "random": (QUARTER, "random", "dataset"),
    "person": (((300, 10),), "entropy_iou_sum", "person"),
    "joint": (((0, 125),), "random", "dataset"),
    "target_only": (((0, 125),), "random", "dataset"),
    "oracle": ((), "", ""),
}


def get_config(variant: str = "entropy_iou_sum") -> ConfigDict:
    rounds, strategy, labels = benchmarks.choose(VARIANTS, variant)
    oracle = variant == "oracle"
    config = benchmarks.base_config("minicity_oracle" if oracle else "minicity")
    config.steps = 1200
    config.batch_size = 4
    config.rounds = rounds
    if rounds:
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
            learning_rate=0.02,
            momentum=0.9,
            weight_decay=5e-4,
            head_multiplier=1.0,
        )
    )
    config.schedule = ConfigDict(dict(name="poly", power=0.9, warmup_steps=0))
    method = dict(name="ss_ada", supervised_loss="prob_ohem", min_kept=5_000)
    if oracle:
        method = dict(name="source_only", source_loss="valid", view="none")
    elif variant in ("joint", "target_only"):
        method |= dict(learns_from=variant)
    else:
        config.data.partner = True
        method |= dict(class_weights="iou", statistics="target")
    config.method = ConfigDict(method)
    config.evaluate_every = 300
    config.panels_every = 1200
    return config
