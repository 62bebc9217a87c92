"""Scores of a run: as its config says, again later, or of weights as they are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.sharding import NamedSharding
from ml_collections import ConfigDict

from uda_jax import runs, trained
from uda_jax.benchmarks import evaluated_classes, label_space_of, open_dataset
from uda_jax.data.dataset import Dataset
from uda_jax.errors import UserError
from uda_jax.evaluate import evaluate, make_forward
from uda_jax.metrics import Report


def score(
    config: ConfigDict,
    forward: Callable,
    images: Dataset,
    *,
    on: str = "test",
    sharding: NamedSharding | None = None,
    **facts: Any,
) -> Report:
    """Evaluates `forward` as a config says.

    Args:
      config: of a run: its benchmark, classes and evaluation count.
      forward, images, sharding: see `evaluate`.
      on: what `images` are called in the config.
      **facts: of the report's provenance: step, checkpoint...
    """
    classes, also = evaluated_classes(config)
    return evaluate(
        forward,
        images,
        num_classes=label_space_of(config).num_classes,
        classes=classes,
        also=also,
        sharding=sharding,
        provenance={
            "benchmark": config.benchmark,
            "images": on,
            "network": config.model.name,
            "method": config.method.name,
            **facts,
        },
        **config.evaluation.to_dict(),
    )


def images_of(config: ConfigDict, on: str) -> Dataset:
    """The labelled images that scores are of.

    Args:
      config: of a run.
      on: "test" or "validation".

    Raises:
      UserError: the config has none, or what their reader raises.
    """
    if not config[on]:
        raise UserError(
            f"benchmark {config.benchmark} has no {on} images: set the config's "
            f"{on} to a reader's row, or leave --on={on} out."
        )
    return open_dataset(config[on], label_space_of(config))


def evaluate_run(
    config: ConfigDict, workdir: Path, checkpoint: str, on: str = "test"
) -> Report:
    """`--mode=evaluate`: scores a checkpoint again, as this config's evaluation says.

    Prints the table and writes workdir/evaluate_<checkpoint>.json, on the source's
    `validation` images evaluate_<checkpoint>_validation.json; nothing else of the run
    is touched.  Where `workdir` is no run yet and the config has `init_from`, those
    weights are scored as they are, into workdir/evaluate_init_from.json.

    Raises:
      UserError: the workdir is of a config that differs in more than `evaluation`,
        `test`, `validation` and where its weights came from, or has no validation.
    """
    images = images_of(config, on)
    suffix = "" if on == "test" else f"_{on}"
    starts = config.init_from and not config.continue_from
    if starts and not (workdir / "config.json").exists():
        return _evaluate_init_from(config, workdir, images, on, suffix)
    run = trained.load_run(workdir, checkpoint)
    free = ("evaluation", "test", "validation", *runs.ORIGINS)
    kept = lambda c: {k: v for k, v in json.loads(c.to_json()).items() if k not in free}
    differing = runs.differences(kept(run.config), kept(config))
    if differing:
        raise UserError(
            f"workdir {workdir} was trained with another config "
            f"({'; '.join(differing[:4])}): give the --config that trained it."
        )
    forward = make_forward(run.model, run.params, run.batch_stats)
    report = score(config, forward, images, on=on, step=run.step, checkpoint=checkpoint)
    path = workdir / f"evaluate_{checkpoint}{suffix}.json"
    return _tell(report, f"at step {run.step}", path)


def _evaluate_init_from(config, workdir: Path, images: Dataset, on: str, suffix: str):
    if config.init_new_heads:
        raise UserError(
            "init_new_heads=True leaves heads untrained, which says nothing about the "
            "weights: leave it out with --mode=evaluate."
        )
    runs.check_config(config)
    model = runs.make_model(config)
    own = jax.eval_shape(model.init, jax.random.key(0))
    params, batch_stats, origin = runs.load_weights(
        config.init_from, *own, row=config.model, label_space=label_space_of(config)
    )
    print(f"weights     {origin}")
    forward = make_forward(model, params, batch_stats)
    report = score(config, forward, images, on=on, step=0, checkpoint="init_from")
    return _tell(report, "as loaded", workdir / f"evaluate_init_from{suffix}.json")


def _tell(report: Report, when: str, path: Path) -> Report:
    report.save(path)
    print(report.table())
    print(f"mIoU {100 * report.miou:.2f} {when}; written to {path}")
    return report
