r"""ADVENT: a discriminator of weighted self-information, from ImageNet's weights.

    python -m uda_jax.main --config configs/advent.py --workdir runs/advent

Vu et al., "ADVENT: Adversarial Entropy Minimization for Domain Adaptation in Semantic
Segmentation", CVPR 2019 (AdvEnt).  `:gta5` (the default) and `:synthia` name the
source.  Their scores (mIoU):

    gta5     43.8          the table in IntraDA's repository; 45.5 with MinEnt as an
                           ensemble, a survey's table; a user's run with torch
                           1.5 reached 41.98, an issue of IntraDA's repository
    synthia  40.8 / 47.6   16 / 13 classes, recalled from the paper

None has been run here.  They are of the best of the snapshots, one in 2,000 steps,
chosen on the test images themselves; a report here is of the last step.  SYNTHIA's
90,000 steps are the author's word in an issue, not a published command.

It starts from ImageNet's weights, not from a source-only run: put their file
DeepLab_resnet_pretrained_imagenet.pth into data/weights, or give its path:
--config.init_from=FILE.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks

# Benchmark, steps and what the schedules are laid out for.  The released loop makes one
# step more than its 120,000.
VARIANTS = {
    "gta5": ("gta5_to_cityscapes_advent", 120_001, 250_000),
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
    config.discriminator = ConfigDict(
        dict(
            optimizer=dict(
                name="adam",
                learning_rate=1e-4,
                beta1=0.9,
                beta2=0.99,
                eps=1e-8,
                weight_decay=0.0,
            ),
            schedule=dict(name="poly", power=0.9, warmup_steps=0, horizon=horizon),
        )
    )
    config.method = ConfigDict(
        dict(
            name="advent",
            signal="self_information",
            gan="vanilla",
            adversarial_weight=0.001,
            adversarial_aux_weight=0.0002,
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
