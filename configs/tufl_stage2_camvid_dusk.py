r"""TUFL stage two on real photographs: CamVid, day to dusk.

    python -m uda_jax.main --config configs/tufl_stage2_camvid_dusk.py \
        --workdir runs/tufl_stage2_camvid_dusk

`:continued`, the control, takes as many steps more of stage one.  Run
configs/source_only_camvid.py:long and configs/tufl_camvid_dusk.py:adaptive first, into
runs/source_only_camvid_long and runs/tufl_camvid_dusk_adaptive.  Numbers and intervals:
docs/results.md.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks

FULL = dict(
    name="single",
    weight=1.0,
    confidence=0.968,
    long_tail_probability=0.3,
    long_tail_choice="thresholds",
    color_strength=0.3,
)
VARIANTS = {"full": FULL, "continued": {}}


def get_config(variant: str = "full") -> ConfigDict:
    mix = benchmarks.choose(VARIANTS, variant)
    config = benchmarks.base_config("camvid_day_to_dusk")
    config.init_from = "runs/tufl_camvid_dusk_adaptive"
    config.batch_size = 4
    config.steps = 600
    # As stage one.
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
            learning_rate=0.01,
            momentum=0.9,
            weight_decay=5e-4,
            head_multiplier=1.0,
        )
    )
    config.method = ConfigDict(
        dict(
            name="tufl",
            unsup_loss="adaptive_focal",
            unsup_weight=0.08,
            gamma=2.0,
            threshold=0.8,
            class_weights="none",
            statistics="target",
            mix=mix,
        )
    )
    if mix:
        config.data.streams.paste = ConfigDict(dict(name="long_tail", min_pixels=1))
    config.evaluate_every = 300
    config.panels_every = 600
    return config
