"""Configs of DAFormer, DACS and EBDA: what those in configs/ share."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from uda_jax import benchmark_rows as rows
from uda_jax.benchmarks import base_config, label_space_of
from uda_jax.errors import UserError

# Of the small runs: method, its options over the published ones, and whether rare
# classes are sampled.
SMALL_METHODS = {
    "daformer": ("daformer", {}, True),
    "dacs": ("daformer", rows.DACS, False),
    "ebda_v1": ("ebda", rows.EBDA_V1, True),
    "ebda_v2": ("ebda", rows.EBDA_V2, True),
    "source": ("source_only", {"class_weights": "none"}, False),
}


def daformer_recipe(config: ConfigDict, method: str = "daformer", **options) -> None:
    """Sets what DAFormer, DACS and EBDA are trained with, on a config of `base_config`.

    Optimizer, schedule and the method's row, with the thing classes' train ids; not the
    sampling, which is the benchmark's.

    Args:
      config: to change.
      method: "daformer" or "ebda".
      **options: of the method, over the published ones.

    Raises:
      UserError: features are to stay near those of things, and no class is one.
    """
    config.optimizer = ConfigDict(rows.ADAMW)
    config.schedule = ConfigDict(rows.MMSEG_POLY)
    classes = label_space_of(config).classes
    things = tuple(i for i, name in enumerate(classes) if name in rows.THINGS)
    row = {**rows.SELF_TRAINING, "feature_classes": things, **options}
    if (
        row["feature_weight"]
        and not {"feature_classes"} & options.keys()
        and not things
    ):
        raise UserError(
            f'label space "{config.label_space}" has none of {", ".join(rows.THINGS)}: '
            "give the train ids of its things as feature_classes, or feature_weight=0."
        )
    config.method = ConfigDict({"name": method, **row})


def published(benchmark: str, method: str = "daformer", **options) -> ConfigDict:
    """The config of a published run: MiT-B5, two images of each domain, 40,000 steps.

    Args:
      benchmark, method, **options: see `base_config` and `daformer_recipe`.
    """
    config = base_config(benchmark)
    config.init_from = "data/weights/mit_b5.pth"
    config.init_new_heads = True
    config.batch_size = 2
    config.steps = 40_000
    config.remat = True
    daformer_recipe(config, method, **options)
    config.evaluate_every = 4_000
    config.panels_every = 4_000
    config.checkpoint_every = 1_000
    return config


def small(
    benchmark: str,
    row: tuple[str, Mapping[str, Any], bool],
    *,
    steps: int,
    resize: tuple[int, int],
    crop_size: tuple[int, int],
) -> ConfigDict:
    """The config of a run on two cores: `SMALL_DAFORMER`, four images.

    Args:
      benchmark: see `base_config`.
      row: as those of `SMALL_METHODS`.
      steps, resize, crop_size: of the run; it is evaluated at `resize`.
    """
    method, options, rare_classes = row
    config = base_config(benchmark)
    config.batch_size = 4
    config.steps = steps
    for geometry in (config.data.source, config.data.target):
        geometry.resize = resize
        geometry.crop_size = crop_size
        geometry.scales = (1.0, 1.25)
    config.evaluation.size = resize
    config.data.sampling = ConfigDict(
        {**rows.RARE_CLASS, "min_pixels": 200} if rare_classes else {"name": "uniform"}
    )
    config.model = ConfigDict(rows.SMALL_DAFORMER)
    if method not in ("daformer", "ebda"):
        config.method = ConfigDict({"name": method, **options})
    else:
        # These images have no border that would be wrong, a run of some hundred steps
        # needs a teacher that is not the mean of them all, and a network from random
        # weights needs the colours that it learned with and has statistics that differ
        # much between the domains.
        no_rows = {"ignore_top": 0, "ignore_bottom": 0}
        ours = {"alpha": 0.99, "source_view": "tufl", "statistics": "target"}
        daformer_recipe(config, method, **{**no_rows, **ours, **options})
    config.optimizer = ConfigDict(
        {**rows.ADAMW, "learning_rate": 1e-3, "head_multiplier": 1.0}
    )
    config.schedule = ConfigDict(dict(name="poly", power=1.0, warmup_steps=0))
    config.evaluate_every = steps // 2
    config.panels_every = steps
    return config
