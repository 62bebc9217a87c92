r"""EBDA from Cityscapes to ACDC: DAFormer with balanced entropy.

    python -m uda_jax.main --config configs/ebda_acdc.py --workdir runs/ebda_acdc

github.com/vron8632/EB_DA.  `:v2` (the default) is the form of the released source, a
constant entropy of 0.4; `:v1` that of the compiled file beside it, which the published
score most probably comes from: the moving average of the 60 % quantile.  Both with one
image of each domain and 50,000 steps, as its config says.  `:clean` and `:clean_v1`
have DAFormer's protocol (two images, 40,000 steps), to be compared with
configs/daformer_acdc.py.

Published: 58.75 mIoU on ACDC's test images, by its server (55.4 of DAFormer), one run
on an RTX 2080 Ti, of the checkpoint that was best on the target's validation images; a
report here is of the last step.  Nothing of it has been run here, where neither the
data nor the weights can be had.

The file for the server:

    python -m uda_jax.submission --workdir runs/ebda_acdc \
        --output submissions/ebda_acdc --checkpoint best

It starts from ImageNet's weights of the encoder, which have NVIDIA's non-commercial
licence: put mit_b5.pth into data/weights, or give its path: --config.init_from=FILE.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks
from uda_jax.benchmark_rows import EBDA_V1, EBDA_V2
from uda_jax.daformer_configs import published

# Form, images of each domain in a step, steps.
VARIANTS = {
    "v2": (EBDA_V2, 1, 50_000),
    "v1": (EBDA_V1, 1, 50_000),
    "clean": (EBDA_V2, 2, 40_000),
    "clean_v1": (EBDA_V1, 2, 40_000),
}


def get_config(variant: str = "v2") -> ConfigDict:
    form, batch_size, steps = benchmarks.choose(VARIANTS, variant)
    config = published("cityscapes_to_acdc", "ebda", **form)
    config.batch_size = batch_size
    config.steps = steps
    config.evaluate_every = 2_000
    config.panels_every = 2_000
    return config
