r"""BiSeNet on Cityscapes in the 13 classes that it shares with CrossCity.

    python -m uda_jax.main --config configs/source_only_cityscapes13.py \
        --workdir runs/source_only_cityscapes13

What configs/tufl_rio.py starts from.  Nobody published how long the authors trained
their source model; the numbers here are those of their supervised mode (1024 x 1024
crops, batch 2, the poly schedule).  From random weights it needs many more steps than
from ImageNet's.  Tested on Rio; `:rome`, `:taipei` and `:tokyo` test on other
cities, and one run starts the adaptation to all four.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks

BENCHMARK = {
    city: f"cityscapes_to_{city}" for city in ("rio", "rome", "taipei", "tokyo")
}


def get_config(city: str = "rio") -> ConfigDict:
    config = benchmarks.base_config(benchmarks.choose(BENCHMARK, city))
    config.next = (
        "configs/tufl_rio.py",
        *(f"configs/tufl_rio.py:{name}" for name in BENCHMARK if name != "rio"),
        *(f"configs/tufl_rio.py:{name}_adaptive" for name in BENCHMARK),
    )
    config.target.reader = ""  # the target is not looked at
    config.steps = 40_000
    config.batch_size = 8
    config.data.source.crop_size = (1024, 1024)
    config.optimizer = ConfigDict(
        dict(
            name="sgd",
            learning_rate=1e-2,
            momentum=0.9,
            weight_decay=5e-4,
            head_multiplier=1.0,
        )
    )
    config.schedule = ConfigDict(dict(name="poly", power=0.9, warmup_steps=0))
    config.method = ConfigDict(
        dict(
            name="source_only",
            class_weights="middle",
            source_loss="regular",
            heads="deep",
        )
    )
    config.evaluate_every = 4_000
    config.panels_every = 4_000
    config.checkpoint_every = 1_000
    return config
