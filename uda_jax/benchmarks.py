"""The config that every run starts from, and the datasets that it names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from uda_jax.benchmark_table import BENCHMARKS, Benchmark, Row
from uda_jax.data import minicity
from uda_jax.data.dataset import Dataset
from uda_jax.data.sources import SOURCES
from uda_jax.errors import UserError, did_you_mean
from uda_jax.factories import build
from uda_jax.labels import LabelSpace, space_of


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
    arguments; in `model`, `method`, `optimizer`, `schedule` and below `data`, `name` is
    a key of their table and the rest are that factory's arguments.  An empty tuple or
    string stands for "none": ml_collections cannot override None from the command line.

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
        "label_size": (),
        "filter": "area",
        "resize": "probabilities",
        "align_corners": True,
        "batch_size": 1,
    }
    return ConfigDict(
        {
            "benchmark": name,
            "label_space": benchmark.label_space,
            # Of an own label space: rows (raw id, "name", (red, green, blue)).
            "classes": (),
            "seed": 0,
            "steps": 2_000,
            "batch_size": 2,
            "init_from": "",
            "init_new_heads": False,
            # Workdir of a run, finished or stopped, to go on from, optimizer too.
            "continue_from": "",
            # Workdir or file of the network that labels the target of a method's mix;
            # "" takes what the run starts from.
            "frozen_from": "",
            # Config files of the stages that follow; their commands are printed.
            "next": (),
            "source": dict(benchmark.source),
            "target": dict(benchmark.target),
            "test": dict(benchmark.test),
            "validation": dict(benchmark.validation),
            # Target images that have labels, for methods that learn from some.
            "labelled": {},
            # (step, how many target images get a label then), and how; see
            # `uda_jax.rounds`.
            "rounds": (),
            "active": {},
            "data": {
                "source": dict(benchmark.geometry),
                "target": dict(benchmark.target_geometry or benchmark.geometry),
                "sampling": dict(benchmark.sampling),
                # Batch entry -> row of a sampling: further examples of the source.
                "streams": {},
                # A second, independent draw of the target: SS-ADA's CutMix partner.
                "partner": False,
                # Folder of DAFormer's sample_class_stats.json; "" counts classes here.
                "class_statistics": "",
                # Where `python -m uda_jax.data.prepare` writes; "" reads originals.
                "prepared": "data/prepared",
                "threads": 2,
                "workers": 0,
            },
            "model": dict(benchmark.model),
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
            # {"optimizer", "schedule"} of a method's discriminators.
            "discriminator": {},
            "evaluation": {**evaluation, **benchmark.evaluation},
            "log_every": 20,
            "evaluate_every": 500,
            # Of a mean teacher, beside the student that the report is of.
            "evaluate_teacher": False,
            "panels_every": 500,
            "checkpoint_every": 200,
        }
    )


def label_space_of(config: ConfigDict) -> LabelSpace:
    """The classes of a run: the config's own table, or one of `LABEL_SPACES`.

    Raises:
      UserError: no such label space, or a table that cannot be used.
    """
    return space_of(config.label_space, config.classes)


def evaluated_classes(config: ConfigDict) -> tuple[tuple[int, ...], dict]:
    """Train ids that the mean IoU goes over, and those of further means by name.

    Raises:
      UserError: the benchmark's classes are not in the label space.
    """
    space, benchmark = label_space_of(config), get_benchmark(config.benchmark)
    classes = space.train_ids(benchmark.classes or space.classes)
    return classes, {k: space.train_ids(v) for k, v in benchmark.also.items()}


def open_datasets(config: ConfigDict) -> tuple[Dataset, Dataset | None, Dataset]:
    """(source with labels, target without labels, test with labels) of a config.

    The target is None where `config.target.reader` is "".  A minicity that is not there
    yet is drawn first, which takes about a minute.

    Raises:
      UserError: an unknown benchmark, reader or option, or what the reader raises.
    """
    space = label_space_of(config)
    draw_minicity(config.benchmark, config.test)
    source = open_dataset(config.source, space)
    target = None
    if config.target.reader:
        target = open_dataset(config.target, space, labels=False)
    return source, target, open_dataset(config.test, space)


def open_dataset(
    row: Row, label_space: str | LabelSpace, *, labels: bool = True
) -> Dataset:
    """The dataset that a row {"reader", "root", option: value ...} describes.

    Args:
      row: such as `config.source` or `Benchmark.validation`.
      label_space: key of `LABEL_SPACES`, or a user's own.
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
    if not row["root"]:
        raise UserError(
            f'the root of a dataset with reader "{row["reader"]}" is empty: set '
            "source.root, target.root and test.root to folders, or target.reader to "
            '"" for no target.'
        )
    arguments = {**options, "label_space": label_space, "labels": labels}
    return build(SOURCES, "reader", {"name": row["reader"], **arguments}, row["root"])


def draw_minicity(benchmark: str, test: Row) -> None:
    """Draws the built-in benchmark where its test images are looked for.

    Nothing happens where they are there, or the benchmark is another.

    Args:
      benchmark: key of `BENCHMARKS`.
      test: the row of the test images, such as `config.test`.

    Raises:
      UserError: no such benchmark.
    """
    if not get_benchmark(benchmark).source["root"].startswith("data/minicity/"):
        return
    root = Path(test["root"]).parent
    if test["reader"] == "crosscity" and not root.exists():
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
