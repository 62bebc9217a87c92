r"""TUFL stage one with DeepLabV2: a game or a simulation to Cityscapes.

    python -m uda_jax.main --config configs/tufl_synthetic.py \
        --workdir runs/tufl_synthetic

Yan et al., "Threshold-adaptive Unsupervised Focal Loss for Domain Adaptation of
Semantic Segmentation", T-ITS 2023, https://arxiv.org/abs/2208.10716.  `:gta5` (the
default) and `:synthia` name the source.  The abstract reports for the method 59.6 mIoU
from GTA5 and 58.4 from SYNTHIA.  They are their numbers: none has been run here, and
the released program has no such experiment.

So the method's numbers (loss, thresholds, class weights) are those of its CrossCity
commands, and the 20,000 steps are that program's default.  Ours, and not tuned:

- network, sizes and evaluation: those of MaxSquare, whose source-only weights it starts
  from.  Scores at 512 x 1024 do not compare with those of another protocol.
- the rate: MaxSquare's 2.5e-4 over 5, about the weight of a source pixel's class.
- crops, and one image of each domain in a step.

BatchNorm is frozen, as in the commands.

Run configs/source_only_synthetic.py (`:synthia`) first, or give weights of it:
--config.init_from=FILE.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks

# Benchmark, the source-only run to start from, and the stage that follows.
VARIANTS = {
    "gta5": (
        "gta5_to_cityscapes_maxsquare",
        "runs/source_only_synthetic",
        "configs/tufl_stage2_synthetic.py",
    ),
    "synthia": (
        "synthia_to_cityscapes_maxsquare",
        "runs/source_only_synthetic_synthia",
        "configs/tufl_stage2_synthetic.py:synthia",
    ),
}


def get_config(variant: str = "gta5") -> ConfigDict:
    benchmark, source_run, following = benchmarks.choose(VARIANTS, variant)
    config = benchmarks.base_config(benchmark)
    config.init_from = source_run
    config.next = (following,)
    config.model.multi_level = False  # there is no auxiliary head
    config.batch_size = 1
    config.batch_norm = "frozen"
    config.steps = 20_000
    # TUFL sees both domains in one forward pass, so that their crops have one size.
    # Its scales but the smallest, at which an image is smaller than the crop.
    for domain in ("source", "target"):
        config.data[domain] = ConfigDict(
            dict(
                name="tufl",
                resize=config.data[domain].size,
                crop_size=(512, 1024),
                scales=(1.0, 1.25, 1.5),
                flip_probability=0.5,
                filter="pillow_bicubic",
                frozen=False,
            )
        )
    config.optimizer = ConfigDict(
        dict(
            name="sgd",
            learning_rate=5e-5,
            momentum=0.9,
            weight_decay=5e-4,
            head_multiplier=10.0,
        )
    )
    config.schedule = ConfigDict(dict(name="poly", power=0.9, warmup_steps=0))
    config.method = ConfigDict(
        dict(
            name="tufl",
            unsup_loss="adaptive_focal",
            unsup_weight=0.08,
            gamma=2.0,
            threshold=0.8,
            fraction=0.8,
            sharpness=8.0,
            momentum=0.9,
            threshold_updates="per_head",
            class_weights="middle",
            source_loss="regular",
            heads="last",
        )
    )
    config.evaluate_every = 2_000
    config.panels_every = 2_000
    config.checkpoint_every = 1_000
    return config
