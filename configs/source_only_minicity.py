r"""Supervised training on minicity's source city: what adaptation starts from.

    python -m uda_jax.main --config configs/source_only_minicity.py \
        --workdir runs/source_only_minicity

`:oracle` trains on the target's labels instead: the upper bound that no adaptation
sees.  A quarter-width BiSeNet from random weights, so that two cores do it in minutes.
"""

from ml_collections import ConfigDict

from uda_jax import benchmarks

TRAINED_ON = {"source": "minicity", "oracle": "minicity_oracle"}


def get_config(trained_on: str = "source") -> ConfigDict:
    config = benchmarks.base_config(benchmarks.choose(TRAINED_ON, trained_on))
    config.batch_size = 4
    config.steps = 900
    config.data.crop_size = (96, 192)
    # Half size, for training and for the network's eyes in the evaluation: whole scenes
    # in the receptive field teach a network from scratch faster than details do.
    config.data.resize = (128, 256)
    config.data.scales = (1.0, 1.25)
    config.evaluation.size = (128, 256)
    config.model.width = 0.25
    config.optimizer = ConfigDict(
        dict(
            name="sgd",
            learning_rate=0.02,
            momentum=0.9,
            weight_decay=5e-4,
            head_multiplier=1.0,
        )
    )
    config.method = ConfigDict(dict(name="source_only", class_weights="middle"))
    config.evaluate_every = 450
    config.panels_every = 900
    return config
