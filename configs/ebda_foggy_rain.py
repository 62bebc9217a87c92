r"""EBDA from Cityscapes to Foggy and Rain Cityscapes: DAFormer with balanced entropy.

    python -m uda_jax.main --config configs/ebda_foggy_rain.py \
        --workdir runs/ebda_foggy_rain

github.com/vron8632/EB_DA names the task and has neither config nor score for it: data,
sizes and crops are VBLC's, which defines it (79.8 mIoU there with its own method and
the same network), images, steps, rate and card (an RTX 2080 Ti, 11 GB) DAFormer's.
`:v2` (the default), `:v1` and `:daformer`, without the entropy, see
configs/ebda_acdc.py; no ignored rows, which are laid out for other crops.  Nothing of
it has been run here, where neither the data nor the weights can be had.

It starts from ImageNet's weights of the encoder, which have NVIDIA's non-commercial
licence: put mit_b5.pth into data/weights, or give its path: --config.init_from=FILE.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks
from uda_jax.benchmark_rows import EBDA_V1, EBDA_V2
from uda_jax.daformer_configs import published

VARIANTS = {
    "v2": ("ebda", EBDA_V2),
    "v1": ("ebda", EBDA_V1),
    "daformer": ("daformer", {}),
}


def get_config(variant: str = "v2") -> ConfigDict:
    method, form = benchmarks.choose(VARIANTS, variant)
    no_rows = dict(ignore_top=0, ignore_bottom=0)
    return published("cityscapes_to_foggy_rain", method, **no_rows, **form)
