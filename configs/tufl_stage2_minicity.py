r"""TUFL stage two on minicity, from a run of stage one.

    python -m uda_jax.main --config configs/tufl_stage2_minicity.py \
        --workdir runs/tufl_stage2_minicity

The whole method: adaptive thresholds, cross-domain mixing, long-tail pasting.  The
variants take parts away, or add one: `:cim` mixes without pasting, `:continued` goes on
without a mix, `:fda` adds the target's low frequencies to the source images.  Run
configs/source_only_minicity.py and configs/tufl_minicity.py:adaptive first, into
runs/source_only_minicity and runs/tufl_minicity_adaptive.  Numbers, and how they were
chosen: docs/results.md.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks

MIX = dict(
    name="single",
    weight=1.0,
    confidence=0.968,
    long_tail_probability=0.0,
    long_tail_choice="uniform",
    related="none",
    color_strength=1.0,
)
LONG_TAIL = dict(
    MIX,
    long_tail_probability=0.3,
    long_tail_choice="thresholds",
    related="street_crosscity13",
)
# Mix and fda_beta.
VARIANTS = {
    "full": (LONG_TAIL, 0.0),
    "fda": (LONG_TAIL, 0.02),
    "cim": (MIX, 0.0),
    "continued": ({}, 0.0),
}


def get_config(variant: str = "full") -> ConfigDict:
    mix, fda_beta = benchmarks.choose(VARIANTS, variant)
    config = benchmarks.base_config("minicity")
    config.init_from = "runs/tufl_minicity_adaptive"
    config.batch_size = 4
    config.steps = 600
    # As stage one.
    for geometry in (config.data.source, config.data.target):
        geometry.crop_size = (96, 192)
        geometry.resize = (128, 256)
        geometry.scales = (1.0, 1.25)
    config.evaluation.size = (128, 256)
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
            unsup_loss="adaptive_focal",
            unsup_weight=0.08,
            gamma=2.0,
            threshold=0.8,
            class_weights="middle",
            statistics="target",
            fda_beta=fda_beta,
            mix=mix,
        )
    )
    if mix.get("long_tail_probability"):
        config.data.streams.paste = ConfigDict(
            dict(name="long_tail", min_pixels=1, classes=())
        )
    config.evaluate_every = 300
    config.panels_every = 300
    return config
