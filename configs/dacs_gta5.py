r"""DACS from GTA5 to Cityscapes, as DAFormer's program compares with it: DeepLabV2.

    python -m uda_jax.main --config configs/dacs_gta5.py --workdir runs/dacs_gta5

Tranheden et al., "DACS: Domain Adaptation via Cross-Domain Mixed Sampling", WACV 2021.
DAFormer's step with a teacher that follows faster, without feature distance, ignored
rows or rare-class sampling, on ResNet-101 with two of four dilations ("dlv2red").  52.1
mIoU are published for DACS itself (its own optimizer, not this one; hardware and time
are not).  Nothing of it has been run here, where neither the data nor the weights can
be had.

It starts from mmcv's ImageNet weights: put resnet101_v1c-e67eebb6.pth into
data/weights, or give its path: --config.init_from=FILE.
"""

from ml_collections import ConfigDict

from uda_jax.benchmark_rows import DACS
from uda_jax.daformer_configs import published


def get_config() -> ConfigDict:
    no_rows = dict(ignore_top=0, ignore_bottom=0)
    config = published("gta5_to_cityscapes_daformer", **no_rows, **DACS)
    config.init_from = "data/weights/resnet101_v1c-e67eebb6.pth"
    config.remat = False
    config.model = ConfigDict(
        dict(name="deeplabv2", backbone="resnet101", form="mmseg", branches=2)
    )
    # A rule for the heads alone: the backbone's BatchNorm decays too.
    config.optimizer.decay_of = "all"
    config.data.sampling = ConfigDict(dict(name="uniform"))
    return config
