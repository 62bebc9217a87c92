r"""DeepLabV2 on Cityscapes in 13 classes, scored on CrossCity: MaxSquare's start.

    python -m uda_jax.main --config configs/source_only_crosscity.py \
        --workdir runs/source_only_crosscity

Chen et al., ICCV 2019: data, sizes, augmentation, rates and steps (27 epochs of the
2,975 images, cut at 80,000).  `:rome` (the default), `:rio`, `:tokyo` and `:taipei`
only say which city tests it: the trained network is the same, and one run starts the
adaptation to all four.  `:multi` trains the auxiliary head too and is tested on Rome,
for configs/maxsquare_iw_multi.py.  Their scores (mIoU), from the authors' README:

    rome 51.0, rio 48.9, tokyo 47.8, taipei 46.3

None has been run here, where neither data nor ImageNet weights can be had.  Of 100 test
images 17 (Rome), 24, 34 and 89 (Taipei) are training images of the target too.

It starts from ImageNet's weights: put their file
DeepLab_resnet_pretrained_init-f81d91e8.pth into data/weights, or give its path:
--config.init_from=FILE.  Call the workdir of `:multi` as the stage after it expects it:
runs/source_only_crosscity_multi.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks

SINGLE_STAGES = ("minent", "maxsquare", "maxsquare_iw")
CITIES = ("rome", "rio", "tokyo", "taipei")
# Tested city, whether the auxiliary head learns too, and the stages that follow, to
# every city.
VARIANTS = {
    **{city: (city, False, SINGLE_STAGES) for city in CITIES},
    "multi": ("rome", True, ("maxsquare_iw_multi",)),
}


def get_config(variant: str = "rome") -> ConfigDict:
    tested, multi_level, following = benchmarks.choose(VARIANTS, variant)
    config = benchmarks.base_config(f"cityscapes_to_{tested}_maxsquare")
    config.init_from = "data/weights/DeepLab_resnet_pretrained_init-f81d91e8.pth"
    config.init_new_heads = True
    config.next = tuple(f"configs/{x}.py:{city}" for x in following for city in CITIES)
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
    config.evaluation.flip = True  # as the published scores
    config.evaluate_every = 5_000
    config.panels_every = 5_000
    config.checkpoint_every = 1_000
    return config
