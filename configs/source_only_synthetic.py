r"""DeepLabV2 on a game or a simulation, scored on Cityscapes: MaxSquare's start.

    python -m uda_jax.main --config configs/source_only_synthetic.py \
        --workdir runs/source_only_synthetic

Chen et al., ICCV 2019: data, sizes, augmentation, rates and steps of its source-only
training on GTA5 (its official training split, 19 classes); `:synthia` is that on
SYNTHIA (16 classes, scored on 16 and 13).  `:gta5_multi` and `:synthia_multi` train the
auxiliary head too, for configs/maxsquare_iw_multi.py.  Their scores (mIoU):

    gta5     36.9          authors' README, with mirror images
    synthia  30.1 / 34.3   16 / 13 classes, an earlier revision of it, without

None has been run here, where neither data nor ImageNet weights can be had.  The other
two have no published score, and mirror images as the stage after them.

It starts from ImageNet's weights: put their file
DeepLab_resnet_pretrained_init-f81d91e8.pth into data/weights, or give its path:
--config.init_from=FILE.  Call a variant's workdir as the stages after it expect it:
runs/source_only_synthetic_synthia.  Cheap reading:
python -m uda_jax.data.prepare --config configs/source_only_synthetic.py
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks

SINGLE_STAGES = ("minent", "maxsquare", "maxsquare_iw", "tufl_synthetic")
# Benchmark, whether the auxiliary head learns too, and the stages that follow.
VARIANTS = {
    "gta5": (
        "gta5_to_cityscapes_maxsquare",
        False,
        tuple(f"configs/{stage}.py" for stage in SINGLE_STAGES),
    ),
    "synthia": (
        "synthia_to_cityscapes_maxsquare",
        False,
        tuple(f"configs/{stage}.py:synthia" for stage in SINGLE_STAGES),
    ),
    "gta5_multi": (
        "gta5_to_cityscapes_maxsquare",
        True,
        ("configs/maxsquare_iw_multi.py",),
    ),
    "synthia_multi": (
        "synthia_to_cityscapes_maxsquare",
        True,
        ("configs/maxsquare_iw_multi.py:synthia",),
    ),
}


def get_config(variant: str = "gta5") -> ConfigDict:
    benchmark, multi_level, following = benchmarks.choose(VARIANTS, variant)
    config = benchmarks.base_config(benchmark)
    config.init_from = "data/weights/DeepLab_resnet_pretrained_init-f81d91e8.pth"
    config.init_new_heads = True
    config.next = following
    config.target.reader = ""  # the target is not looked at
    config.model.multi_level = multi_level
    config.batch_size = 1
    config.steps = 80_000
    config.schedule = ConfigDict(
        dict(name="poly", power=0.9, warmup_steps=0, horizon=200_000)
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
            name="source_only",
            class_weights="none",
            source_loss="valid",
            heads="weighted" if multi_level else "last",
            aux_weight=0.1,
            view="maxsquare",
        )
    )
    # As the published scores; SYNTHIA's are of an earlier README, without mirrors.
    config.evaluation.flip = variant != "synthia"
    config.evaluate_every = 5_000
    config.panels_every = 5_000
    config.checkpoint_every = 1_000
    return config
