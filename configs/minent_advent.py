r"""MinEnt as ADVENT published it: entropy of both heads, from ImageNet's weights.

    python -m uda_jax.main --config configs/minent_advent.py \
        --workdir runs/minent_advent

Vu et al., "ADVENT: Adversarial Entropy Minimization for Domain Adaptation in Semantic
Segmentation", CVPR 2019; MaxSquare's form is configs/minent.py.  `:gta5` (the default)
and `:synthia` name the source.  Their scores (mIoU), recalled from the paper:

    gta5     42.3
    synthia  38.1 / 44.2   16 / 13 classes

None has been run here.  They are of the best of the snapshots, one in 2,000 steps,
chosen on the test images themselves; a report here is of the last step.  SYNTHIA's
90,000 steps are the author's word in an issue, not a published command.  "Entropy
range" (43.1) is in the paper and not in its program, nor here.

It starts from ImageNet's weights, not from a source-only run: put their file
DeepLab_resnet_pretrained_imagenet.pth into data/weights, or give its path:
--config.init_from=FILE.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks

# Benchmark, steps and what the schedule is laid out for.
VARIANTS = {
    "gta5": ("gta5_to_cityscapes_advent", 120_000, 250_000),
    "synthia": ("synthia_to_cityscapes_advent", 90_000, 90_000),
}


def get_config(source: str = "gta5") -> ConfigDict:
    benchmark, steps, horizon = benchmarks.choose(VARIANTS, source)
    config = benchmarks.base_config(benchmark)
    config.init_from = "data/weights/DeepLab_resnet_pretrained_imagenet.pth"
    config.init_new_heads = True
    config.batch_size = 1
    config.steps = steps
    config.schedule = ConfigDict(
        dict(name="poly", power=0.9, warmup_steps=0, horizon=horizon)
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
            name="minent",
            entropy="normalized",
            entropy_weight=0.001,
            entropy_aux_weight=0.0002,
            aux_weight=0.1,
            class_weights="none",
            source_view="none",
            target_view="none",
            statistics="separate",
        )
    )
    config.evaluate_every = 2_000
    config.panels_every = 2_000
    config.checkpoint_every = 1_000
    return config
