r"""DAFormer, DACS and EBDA on real photographs: CamVid, day to dusk.

    python -m uda_jax.main --config configs/daformer_camvid_dusk.py \
        --workdir runs/daformer_camvid_dusk

It starts from the supervised network of configs/source_only_camvid.py:daformer, MiT-B0
of half width from random weights, and what its features stay near is that network, as
on minicity (configs/daformer_minicity.py).  `:dacs`, `:ebda_v1` and `:ebda_v2` are the
other methods, `:source` only goes on with the source.  The 62 dusk images that it
adapts to are opened without their labels; the 62 test images are of the same drive.
Nothing has been measured yet.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks
from uda_jax.benchmark_rows import DACS, EBDA_V1, EBDA_V2

# Method, its options, and whether rare classes are sampled.
VARIANTS = {
    "daformer": ("daformer", {}, True),
    "dacs": ("daformer", DACS, False),
    "ebda_v1": ("ebda", EBDA_V1, True),
    "ebda_v2": ("ebda", EBDA_V2, True),
    "source": ("source_only", None, False),
}
RARE_CLASS = dict(
    name="rare_class", temperature=0.01, min_pixels=200, min_crop_ratio=0.5
)


def get_config(variant: str = "daformer") -> ConfigDict:
    method, options, rare_classes = benchmarks.choose(VARIANTS, variant)
    config = benchmarks.base_config("camvid_day_to_dusk")
    config.init_from = "runs/source_only_camvid_daformer"
    config.batch_size = 4
    config.steps = 300
    for geometry in (config.data.source, config.data.target):
        geometry.resize = (180, 240)
        geometry.crop_size = (128, 192)
        geometry.scales = (1.0, 1.25)
    config.evaluation.size = (180, 240)
    config.data.sampling = ConfigDict(
        RARE_CLASS if rare_classes else dict(name="uniform")
    )
    config.model = ConfigDict(dict(name="daformer", backbone="mit_b0", width=0.5))
    if options is None:
        config.method = ConfigDict(dict(name=method, class_weights="none", view="none"))
    else:
        options = dict(ignore_top=0, ignore_bottom=0, **options)
        benchmarks.daformer_recipe(config, method, **options)
    config.optimizer = ConfigDict(
        dict(
            name="adamw",
            learning_rate=3e-4,
            beta1=0.9,
            beta2=0.999,
            eps=1e-8,
            weight_decay=0.01,
            head_multiplier=1.0,
            decay_of="all_but_backbone_norms",
        )
    )
    config.schedule = ConfigDict(dict(name="poly", power=1.0, warmup_steps=0))
    config.evaluate_every = 150
    config.panels_every = 300
    return config
