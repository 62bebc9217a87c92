r"""DeepLabV2 on a game or a simulation, scored on Cityscapes: MaxSquare's start.

    python -m uda_jax.main --config configs/source_only_synthetic.py \
        --workdir runs/source_only_synthetic

Chen et al., ICCV 2019: data, sizes, augmentation, rates and steps of its source-only
training on GTA5 (its official training split, 19 classes); `:synthia` is that on
SYNTHIA (16 classes, scored on 16 and 13).  The paper reports 36.9 mIoU for GTA5, and
30.1 and 34.3 for SYNTHIA's 16 and 13 classes.  They are its numbers: none has been run
here, where neither data nor ImageNet weights can be had.  Differences: weight decay
leaves BatchNorm alone, and the released program applies most updates of the backbone
three times over.  Its scores are of images and their mirror images together:
--mode evaluate --config.evaluation.flip=True.

ImageNet weights: --config.init_from=FILE --config.init_new_heads=True.  Cheap reading:
python -m uda_jax.data.prepare --config configs/source_only_synthetic.py
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks

SOURCES = {
    "gta5": "gta5_to_cityscapes_maxsquare",
    "synthia": "synthia_to_cityscapes_maxsquare",
}


def get_config(source: str = "gta5") -> ConfigDict:
    config = benchmarks.base_config(benchmarks.choose(SOURCES, source))
    config.target.reader = ""  # the target is not looked at
    config.model.multi_level = False
    config.batch_size = 1
    config.steps = 80_000
    config.optimizer = ConfigDict(
        dict(
            name="sgd",
            learning_rate=2.5e-4,
            momentum=0.9,
            weight_decay=5e-4,
            head_multiplier=10.0,
        )
    )
    config.schedule = ConfigDict(
        dict(name="poly", power=0.9, warmup_steps=0, horizon=200_000)
    )
    config.method = ConfigDict(
        dict(
            name="source_only",
            class_weights="none",
            source_loss="valid",
            heads="last",
            view="maxsquare",
        )
    )
    config.evaluate_every = 5_000
    config.panels_every = 5_000
    config.checkpoint_every = 1_000
    return config
