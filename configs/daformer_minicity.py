r"""DAFormer, DACS and EBDA on minicity, with a small Mix Transformer.

    python -m uda_jax.main --config configs/daformer_minicity.py \
        --workdir runs/daformer_minicity

It starts from the supervised network of configs/source_only_minicity.py:daformer, which
is MiT-B0, with a decoder of 64 channels, from random weights: there are no ImageNet
weights here, and the features of which DAFormer stays near are that network's own.
`:dacs`, `:ebda_v1` and `:ebda_v2` are the other methods; `:no_rcs`, `:no_fd` and
`:alpha` are DAFormer without rare-class sampling, without feature distance and with the
published teacher, 0.999, where the others here have DACS's 0.99; `:source` goes on with
the source alone, as it began.  Numbers: docs/results.md.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks
from uda_jax.daformer_configs import SMALL_METHODS, small

VARIANTS = {
    **SMALL_METHODS,
    "source": ("source_only", {"class_weights": "middle"}, False),
    "no_rcs": ("daformer", {}, False),
    "no_fd": ("daformer", dict(feature_weight=0.0, feature_classes=()), True),
    "alpha": ("daformer", dict(alpha=0.999), True),
}


def get_config(variant: str = "daformer") -> ConfigDict:
    config = small(
        "minicity",
        benchmarks.choose(VARIANTS, variant),
        steps=600,
        resize=(128, 256),
        crop_size=(96, 192),
    )
    config.init_from = "runs/source_only_minicity_daformer"
    return config
