"""What people read: the header of a run, its parameters and its final report."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from clu import parameter_overview
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict
from PIL import Image

from uda_jax import stages
from uda_jax.benchmarks import label_space_of
from uda_jax.data.dataset import Dataset
from uda_jax.evaluate import make_forward
from uda_jax.evaluate_run import score
from uda_jax.files import write_atomically
from uda_jax.labels import LabelSpace
from uda_jax.methods import keeps_network
from uda_jax.methods.method import Network
from uda_jax.metrics import Report
from uda_jax.models.model import Model
from uda_jax.parallel import AXIS, to_host
from uda_jax.predict import Predictor, without_labels
from uda_jax.report import write_report
from uda_jax.visualize import colorize, panel
from uda_jax.writers import read_history

PARAMETERS = "parameters.txt"
_STRIPS = 6


def header(config: ConfigDict, workdir: Path, state, origin: str, data: str) -> str:
    """What the run is, in a few lines."""
    device = jax.devices()[0]
    rows = {
        "run": f"{workdir} (benchmark {config.benchmark}, seed {config.seed})",
        "method": _options(config.method),
        "network": f"{_options(config.model)}, BatchNorm {config.batch_norm}, "
        f"{config.compute_dtype}",
        "parameters": f"{_sizes(state.params)}; all in {PARAMETERS}",
        "weights": origin,
        "images": f"{data}; batch {config.batch_size}",
        "geometry": _options(config.data.source),
        "optimizer": f"{_options(config.optimizer)}; "
        f"{_options(config.schedule)}; {config.steps} steps",
        "devices": f"{jax.device_count()} x {device.device_kind} in "
        f"{jax.process_count()} process(es)",
    }
    if config.data.streams:
        streams = config.data.streams.items()
        rows["streams"] = "; ".join(f"{k}: {_options(row)}" for k, row in streams)
    if keeps_network(config):
        rows["frozen"] = _frozen(config)
    if config.discriminator:
        kinds = (config.discriminator.optimizer, config.discriminator.schedule)
        of_it = "; ".join(_options(kind) for kind in kinds)
        rows["optimizer"] += f"; discriminator: {of_it}"
    return "\n".join(f"{name:12s}{text}" for name, text in rows.items())


def _options(row: Mapping | ConfigDict) -> str:
    """'name (option=value, ...)', and so for the rows within a row; 'none' if empty."""
    options = dict(row)
    if not options:
        return "none"
    name = options.pop("name", "")
    rest = ", ".join(
        f"{k}={_options(v) if isinstance(v, Mapping | ConfigDict) else v}"
        for k, v in options.items()
    )
    return f"{name} ({rest})".strip() if rest else name


def _frozen(config: ConfigDict) -> str:
    """Which network a method keeps as it is."""
    if config.continue_from:
        return f"the frozen network of {config.continue_from}"
    if config.frozen_from:
        return config.frozen_from
    return f"{config.init_from}, the network that the run starts from"


def _method_name(config: ConfigDict) -> str:
    """'tufl', and with a mix 'tufl with mix single'."""
    mix = config.method.get("mix")
    return config.method.name + (f" with mix {mix.name}" if mix else "")


def _sizes(params: dict) -> str:
    """'13,390,080 (cp 12,009,536, sp ...)': numbers in all and in each part."""
    count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
    parts = {
        **params["segmentor"],
        **{k: params[k] for k in params if k != "segmentor"},
    }
    parts = ", ".join(f"{name} {count(tree):,}" for name, tree in parts.items())
    return f"{count(params):,} ({parts})"


def write_parameters(workdir: Path, params: dict, writer) -> None:
    """The table of all parameters before the first step: a file, and TensorBoard's."""
    table = parameter_overview.get_parameter_overview(jax.device_get(params))
    write_atomically(workdir / PARAMETERS, table + "\n")
    writer.write_texts(0, {"parameters": f"```\n{table}\n```"})


def assess(
    config,
    model: Model,
    network: Network,
    test: Dataset,
    mesh: Mesh,
    step: int,
    checkpoint: str = "latest",
) -> Report:
    """Evaluates a network as `config.evaluation` says, on the benchmark's classes."""
    return score(
        config, make_forward(model, *network), test, step=step, checkpoint=checkpoint,
        sharding=image_sharding(config, mesh),
    )  # fmt: skip


def student_of(state) -> Network:
    """The segmentor of a state, good until its next step."""
    return Network(state.params["segmentor"], state.batch_stats)


def image_sharding(config: ConfigDict, mesh: Mesh) -> NamedSharding | None:
    """How evaluated images are spread over the devices; None where they are not."""
    evaluation = config.evaluation
    if evaluation.mode == "whole" and evaluation.batch_size % mesh.size == 0:
        return NamedSharding(mesh, PartitionSpec(AXIS))
    return None


def baseline_of(config: ConfigDict, report: Report) -> Report | None:
    """The evaluation of the run that this one started from or continues.

    None where there was no run, or where its classes are others than `report`'s.
    """
    former = config.continue_from or config.init_from
    if not former or not (Path(former) / "report.json").exists():
        return None
    baseline = Report.load(Path(former) / "report.json")
    same = lambda r: (list(r.class_names), list(r.classes))
    return baseline if same(baseline) == same(report) else None


def finish(config, workdir: Path, report: Report, model, state, test: Dataset) -> None:
    """Writes report.json, pictures.png and report.html, and prints the table.

    The last lines on the console are the commands of the stages that follow.
    """
    space = label_space_of(config)
    former = config.continue_from or config.init_from
    following = stages.next_commands(config, workdir, sys.argv[1:])
    baseline = baseline_of(config, report)
    report.save(workdir / "report.json")
    predictors = {}
    if baseline is not None:
        predictors["before"] = Predictor.from_workdir(former)
    predictors["after" if predictors else "prediction"] = Predictor(
        make_forward(model, *to_host(student_of(state))),
        space,
        **without_labels(config.evaluation),
    )
    strips, captions = compare(test, predictors, space)
    picture = panel(strips, legend_of=(space.classes, space.colors), cell_width=320)
    Image.fromarray(picture).save(workdir / "pictures.png")
    starts = json.loads((workdir / "provenance.json").read_text())
    write_report(
        workdir,
        title=f"{_method_name(config)} on {config.benchmark}",
        report=report,
        colors=space.colors,
        config=config.to_dict(),
        history=read_history(workdir),
        strips=strips,
        strip_captions=captions,
        baseline=baseline,
        baseline_name=former or "before",
        commands=list(dict.fromkeys(start["command"] for start in starts)),
        next_commands=following,
        versions={
            "uda_jax commit": starts[-1]["commit"],
            "python": starts[-1]["python"],
            **starts[-1]["versions"],
            "devices": starts[-1]["devices"],
        },
    )
    unlike = report.unlike(baseline) if baseline is not None else ""
    print(report.table(None if unlike else baseline))
    print(f"mIoU {100 * report.miou:.2f}{_over(report, baseline, former)}")
    print(f"report: {workdir / 'report.html'}")
    for command in following:
        print(f"next:   {command}")


def _over(report: Report, baseline: Report | None, former: str) -> str:
    """The gain in words, or why there is none."""
    if baseline is None:
        return ""
    if why := report.unlike(baseline):
        before = f"{former} ({100 * baseline.miou:.2f})"
        return f"; not compared with {before}, which {why}"
    gain = 100 * (report.miou - baseline.miou)
    return f", {gain:+.2f} points over {former} ({100 * baseline.miou:.2f})"


def compare(
    images: Dataset, predictors: Mapping[str, Predictor], space: LabelSpace
) -> tuple[list[dict[str, np.ndarray]], list[str]]:
    """Rows {"image", "label", name of a predictor: its colours}, and their captions."""
    strips, captions = [], []
    for index in np.linspace(0, len(images) - 1, min(_STRIPS, len(images))).astype(int):
        item = images[int(index)]
        row = {"image": item["image"], "label": colorize(item["label"], space.colors)}
        for name, predictor in predictors.items():
            row[name] = predictor(item["image"]).colors
        strips.append(row)
        captions.append(str(item["name"]))
    return strips, captions
