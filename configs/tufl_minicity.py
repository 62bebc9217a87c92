r"""TUFL stage one on minicity, from a source-only run.

    python -m uda_jax.main --config configs/tufl_minicity.py \
        --workdir runs/tufl_minicity

Run configs/source_only_minicity.py first, into runs/source_only_minicity.  `:adaptive`
has a threshold for each class, which moves with the predictions, instead of one fixed
threshold; it is what stage two (configs/tufl_stage2_minicity.py) starts from.  What
differs from the published numbers (configs/tufl_rio.py), and why, stands in
docs/results.md.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks

# Loss of the unsupervised term, and the stages that follow.
VARIANTS = {
    "fixed": ("focal", ()),
    "adaptive": ("adaptive_focal", ("configs/tufl_stage2_minicity.py",)),
}


def get_config(variant: str = "fixed") -> ConfigDict:
    unsup_loss, following = benchmarks.choose(VARIANTS, variant)
    config = benchmarks.base_config("minicity")
    config.next = following
    config.init_from = "runs/source_only_minicity"
    config.batch_size = 4
    config.steps = 150
    # Half size, for training and for the network's eyes in the evaluation: whole scenes
    # in the receptive field teach a network from scratch faster than details do.
    for geometry in (config.data.source, config.data.target):
        geometry.crop_size = (96, 192)
        geometry.resize = (128, 256)
        geometry.scales = (1.0, 1.25)
    config.evaluation.size = (128, 256)
    config.model.width = 0.25
    # Published: frozen.  This network has no ImageNet past and its statistics are the
    # source city's: letting them follow the target is a large part of the gain here.
    config.batch_norm = "train"
    config.optimizer = ConfigDict(
        dict(
            name="sgd",
            learning_rate=0.003,
            momentum=0.9,
            weight_decay=5e-4,
            head_multiplier=1.0,
        )
    )
    config.method = ConfigDict(
        dict(
            name="tufl",
            unsup_loss=unsup_loss,
            unsup_weight=0.08,
            gamma=2.0,
            threshold=0.8,
            class_weights="middle",
            statistics="target",
        )
    )
    config.evaluate_every = 50
    config.panels_every = 150
    return config
