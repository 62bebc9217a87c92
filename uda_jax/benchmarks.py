"""Benchmarks as a table, the config that every run starts from, and its datasets."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from uda_jax.data import minicity
from uda_jax.data.dataset import Dataset
from uda_jax.data.sources import SOURCES
from uda_jax.errors import UserError, did_you_mean
from uda_jax.factories import build
from uda_jax.labels import LABEL_SPACES

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One adaptation task.

    Attributes:
      label_space: key of `LABEL_SPACES`.
      source: reader, root and options of the labelled training images.
      target: the same of the training images whose labels are never read.
      test: the same of the labelled images that scores are reported on.
      crop_size: (height, width) of training crops.
      validation: labelled source images outside of the training, to choose numbers by;
        empty where there are none.
      evaluation: what differs from `base_config`'s `evaluation`.
      classes: class names that the mean IoU goes over.
    """

    label_space: str
    source: Row
    target: Row
    test: Row
    crop_size: tuple[int, int]
    validation: Row = dataclasses.field(default_factory=dict)
    evaluation: Row = dataclasses.field(default_factory=dict)
    classes: tuple[str, ...] = LABEL_SPACES["crosscity13"].classes


def _cityscapes(root: str, split: str) -> Row:
    return {"reader": "cityscapes", "root": root, "split": split, "fraction": 1.0}


def _crosscity(root: str, city: str, split: str) -> Row:
    return {"reader": "crosscity", "root": root, "city": city, "split": split}


def _camvid(split: str, *sequences: str) -> Row:
    return {
        "reader": "camvid",
        "root": "data/camvid",
        "split": split,
        "sequences": sequences,
    }


def _city(city: str) -> Benchmark:
    # Crops and 647-pixel evaluation windows: TUFL's released program.
    return Benchmark(
        label_space="crosscity13",
        source=_cityscapes("data/cityscapes", "train"),
        validation=_cityscapes("data/cityscapes", "val"),
        target=_crosscity("data/crosscity", city, "Train"),
        test=_crosscity("data/crosscity", city, "Test"),
        crop_size=(640, 1280),
        evaluation={"mode": "chips", "window": (647, 647)},
    )


_MINICITY = Benchmark(
    label_space="crosscity13",
    source=_cityscapes("data/minicity/source", "train"),
    validation=_cityscapes("data/minicity/source", "val"),
    target=_crosscity("data/minicity/target", "Minicity", "Train"),
    test=_crosscity("data/minicity/target", "Minicity", "Test"),
    crop_size=(192, 384),
    evaluation={"batch_size": 4},
)
_CAMVID_DUSK = Benchmark(
    label_space="camvid11",
    source=_camvid("train", "0006R0", "0016E5"),
    validation=_camvid("val"),
    target=_camvid("train", "0001TP"),
    test=_camvid("test", "0001TP"),
    crop_size=(352, 480),
    evaluation={"batch_size": 4},
    classes=LABEL_SPACES["camvid11"].classes,
)

# An oracle trains on the labels of the target's training images: an upper bound.
BENCHMARKS: dict[str, Benchmark] = {
    "minicity": _MINICITY,
    "minicity_oracle": dataclasses.replace(_MINICITY, source=_MINICITY.target),
    "cityscapes_to_rio": _city("Rio"),
    "cityscapes_to_rome": _city("Rome"),
    "cityscapes_to_taipei": _city("Taipei"),
    "cityscapes_to_tokyo": _city("Tokyo"),
    "camvid_day_to_dusk": _CAMVID_DUSK,
    "camvid_dusk_oracle": dataclasses.replace(
        _CAMVID_DUSK, source=_CAMVID_DUSK.target, validation={}
    ),
}


def get_benchmark(name: str) -> Benchmark:
    """`BENCHMARKS[name]`.

    Raises:
      UserError: no such benchmark.
    """
    if name not in BENCHMARKS:
        raise UserError(
            f'benchmark "{name}" is unknown{did_you_mean(name, BENCHMARKS)}: '
            f"choose one of {', '.join(BENCHMARKS)}."
        )
    return BENCHMARKS[name]


def base_config(name: str) -> ConfigDict:
    """Every field that a run has, with the benchmark's choices.

    A config file takes this and overwrites what it chooses.  In `source`, `target` and
    `test`, `reader` is a key of `uda_jax.data.sources.SOURCES` and the rest are its
    arguments; in `model`, `method`, `optimizer` and `schedule`, `name` is a key of
    their table and the rest are that factory's arguments.  An empty tuple or string
    stands for "none": ml_collections cannot override None from the command line.

    Raises:
      UserError: no such benchmark.
    """
    benchmark = get_benchmark(name)
    evaluation = {
        "mode": "whole",
        "window": (),
        "stride": (),
        "scales": (1.0,),
        "flip": False,
        "size": (),
        "batch_size": 1,
    }
    return ConfigDict(
        {
            "benchmark": name,
            "label_space": benchmark.label_space,
            "seed": 0,
            "steps": 2_000,
            "batch_size": 2,
            "init_from": "",
            "init_new_heads": False,
            "source": dict(benchmark.source),
            "target": dict(benchmark.target),
            "test": dict(benchmark.test),
            "data": {
                "crop_size": benchmark.crop_size,
                "resize": (),
                "scales": (0.75, 1.0, 1.25, 1.5),
                "flip_probability": 0.5,
                "frozen_augmentation": False,
                "threads": 2,
            },
            "model": {
                "name": "bisenet",
                "backbone": "resnet18",
                "form": "tufl",
                "width": 1.0,
            },
            "batch_norm": "train",
            "compute_dtype": "float32",
            "remat": False,
            "accumulate_steps": 1,
            "optimizer": {
                "name": "sgd",
                "learning_rate": 0.01,
                "momentum": 0.9,
                "weight_decay": 5e-4,
                "head_multiplier": 1.0,
            },
            "schedule": {"name": "poly", "power": 0.9, "warmup_steps": 0},
            "method": {"name": "source_only"},
            "evaluation": {**evaluation, **benchmark.evaluation},
            "log_every": 20,
            "evaluate_every": 500,
            "panels_every": 500,
            "checkpoint_every": 200,
        }
    )


def open_datasets(config: ConfigDict) -> tuple[Dataset, Dataset | None, Dataset]:
    """(source with labels, target without labels, test with labels) of a config.

    The target is None where `config.target.reader` is "".  A minicity that is not there
    yet is drawn first, which takes about a minute.

    Raises:
      UserError: an unknown benchmark, reader or option, or what the reader raises.
    """
    benchmark = get_benchmark(config.benchmark)
    if benchmark.source["root"].startswith("data/minicity/"):
        _draw_minicity(config)
    source = open_dataset(config.source, config.label_space)
    target = None
    if config.target.reader:
        target = open_dataset(config.target, config.label_space, labels=False)
    return source, target, open_dataset(config.test, config.label_space)


def open_dataset(row: Row, label_space: str, *, labels: bool = True) -> Dataset:
    """The dataset that a row {"reader", "root", option: value ...} describes.

    Args:
      row: such as `config.source` or `Benchmark.validation`.
      label_space: key of `LABEL_SPACES`.
      labels: whether to read labels.

    Raises:
      UserError: an unknown reader or option, or what the reader raises.
    """
    options = {k: v for k, v in row.items() if k not in ("reader", "root")}
    for key in ("labels", "label_space"):
        if key in options:
            raise UserError(
                f'"{key}" cannot be set for one dataset: remove it, labels are read '
                "for source and test alone, in the config's one label_space."
            )
    arguments = {**options, "label_space": label_space, "labels": labels}
    return build(SOURCES, "reader", {"name": row["reader"], **arguments}, row["root"])


def _draw_minicity(config: ConfigDict) -> None:
    """Draws the built-in benchmark where the test images are looked for."""
    root = Path(config.test.root).parent
    if config.test.reader == "crosscity" and not root.exists():
        print(f"drawing minicity into {root} (once, about a minute) ...", flush=True)
        minicity.write(root)


def choose(table: Mapping[str, Any], argument: str) -> Any:
    """`table[argument]`, for the part behind the colon of `--config=file.py:argument`.

    Raises:
      UserError: the table has no such key.
    """
    if argument not in table:
        raise UserError(
            f'the config has no variant "{argument}"{did_you_mean(argument, table)}: '
            f"write one of {', '.join(table)} behind the colon."
        )
    return table[argument]
