r"""Ensembles: the weighted sum of the logits of finished runs, scored beside each.

    python -m uda_jax.ensemble --runs runs/advent,runs/minent --weights 0.5,0.5 \
        --output ensembles/advent_minent

or, for photographs, in Python:

    predictor = Predictor.from_workdirs(["runs/advent", "runs/minent"], [0.5, 0.5])

The networks may differ; what is scored, and how, may not.  ADVENT (Vu et al., CVPR
2019, section 4) reports half of AdvEnt's logits plus half of MinEnt's.
"""

import argparse
import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from uda_jax import runs, trained
from uda_jax.benchmarks import evaluated_classes
from uda_jax.errors import UserError
from uda_jax.evaluate import make_forward
from uda_jax.evaluate_run import images_of, score
from uda_jax.metrics import Report
from uda_jax.predict import Predictor, without_labels
from uda_jax.program import CHECKPOINTS
from uda_jax.report import write_report
from uda_jax.summary import compare


class Member(NamedTuple):
    """One run of an ensemble.

    Attributes:
      workdir: its folder.
      run: its config, network and weights.
      weight: factor on its logits.
      forward: image -> logits, of `make_forward`.
    """

    workdir: Path
    run: trained.Run
    weight: float
    forward: jax.tree_util.Partial


def load_members(
    workdirs: Sequence[str | os.PathLike],
    weights: Sequence[float] = (),
    checkpoint: str = "latest",
    *,
    on: str = "",
) -> tuple[Member, ...]:
    """Loads the runs of an ensemble.

    Args:
      workdirs: folders of two or more runs.
      weights: one for each, which sum to 1; equal ones by default.
      checkpoint: "latest", "best" or "teacher", of each run.
      on: "test" or "validation", if the ensemble is to be scored there.

    Raises:
      UserError: too few runs or one twice, weights that do not fit, no such run or
        checkpoint, or runs that differ in label space, evaluation or, with `on`, in
        those images or the classes that are scored.
    """
    folders = [Path(workdir) for workdir in workdirs]
    if len(folders) < 2:
        raise UserError(
            f"an ensemble needs two runs or more; --runs names {len(folders)}: give "
            "their workdirs, with commas or spaces between them."
        )
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError(
            f"--runs {_joined(folders)} names a run twice: give each once, and the one "
            "that shall count more a larger weight."
        )
    weights = tuple(weights) or (1 / len(folders),) * len(folders)
    if len(weights) != len(folders) or not all(
        math.isfinite(weight) and weight > 0 for weight in weights
    ):
        raise UserError(
            f"--weights {_joined(weights)} does not fit {len(folders)} runs: give one "
            "positive number for each."
        )
    if abs(sum(weights) - 1) > 0.01:
        raise UserError(
            f"--weights {_joined(weights)} sum to {sum(weights):g}: give shares of 1, "
            "such as 0.5,0.5."
        )
    facts = [_what_must_agree(runs.read_config(folder), on) for folder in folders]
    for folder, other in zip(folders[1:], facts[1:], strict=True):
        if differing := runs.differences(facts[0], other):
            raise UserError(
                f"{folders[0]} and {folder} cannot be an ensemble, they differ in "
                f"{'; '.join(differing[:4])}: choose runs that agree there."
            )
    for folder in folders:  # networks take a while to load
        trained.check_checkpoint(folder, checkpoint)
    members = []
    for folder, weight in zip(folders, weights, strict=True):
        run = trained.load_run(folder, checkpoint)
        forward = make_forward(run.model, run.params, run.batch_stats)
        members.append(Member(folder, run, weight, forward))
    return tuple(members)


def _what_must_agree(config: ConfigDict, on: str) -> dict[str, Any]:
    values = json.loads(config.to_json())
    names = ("label_space", "classes", "evaluation", *([on] if on else []))
    facts = {name: values[name] for name in names}
    return facts | ({"scored classes": evaluated_classes(config)} if on else {})


def sum_of_logits(members: Sequence[Member]) -> jax.tree_util.Partial:
    """The ensemble as one function: image -> sum of weight * logits.

    Args:
      members: of `load_members`.

    Returns:
      As from `make_forward`: [B, H, W, 3] -> [B, H, W, C], or [B, *size, C] if told.
    """
    weights, forwards = zip(*((m.weight, m.forward) for m in members), strict=True)
    return jax.tree_util.Partial(_sum_of_logits, weights, forwards)


def _sum_of_logits(weights, forwards, image, **size):
    pairs = zip(weights, forwards, strict=True)
    return sum(weight * forward(image, **size) for weight, forward in pairs)


def evaluate_ensemble(
    workdirs: Sequence[str | os.PathLike],
    weights: Sequence[float],
    output: str | os.PathLike,
    *,
    checkpoint: str = "latest",
    on: str = "test",
) -> Report:
    """Scores an ensemble, and each member alone, on the images that the runs name.

    Writes output/report.json, whose provenance holds the members with their scores and
    the paired interval of the gain over each, and output/report.html.

    Args:
      workdirs, weights, checkpoint: see `load_members`.
      output: folder, new or empty.
      on: "test" or "validation".

    Returns:
      The ensemble's evaluation.

    Raises:
      UserError: what `load_members` raises, or an output that holds something.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"--output {output} holds something: give a new folder.")
    members = load_members(workdirs, weights, checkpoint, on=on)
    config, space = members[0].run.config, members[0].run.label_space
    images = images_of(config, on)
    alone = {}
    for member in members:
        facts = {"on": on, "step": member.run.step, "checkpoint": checkpoint}
        report = score(member.run.config, member.forward, images, **facts)
        alone[str(member.workdir)] = report
        print(f"mIoU {100 * report.miou:.2f} of {member.workdir} alone", flush=True)
    together = sum_of_logits(members)
    report = score(
        config,
        together,
        images,
        on=on,
        network=" + ".join(f"{m.weight:g} {m.run.config.model.name}" for m in members),
        method="ensemble",
        checkpoint=checkpoint,
    )
    beside = [_beside(report, member, alone[str(member.workdir)]) for member in members]
    report = dataclasses.replace(
        report, provenance={**report.provenance, "members": beside}
    )
    options = without_labels(config.evaluation)
    forwards = {str(m.workdir): m.forward for m in members} | {"ensemble": together}
    looks = {name: Predictor(f, space, **options) for name, f in forwards.items()}
    strips, captions = compare(images, looks, space)
    made = runs.provenance()
    write_report(
        output,
        title=f"ensemble on {config.benchmark}",
        report=report,
        colors=space.colors,
        config={},
        strips=strips,
        strip_captions=captions,
        others=alone,
        commands=[made["command"]],
        versions={"uda_jax commit": made["commit"], **made["versions"]},
    )
    report.save(output / "report.json")
    _tell(report, output)
    return report


def _beside(report: Report, member: Member, alone: Report) -> dict[str, Any]:
    """A row of the report's provenance, JSON values."""
    return {
        "run": str(member.workdir),
        "weight": member.weight,
        "network": member.run.config.model.name,
        "method": member.run.config.method.name,
        "step": member.run.step,
        "miou": alone.miou,
        "gain": report.miou - alone.miou,
        "gain_interval_95": report.gain_interval(alone),
    }


def _tell(report: Report, output: Path) -> None:
    print(report.table())
    print(f"mIoU {100 * report.miou:.2f}")
    for row in report.provenance["members"]:
        print(f"  {_gain(row)} points over {row['run']} ({100 * row['miou']:.2f})")
    print(f"report: {output / 'report.html'}")


def _gain(row: Mapping[str, Any]) -> str:
    gain = f"{100 * row['gain']:+.2f}"
    if row["gain_interval_95"] is None:
        return gain
    low, high = (100 * bound for bound in row["gain_interval_95"])
    return f"{gain} (95 %: {low:+.2f} to {high:+.2f})"


def _joined(values: Sequence[Any]) -> str:
    return ",".join(map(str, values))


def _parts(words: Sequence[str]) -> list[str]:
    """What commas or spaces separate; both are written, so both are taken."""
    return [part for word in words for part in word.split(",") if part]


def _numbers(words: Sequence[str]) -> tuple[float, ...]:
    text = ",".join(words)
    try:
        return tuple(map(float, _parts(words)))
    except ValueError:
        raise UserError(
            f'--weights "{text}" are no numbers: write them as 0.5,0.5.'
        ) from None


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m uda_jax.ensemble",
        description="Adds up the weighted logits of finished runs and scores the sum, "
        "and each run alone, on the images that they were tested on.",
    )
    parser.add_argument(
        "--runs", required=True, nargs="+", help="workdirs, commas between them"
    )
    parser.add_argument(
        "--weights", nargs="+", default=(), help="0.5,0.5 for example (default: equal)"
    )
    parser.add_argument("--output", required=True, help="folder for the report")
    parser.add_argument(
        "--checkpoint", choices=CHECKPOINTS, default="latest", help="of each run"
    )
    parser.add_argument(
        "--on", choices=("test", "validation"), default="test", help="which images"
    )
    parser.add_argument(
        "--debug", action="store_true", help="show tracebacks of mistakes"
    )
    arguments = parser.parse_args(argv)
    evaluate_ensemble(
        _parts(arguments.runs),
        _numbers(arguments.weights),
        arguments.output,
        checkpoint=arguments.checkpoint,
        on=arguments.on,
    )


def run() -> None:
    """The command `uda-jax-ensemble`."""
    from uda_jax import program

    program.run(main)


if __name__ == "__main__":
    run()
