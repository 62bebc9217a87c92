r"""TUFL stage one on real photographs: CamVid, day to dusk.

    python -m uda_jax.main --config configs/tufl_camvid_dusk.py \
        --workdir runs/tufl_camvid_dusk

Run configs/source_only_camvid.py first, into runs/source_only_camvid.  `:adaptive` has
a threshold for each class; configs/tufl_stage2_camvid_dusk.py starts from it.  The 62
dusk images that it adapts to are opened without their labels; the 62 test images are of
the same drive.  Numbers and intervals: docs/results.md.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks

# Loss of the unsupervised term, and the stages that follow.
VARIANTS = {
    "fixed": ("focal", ()),
    "adaptive": ("adaptive_focal", ("configs/tufl_stage2_camvid_dusk.py",)),
}


def get_config(variant: str = "fixed") -> ConfigDict:
    unsup_loss, following = benchmarks.choose(VARIANTS, variant)
    config = benchmarks.base_config("camvid_day_to_dusk")
    config.next = following
    config.init_from = "runs/source_only_camvid"
    config.batch_size = 4
    config.steps = 120
    # Half size, as in configs/source_only_minicity.py.
    for geometry in (config.data.source, config.data.target):
        geometry.resize = (180, 240)
        geometry.crop_size = (128, 192)
        geometry.scales = (1.0, 1.25)
    config.evaluation.size = (180, 240)
    config.model.width = 0.25
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
            class_weights="none",
            statistics="target",
        )
    )
    config.evaluate_every = 60
    config.panels_every = 120
    return config
