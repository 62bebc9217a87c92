"""What people look at: the header, the panels, the evaluation and the final report."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from clu import parameter_overview
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict
from PIL import Image

from uda_jax import runs, stages
from uda_jax.benchmarks import evaluated_classes, label_space_of, open_dataset
from uda_jax.data.dataset import Dataset
from uda_jax.errors import UserError
from uda_jax.evaluate import evaluate, make_forward
from uda_jax.files import write_atomically
from uda_jax.labels import LabelSpace
from uda_jax.methods.method import Method
from uda_jax.metrics import Report
from uda_jax.models.model import Model
from uda_jax.parallel import AXIS, is_main, to_host
from uda_jax.predict import Predictor, without_labels
from uda_jax.report import write_report
from uda_jax.visualize import colorize, heat, keep, panel, stack
from uda_jax.writers import read_history

PARAMETERS = "parameters.txt"
_PANEL_IMAGES = 2
_STRIPS = 6


def header(config: ConfigDict, workdir: Path, state, origin: str, data: str) -> str:
    """What the run is, in a few lines."""
    device = jax.devices()[0]
    model, method = dict(config.model), dict(config.method)
    rows = {
        "run": f"{workdir} (benchmark {config.benchmark}, seed {config.seed})",
        "method": _options(method),
        "network": f"{_options(model)}, BatchNorm {config.batch_norm}, "
        f"{config.compute_dtype}",
        "parameters": f"{_sizes(state.params)}; all in {PARAMETERS}",
        "weights": origin,
        "images": f"{data}; batch {config.batch_size}",
        "geometry": _options(dict(config.data.source)),
        "optimizer": f"{_options(dict(config.optimizer))}; "
        f"{_options(dict(config.schedule))}; {config.steps} steps",
        "devices": f"{jax.device_count()} x {device.device_kind} in "
        f"{jax.process_count()} process(es)",
    }
    if config.discriminator:
        kinds = (config.discriminator.optimizer, config.discriminator.schedule)
        of_it = "; ".join(_options(dict(kind)) for kind in kinds)
        rows["optimizer"] += f"; discriminator: {of_it}"
    return "\n".join(f"{name:12s}{text}" for name, text in rows.items())


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


def _options(row: dict) -> str:
    name = row.pop("name")
    rest = ", ".join(f"{k}={v}" for k, v in row.items())
    return f"{name} ({rest})" if rest else name


def make_panels(method: Method, label_space: LabelSpace, mesh: Mesh) -> Callable:
    """A function that draws what the method sees in a batch, and its writer."""

    def first(state, batch, key):
        images = method.loss(state.params, state, batch, key)[1].images
        return jax.tree.map(lambda x: x[:_PANEL_IMAGES], images)

    # On every device, because a process can only read what is on its own.
    images = jax.jit(first, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def look(state, batch, path: Path, writer, step: int) -> None:
        key = jax.random.fold_in(state.key, state.step - 1)
        seen = jax.device_get(images(state, batch, key))
        if not is_main() or not seen:
            return
        picture = panel_picture(seen, label_space, f"step {step}")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
        writer.write_images(step, {"panel": picture[None]})

    return look


def panel_picture(images: dict, label_space: LabelSpace, title: str) -> np.ndarray:
    """One captioned picture of `Output.images`; the form follows from the dtype.

    What is named 'mixed...' has lines of its own below the others.

    Args:
      images: name -> [B, H, W, 3] float in [0, 1] (a photograph), [B, H, W] integer
        (train ids), [B, H, W] float from 0 on (a heat map from 0 to 1, or to the
        largest value shown if that is above 1; its caption says which) or [B, H, W]
        bool (a mask, shown over 'target', or over 'mixed' if it is a mixed one).
      label_space: names and colours of the classes.
      title: a line above everything.

    Returns:
      [H, W, 3] uint8.
    """
    count = min(_PANEL_IMAGES, min(len(v) for v in images.values()))

    def column(name: str) -> tuple[str, list[np.ndarray]]:
        """Its caption and its pictures."""
        values, caption = np.asarray(images[name][:count]), name.replace("_", " ")
        if values.dtype == bool:
            photos = images["mixed" if _is_mixed(name) else "target"]
            return caption, [
                keep(_bytes(photo), mask)
                for photo, mask in zip(photos, values, strict=False)
            ]
        if values.ndim == 4:
            return caption, list(_bytes(values))
        if np.issubdtype(values.dtype, np.integer):
            return caption, list(colorize(values, label_space.colors))
        # One scale for all rows, whose end is the number in the caption.
        top = np.ceil(10 * np.nanmax(values, initial=1)) / 10
        return f"{caption} (0 to {top:g})", list(heat(values / top))

    def lines(names: list[str], **options) -> np.ndarray:
        columns = dict(map(column, names))
        rows = [{k: v[row] for k, v in columns.items()} for row in range(count)]
        return panel(rows, cell_width=256, **options)

    # jit returns dictionaries in alphabetical order; people read from source to target.
    order = sorted(images, key=lambda n: (n[:6] != "source", n[:6] != "target", n))
    own = [name for name in order if not _is_mixed(name)]
    mixed = [name for name in order if _is_mixed(name)]
    legend_of = (label_space.classes, label_space.colors)
    if not mixed:
        return lines(own, title=title, legend_of=legend_of)
    return stack([lines(own, title=title), lines(mixed, legend_of=legend_of)])


def _is_mixed(name: str) -> bool:
    return name.startswith("mixed")


def _bytes(photo: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(photo, 0, 1) * 255).astype(np.uint8)


def assess(config, model: Model, state, test: Dataset, mesh: Mesh, step: int) -> Report:
    """Evaluates the state as `config.evaluation` says, on the benchmark's classes."""
    evaluation = config.evaluation
    sharding = None
    if evaluation.mode == "whole" and evaluation.batch_size % mesh.size == 0:
        sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    forward = make_forward(model, state.params["segmentor"], state.batch_stats)
    return score(
        config, forward, test, sharding=sharding, step=step, checkpoint="latest"
    )


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
    # One process works here alone, so it needs arrays of its own.
    params, batch_stats = to_host((state.params["segmentor"], state.batch_stats))
    predictors = {}
    if baseline is not None:
        predictors["before"] = Predictor.from_workdir(former)
    predictors["after" if predictors else "prediction"] = Predictor(
        make_forward(model, params, batch_stats),
        space,
        **without_labels(config.evaluation),
    )
    strips, captions = compare(test, predictors, space)
    picture = panel(strips, legend_of=(space.classes, space.colors), cell_width=320)
    Image.fromarray(picture).save(workdir / "pictures.png")
    starts = json.loads((workdir / "provenance.json").read_text())
    write_report(
        workdir,
        title=f"{config.method.name} on {config.benchmark}",
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
    run = runs.load_run(workdir, checkpoint)
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
