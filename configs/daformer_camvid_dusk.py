r"""DAFormer, DACS and EBDA on real photographs: CamVid, day to dusk.

    python -m uda_jax.main --config configs/daformer_camvid_dusk.py \
        --workdir runs/daformer_camvid_dusk

It starts from the supervised network of configs/source_only_camvid.py:daformer, MiT-B0
with a decoder of 64 channels from random weights, and what its features stay near is
that network, as on minicity (configs/daformer_minicity.py).  `:dacs`, `:ebda_v1` and
`:ebda_v2` are the other methods, `:source` is a control, as many steps more with the
loss and colours that the start had.  What is not published in them is as there.  The 62
dusk images that it adapts to are opened without their labels; the 62 test images
are of the same drive.  One core takes four minutes for the start and six to nine for
a method.  Numbers and intervals: docs/results.md.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks
from uda_jax.daformer_configs import SMALL_METHODS, small

VARIANTS = SMALL_METHODS


def get_config(variant: str = "daformer") -> ConfigDict:
    config = small(
        "camvid_day_to_dusk",
        benchmarks.choose(VARIANTS, variant),
        steps=300,
        resize=(180, 240),
        crop_size=(128, 192),
    )
    config.init_from = "runs/source_only_camvid_daformer"
    return config
