r"""MaxSquare: ten epochs from a source-only run.

    python -m uda_jax.main --config configs/maxsquare.py --workdir runs/maxsquare

Chen et al., "Domain Adaptation for Semantic Segmentation with Maximum Squares Loss",
ICCV 2019.  `:gta5` (the default), `:synthia`, `:rome`, `:rio`, `:tokyo` and `:taipei`
name the task.  Their scores (mIoU, with mirror images but for SYNTHIA's):

    gta5     44.3          authors' README; the best of five runs of a user: 43.0
    synthia  39.3 / 45.8   16 / 13 classes, an earlier revision of that README
    rome 53.9, rio 52.0, tokyo 49.7, taipei 49.8   authors' README

None has been run here.  They are of the best of ten epochs, chosen on the test images
themselves; a report here is of the last step.

Run configs/source_only_synthetic.py first (`:synthia` for `:synthia`, into
runs/source_only_synthetic_synthia), or configs/source_only_crosscity.py for a city.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks

# Benchmark, and the source-only run to start from.
VARIANTS = {
    "gta5": ("gta5_to_cityscapes_maxsquare", "runs/source_only_synthetic"),
    "synthia": (
        "synthia_to_cityscapes_maxsquare",
        "runs/source_only_synthetic_synthia",
    ),
    **{
        city: (f"cityscapes_to_{city}_maxsquare", "runs/source_only_crosscity")
        for city in ("rome", "rio", "tokyo", "taipei")
    },
}


def get_config(variant: str = "gta5") -> ConfigDict:
    benchmark, source_run = benchmarks.choose(VARIANTS, variant)
    config = benchmarks.base_config(benchmark)
    config.init_from = source_run
    config.model.multi_level = False  # the auxiliary head is not used
    config.batch_size = 1
    # Ten epochs of the 2,975 target images; the schedule counts one more in each.
    config.steps = 29_750
    config.schedule = ConfigDict(
        dict(name="poly", power=0.9, warmup_steps=0, horizon=29_760)
    )
    config.optimizer = ConfigDict(
        dict(
            name="sgd",
            learning_rate=2.5e-4,
            momentum=0.9,
            weight_decay=5e-4,
            head_multiplier=10.0,
            decay_of="all",
            duplicates="legacy_inplace",
        )
    )
    config.method = ConfigDict(
        dict(
            name="maxsquare",
            target_loss="max_square",
            target_weight=0.1,
            image_ratio=0.0,
            multi_level=False,
            class_weights="none",
            source_view="maxsquare",
            target_view="maxsquare",
            statistics="separate",
        )
    )
    # As the published scores; SYNTHIA's are of an earlier README, without mirrors.
    config.evaluation.flip = variant != "synthia"
    config.evaluate_every = 2_975
    config.panels_every = 2_975
    config.checkpoint_every = 1_000
    return config
