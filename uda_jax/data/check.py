r"""Walks a data set and says what is wrong with it.

    python -m uda_jax.data.check --benchmark minicity
    python -m uda_jax.data.check --config configs/tufl_rio.py:rome \
        --config.target.root=/data/nthu --config.test.root=/data/nthu
    python -m uda_jax.data.check --reader gta5 --root data/gta5 \
        --label_space cityscapes19 --option split=train

Every image and every label is decoded once, in parallel.  The check counts examples,
sizes and classes, collects the files that cannot be used and the ids that the label
table lacks, and looks for examples that two data sets of a benchmark share.  It writes
check.html, check.png and check.json.  The exit code is 0 when all is well, 1 when
something is wrong and 2 for a command that cannot be carried out.
"""

import argparse
import ast
import functools
import itertools
import json
import os
import sys
import time
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from uda_jax import benchmarks, program
from uda_jax.config_files import load_config, parse_beside_config
from uda_jax.data.check_overlap import Overlap, shared_examples
from uda_jax.data.check_page import (
    COLUMNS,
    contact_sheet_png,
    html_page,
    print_summary,
)
from uda_jax.data.check_walk import SetReport, evenly, walk
from uda_jax.data.dataset import MissingLabels
from uda_jax.data.sources import SOURCES
from uda_jax.errors import UserError, did_you_mean
from uda_jax.files import write_atomically
from uda_jax.labels import LabelSpace, get_label_space
from uda_jax.progress import progress

_THUMBNAILS = 24  # of one data set; of several, each has a row of the sheet


class Plan(NamedTuple):
    """What to check: {role: row}, and the classes of the labels.

    Attributes:
      unlabelled: the role whose labels are not read.
      benchmark: that the rows are of; "" for a reader.
    """

    name: str
    label_space: LabelSpace
    rows: dict[str, dict[str, Any]]
    unlabelled: tuple[str, ...]
    benchmark: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Checks what the command line names; gives the exit code."""
    arguments, rest = parse(argv)
    plan = plan_of(arguments, rest)
    folder = Path(arguments.out or Path("runs/check") / plan.name)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder} is a file: give a folder.")
    start = time.monotonic()
    reports, problems = open_all(plan)
    indices = [range(len(r.dataset)) for r in reports]
    if arguments.limit:
        indices = [evenly(part, arguments.limit) for part in indices]
    count, done = sum(map(len, indices)), itertools.count(1)
    with progress("checking") as tell:
        for report, part in zip(reports, indices, strict=True):
            walk(
                report,
                part,
                thumbnails=COLUMNS if len(reports) > 1 else _THUMBNAILS,
                threads=arguments.threads,
                advance=lambda: tell(next(done), count),
            )
    overlaps = shared_examples(reports)
    problems += wrong_counts(reports)
    problems += [str(overlap) for overlap in overlaps if not overlap.harmless]
    count = len(problems) + sum(len(r.problems) for r in reports)
    print_summary(plan.name, reports, overlaps, problems)
    write(folder, plan.name, reports, overlaps, problems)
    seconds = time.monotonic() - start
    verdict = f"{count:,} problems" if count > 1 else "1 problem" if count else "well"
    checked = sum(r.checked for r in reports)
    print(f"{plan.name}: {verdict}; {checked:,} examples in {seconds:.1f} s")
    print(f"see {folder / 'check.html'}")
    return 1 if count else 0


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The command line, and the fields of the config that it sets."""
    parser = argparse.ArgumentParser(
        prog="python -m uda_jax.data.check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # --config.x belongs to the config
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--config", help="the data of a run: configs/x.py or x.py:variant"
    )
    what.add_argument("--benchmark", help="all data of a benchmark")
    what.add_argument("--reader", help=f"one data set: {', '.join(SOURCES)}")
    add = parser.add_argument
    add("--root", help="folder of --reader")
    add("--label_space", help="classes of --reader's labels, such as cityscapes19")
    add("--option", action="append", default=[], metavar="NAME=VALUE",
        help="of --reader, such as split=train or conditions=fog,night")  # fmt: skip
    add("--no_labels", action="store_true", help="look at --reader's images alone")
    add("--out", help="folder for the report (default: runs/check/NAME)")
    add("--threads", type=int, default=os.cpu_count() or 1,
        help="that decode (default: %(default)s)")  # fmt: skip
    add("--limit", type=int, default=0, metavar="N",
        help="decode N examples of each data set, evenly spaced")  # fmt: skip
    add("--debug", action="store_true", help="show tracebacks of mistakes")
    arguments, rest = parse_beside_config(parser, argv)
    if arguments.threads < 1:
        raise UserError(f"--threads={arguments.threads} must be 1 or more.")
    if arguments.limit < 0:
        raise UserError(f"--limit={arguments.limit} must be 1 or more.")
    for name in ("root", "label_space", "option", "no_labels"):
        if getattr(arguments, name) and not arguments.reader:
            raise UserError(f"--{name} is of --reader: leave it out.")
    return arguments, rest


def plan_of(arguments: argparse.Namespace, overrides: list[str]) -> Plan:
    """The rows that the command line names.

    Raises:
      UserError: a config, benchmark, reader or option that cannot be used.
    """
    if arguments.reader:
        return _one(arguments)
    if arguments.benchmark:
        name = arguments.benchmark
        benchmark = benchmarks.get_benchmark(name)
        if not benchmark.label_space:
            raise UserError(
                f'benchmark "{name}" has no data but what a config names: give the '
                "config file, with --config."
            )
        roles = ("source", "validation", "target", "test")
        rows = {role: dict(getattr(benchmark, role)) for role in roles}
        benchmark, space = name, get_label_space(benchmark.label_space)
    else:
        config = load_config(arguments.config, overrides)
        rows = {role: config[role].to_dict() for role in ("source", "target", "test")}
        validation = config.validation.to_dict()
        # Only --on=validation needs it, and not every config says where it is.
        if validation and Path(validation["root"]).exists():
            rows["validation"] = validation
        path, _, variant = arguments.config.partition(":")
        name = "_".join(filter(None, (Path(path).stem, variant)))
        benchmark, space = config.benchmark, benchmarks.label_space_of(config)
    rows = {role: row for role, row in rows.items() if row and row["reader"]}
    return Plan(name, space, rows, ("target",), benchmark)


def _one(arguments: argparse.Namespace) -> Plan:
    reader = arguments.reader
    if reader not in SOURCES:
        raise UserError(
            f'reader "{reader}" is unknown{did_you_mean(reader, SOURCES)}: choose one '
            f"of {', '.join(SOURCES)}."
        )
    for name in ("root", "label_space"):
        if not getattr(arguments, name):
            raise UserError(f"--{name} is missing: --reader needs it.")
    row = {"reader": reader, "root": arguments.root}
    hints = typing.get_type_hints(SOURCES[reader])
    for option in arguments.option:
        name, equals, text = option.partition("=")
        if not name or not equals:
            raise UserError(f'--option "{option}" is no option: write NAME=VALUE.')
        row[name] = _value(text, hints.get(name))
    unlabelled = (reader,) if arguments.no_labels else ()
    space = get_label_space(arguments.label_space)
    parts = (reader, row.get("city"), row.get("split"))
    return Plan("_".join(filter(None, parts)), space, {reader: row}, unlabelled)


def _value(text: str, hint: Any) -> Any:
    """An option's value: text for text, a,b for a tuple, else a Python literal."""
    if hint is str:
        return text
    if (typing.get_origin(hint) or hint) is tuple:
        return tuple(_value(item, None) for item in text.split(",") if item)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def open_all(plan: Plan) -> tuple[list[SetReport], list[str]]:
    """The data sets that can be opened, and why the others cannot.

    A labelled data set is opened with the labels that are there, and without any where
    they cannot be listed.  A minicity that is not there yet is drawn first.

    Raises:
      UserError: none can be opened.
    """
    if plan.benchmark and "test" in plan.rows:
        benchmarks.draw_minicity(plan.benchmark, plan.rows["test"])
    reports, problems, first = [], [], None
    for role, row in plan.rows.items():
        labels = role not in plan.unlabelled
        try:
            report, problem = _open(role, row, plan.label_space, labels)
        except UserError as error:
            first = first or error
            problem = str(error)
        else:
            reports.append(report)
        if problem:
            problems.append(f"{role}: {problem}")
    if not reports:
        raise first or UserError(f"{plan.name} names no data: there is nothing to do.")
    return reports, problems


def _open(
    role: str, row: dict[str, Any], space: LabelSpace, labels: bool
) -> tuple[SetReport, str]:
    """The data set, and why it has no labels where it should have some."""
    open_set = functools.partial(benchmarks.open_dataset, row, space)
    try:
        return SetReport(role, row, open_set(labels=labels)), ""
    except MissingLabels as error:
        refused = error
        if len(error.missing) < len(error.dataset):
            where = map(error.dataset.store.where, error.missing)
            unlabelled = frozenset(error.missing)
            report = SetReport(role, row, error.dataset, unlabelled=unlabelled)
            report.problems = [
                f"image {image} has no label (expected {label}): add it or remove the "
                "image."
                for image, label in where
            ]
            return report, ""
    except UserError as error:
        if not labels:
            raise
        refused = error
    return SetReport(role, row, open_set(labels=False)), str(refused)


def wrong_counts(reports: Sequence[SetReport]) -> list[str]:
    """A sentence for each data set that has not as many examples as were published."""
    return [
        f"{r.role}: {len(r.dataset):,} examples, but {r.expected} are expected "
        f"({r.expected.origin}): complete the download, or look for files that do not "
        "belong to it."
        for r in reports
        if r.expected and len(r.dataset) not in r.expected.counts
    ]


def write(
    folder: Path,
    name: str,
    reports: Sequence[SetReport],
    overlaps: Sequence[Overlap],
    problems: Sequence[str],
) -> None:
    """Writes check.json, check.png and check.html, each whole or not at all.

    Raises:
      UserError: the folder cannot be written.
    """
    facts = {
        "name": name,
        "well": not problems and not any(r.problems for r in reports),
        "problems": list(problems),
        "overlaps": [overlap._asdict() for overlap in overlaps],
        "sets": {report.role: report.to_json() for report in reports},
    }
    try:
        write_atomically(folder / "check.json", json.dumps(facts, indent=1) + "\n")
        write_atomically(folder / "check.png", contact_sheet_png(name, reports))
        page = html_page(name, reports, overlaps, problems)
        write_atomically(folder / "check.html", page.encode("utf-8", "replace"))
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror or error}): make room, or "
            "choose another --out."
        ) from error


def run() -> None:
    """The command, with a sentence for the user's mistakes."""
    program.run(_command)


def _command() -> None:
    sys.stdout.reconfigure(errors="replace")  # a file's name may be no text
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("uda_jax: stopped, nothing was written", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run()
