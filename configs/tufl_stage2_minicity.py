r"""TUFL stage two on minicity, from a run of stage one.

    python -m uda_jax.main --config configs/tufl_stage2_minicity.py \
        --workdir runs/tufl_stage2_minicity

The whole method: adaptive thresholds, cross-domain mixing, long-tail pasting.  The
variants take parts away or add one: `:cim` mixes without pasting; `:continued`, the
control, takes as many steps more of stage one; `:fda` gives the source images the
target's low frequencies, `:boundary` doubles the weights along the mask's edge, and
`:dual_soft` is the other way of mixing.  Run configs/source_only_minicity.py:long and
configs/tufl_minicity.py:adaptive first, into runs/source_only_minicity_long and
runs/tufl_minicity_adaptive.  Numbers, and how they were chosen: docs/results.md.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks

MIX = dict(
    name="single",
    weight=5.0,
    # Published: those of the other terms.  See docs/results.md.
    class_weights="none",
    confidence=0.968,
    long_tail_probability=0.0,
    long_tail_choice="uniform",
    related="none",
    color_strength=0.3,
)
LONG_TAIL = dict(
    MIX,
    long_tail_probability=0.3,
    long_tail_choice="thresholds",
    related="street_crosscity13",
)
DUAL_SOFT = dict(
    name="dual_soft",
    weight=5.0,
    class_weights="none",
    soft_weight=0.8,
    confidence=0.968,
    long_tail_choice="thresholds",
    related="street_crosscity13",
)
PASTE = dict(name="long_tail", min_pixels=1, classes=())
TEMPLATE = dict(name="uniform")
# Mix, the further images that it needs, and fda_beta.
VARIANTS = {
    "full": (LONG_TAIL, {"paste": PASTE}, 0.0),
    "fda": (LONG_TAIL, {"paste": PASTE}, 0.02),
    "boundary": (dict(LONG_TAIL, boundary_width=3), {"paste": PASTE}, 0.0),
    "dual_soft": (DUAL_SOFT, {"paste": PASTE, "template": TEMPLATE}, 0.0),
    "cim": (MIX, {}, 0.0),
    "continued": ({}, {}, 0.0),
}


def get_config(variant: str = "full") -> ConfigDict:
    mix, streams, fda_beta = benchmarks.choose(VARIANTS, variant)
    config = benchmarks.base_config("minicity")
    config.init_from = "runs/tufl_minicity_adaptive"
    config.batch_size = 4
    config.steps = 800
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
            class_weights="middle",
            statistics="target",
            fda_beta=fda_beta,
            mix=mix,
        )
    )
    config.data.streams = ConfigDict(streams)
    config.evaluate_every = 400
    config.panels_every = 400
    return config
