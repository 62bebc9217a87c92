r"""Supervised training on CamVid's day sequences, tested at dusk.

    python -m uda_jax.main --config configs/source_only_camvid.py \
        --workdir runs/source_only_camvid

What configs/tufl_camvid_dusk.py starts from.  `:oracle` trains on the 62 labelled dusk
images instead.  Numbers and intervals: docs/results.md.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks

TRAINED_ON = {"source": "camvid_day_to_dusk", "oracle": "camvid_dusk_oracle"}


def get_config(trained_on: str = "source") -> ConfigDict:
    config = benchmarks.base_config(benchmarks.choose(TRAINED_ON, trained_on))
    config.batch_size = 4
    config.steps = 450
    # Half size, as in configs/source_only_minicity.py.
    for geometry in (config.data.source, config.data.target):
        geometry.resize = (180, 240)
        geometry.crop_size = (128, 192)
        geometry.scales = (1.0, 1.25)
    config.evaluation.size = (180, 240)
    config.model.width = 0.25
    config.optimizer = ConfigDict(
        dict(
            name="sgd",
            learning_rate=0.05,
            momentum=0.9,
            weight_decay=5e-4,
            head_multiplier=1.0,
        )
    )
    config.method = ConfigDict(dict(name="source_only", class_weights="none"))
    config.evaluate_every = 450
    config.panels_every = 450
    return config
