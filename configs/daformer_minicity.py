r"""DAFormer, DACS and EBDA on minicity, with a small Mix Transformer.

    python -m uda_jax.main --config configs/daformer_minicity.py \
        --workdir runs/daformer_minicity

It starts from the supervised network of configs/source_only_minicity.py:daformer, which
is MiT-B0, with a decoder of 64 channels, from random weights: there are no ImageNet
weights here, and the features of which DAFormer stays near are that network's own.
`:dacs`, `:ebda_v1` and `:ebda_v2` are the other methods; `:no_rcs`, `:no_fd` and
`:alpha` are DAFormer without rare-class sampling, without feature distance and with the
published teacher, 0.999, where the others here have DACS's 0.99.  Also not published in
all of them: the source has the colours that the start had, BatchNorm's statistics are
the target's, the rate is one for encoder and decoder, without a warm-up, and no rows
are ignored.  `:published` has the published teacher, colours and statistics.

`:source` is a control, as many steps more with the loss and colours that the start had;
`:statistics` is another, which also takes BatchNorm's statistics from the target.
One core takes five minutes for the start, seven for DAFormer or DACS, ten for EBDA.
Numbers: docs/results.md.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks
from uda_jax.daformer_configs import SMALL_METHODS, small

# The target's weight is 0.
NO_TERM = dict(
    entropy_weight=0.0,
    entropy_aux_weight=0.0,
    aux_weight=0.0,
    class_weights="middle",
    source_view="tufl",
    target_view="none",
    statistics="target",
)
VARIANTS = {
    **SMALL_METHODS,
    "source": ("source_only", {"class_weights": "middle"}, False),
    "statistics": ("minent", NO_TERM, False),
    "published": (
        "daformer",
        dict(alpha=0.999, source_view="none", statistics="student"),
        True,
    ),
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
