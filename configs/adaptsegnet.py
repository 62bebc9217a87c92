r"""AdaptSegNet: discriminators of the class probabilities, from ImageNet's weights.

    python -m uda_jax.main --config configs/adaptsegnet.py --workdir runs/adaptsegnet

Tsai et al., "Learning to Adapt Structured Output Space for Semantic Segmentation", CVPR
2018.  `:gta5` (the default) and `:synthia` name the source and look at both heads;
`:single` and `:least_squares` are GTA5 with the main head alone, the latter with the
least-squares GAN.  Their scores (mIoU):

    gta5           42.4   figure of the authors' repository
    synthia        46.7   recalled from the paper; compare it with the report's "13
                          classes", not with its mIoU, which is of 16
    single         41.4   recalled from the paper
    least_squares  44.1   figure of the authors' repository

None has been run here; an oracle has 65.1 in that figure.  Under PyTorch 0.4 both heads
need smaller weights, the authors' README says:
--config.method.adversarial_weight=0.0005 and
--config.method.adversarial_aux_weight=0.00005.  How it was trained on SYNTHIA is not
published; here, as on GTA5.

It starts from ImageNet's weights, not from a source-only run: put their file
DeepLab_resnet_pretrained_init-f81d91e8.pth into data/weights, or give its path:
--config.init_from=FILE.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks

# Benchmark, whether both heads are looked at, the GAN and lambda_adv of the main head.
VARIANTS = {
    "gta5": ("gta5_to_cityscapes_advent", True, "vanilla", 0.001),
    "synthia": ("synthia_to_cityscapes_advent", True, "vanilla", 0.001),
    "single": ("gta5_to_cityscapes_advent", False, "vanilla", 0.001),
    "least_squares": ("gta5_to_cityscapes_advent", False, "least_squares", 0.01),
}


def get_config(variant: str = "gta5") -> ConfigDict:
    benchmark, both_heads, gan, weight = benchmarks.choose(VARIANTS, variant)
    config = benchmarks.base_config(benchmark)
    config.model.branches = 2  # a slip of its program, see uda_jax/models/deeplabv2.py
    config.model.multi_level = both_heads
    config.init_from = "data/weights/DeepLab_resnet_pretrained_init-f81d91e8.pth"
    config.init_new_heads = True
    config.batch_size = 1
    config.steps = 150_000
    config.schedule = ConfigDict(
        dict(name="poly", power=0.9, warmup_steps=0, horizon=250_000)
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
            schedule=dict(name="poly", power=0.9, warmup_steps=0, horizon=250_000),
        )
    )
    config.method = ConfigDict(
        dict(
            name="advent",
            signal="softmax",
            gan=gan,
            adversarial_weight=weight,
            adversarial_aux_weight=0.0002 if both_heads else 0.0,
            aux_weight=0.1 if both_heads else 0.0,
            class_weights="none",
            source_view="none",
            target_view="none",
            statistics="separate",
        )
    )
    config.evaluate_every = 5_000
    config.panels_every = 5_000
    config.checkpoint_every = 1_000
    return config
