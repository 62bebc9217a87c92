r"""DAFormer, DACS and EBDA on real photographs: CamVid, day to dusk.

    python -m uda_jax.main --config configs/daformer_camvid_dusk.py \
        --workdir runs/daformer_camvid_dusk

It starts from the supervised network of configs/source_only_camvid.py:daformer, MiT-B0
with a decoder of 64 channels from random weights, and what its features stay near is
that network, as on minicity (configs/daformer_minicity.py).  `:dacs`, `:ebda_v1` and
`:ebda_v2` are the other methods, `:source` only goes on with the source.  The 62 dusk
images that it adapts to are opened without their labels; the 62 test images are of the
same drive.  Nothing has been measured yet.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks
from uda_jax.benchmark_rows import DACS, EBDA_V1, EBDA_V2
from uda_jax.daformer_configs import small

# Method, its options, and whether rare classes are sampled.
VARIANTS = {
    "daformer": ("daformer", {}, True),
    "dacs": ("daformer", DACS, False),
    "ebda_v1": ("ebda", EBDA_V1, True),
    "ebda_v2": ("ebda", EBDA_V2, True),
    "source": ("source_only", None, False),
}


def get_config(variant: str = "daformer") -> ConfigDict:
    method, options, rare_classes = benchmarks.choose(VARIANTS, variant)
    config = small(
        "camvid_day_to_dusk",
        method,
        options,
        rare_classes=rare_classes,
        steps=300,
        resize=(180, 240),
        crop_size=(128, 192),
    )
    config.init_from = "runs/source_only_camvid_daformer"
    return config
