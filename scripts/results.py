r"""Writes a table of finished runs into docs/results.md, between its markers.

    python scripts/results.py methods \
        "source-only=runs/so_0,runs/so_1,runs/so_2" "TUFL=runs/tufl_0,runs/tufl_1"

A row is NAME=WORKDIR[,WORKDIR...]; several workdirs are seeds: mean and standard
deviation (n - 1) over them.  Their gain is over the first row, seed by seed, with the
standard error of its mean (s.e.: standard deviation / root of n).  Rows of single runs
get a bootstrap interval over the test images, and the paired interval of their gain.
Runs that were not scored alike, or whose seeds do not pair, are refused.

What a row was made of is kept in docs/results/<block>.json, without the counts of each
image; a NAME alone takes a row of several seeds from there.

With --rarest-third two more columns show the mean IoU
of the rarest third of the classes and its gain; a line below says which they are.
With --report=FILE it is of that file in each workdir instead of report.json, such as
evaluate_latest.json of --mode=evaluate; each seed may then have images of its own,
the same for all rows.
"""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from markers import replace_block
from records import add_to_record, entry_of

from uda_jax.errors import UserError
from uda_jax.metrics import Report

DOCUMENT = Path(__file__).parent.parent / "docs" / "results.md"


def read_rows(
    arguments: list[str], report: str = "report.json", record: Path | None = None
) -> dict[str, list[Report]]:
    """The reports of NAME=WORKDIR[,WORKDIR...], by name.

    Args:
      arguments: the rows; a NAME alone is one of `record`.
      report: which file of a workdir; of report.json all are of the same images, of
        another those of one seed.
      record: what `keep` wrote.

    Returns:
      Name -> reports; the provenance of each has its seed and a digest of its images.

    Raises:
      UserError: a name twice, a report that is missing or was made otherwise than the
        first, more runs than the first row has, other seeds in another order, or a NAME
        alone that was not kept or is of a single run.
    """
    rows: dict[str, list[Report]] = {}
    origins: dict[str, list[str]] = {}
    for argument in arguments:
        name, given, folders = argument.partition("=")
        if name in rows:
            raise UserError(f'"{name}" names two rows: give each its own name.')
        if given:
            origins[name] = folders.split(",")
            rows[name] = [_load(Path(folder), report) for folder in origins[name]]
        else:
            rows[name] = _kept(record, name)
            origins[name] = [f'"{name}" of {record}'] * len(rows[name])
        first, before = next(iter(rows.values())), next(iter(origins.values()))
        if len(rows[name]) > len(first):
            raise UserError(
                f'"{name}" has {len(rows[name])} runs and the first row {len(first)}: '
                "a gain needs a run of the first row for each."
            )
        for i, (origin, run) in enumerate(zip(origins[name], rows[name], strict=True)):
            k = 0 if report == "report.json" else i
            if difference := first[k].unlike(run) or _other_images(first[k], run):
                raise UserError(
                    f"{origin} {difference}, unlike {before[k]}: evaluate both in "
                    "one way, or make two tables."
                )
            seeds = run.provenance["seed"], first[i].provenance["seed"]
            if None not in seeds and seeds[0] != seeds[1]:
                raise UserError(
                    f"{origin} (seed {seeds[0]}) stands where the first row has "
                    f"{before[i]} (seed {seeds[1]}): give each row's seeds in one "
                    "order."
                )
    return rows


def _load(workdir: Path, report: str) -> Report:
    """A run's report; its provenance: seed (None for an ensemble), protocol, images."""
    found, config = Report.load(workdir / report), workdir / "config.json"
    provenance = {
        "seed": json.loads(config.read_text())["seed"] if config.exists() else None,
        "protocol": found.protocol,
        "images": _digest(found.image_names),
    }
    return dataclasses.replace(found, provenance=provenance)


def _digest(names: tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:12] if names else ""


def _other_images(report: Report, other: Report) -> str:
    # A kept row has no names of images.
    digests = {r.provenance["images"] for r in (report, other)} - {""}
    return "is of other images" if len(digests) > 1 else ""


def _kept(record: Path | None, name: str) -> list[Report]:
    if record is None:
        raise UserError(f'"{name}" names no runs: give them, "{name}=WORKDIR,...".')
    runs = [Report.from_json(run) for run in entry_of(record, name, "row")]
    if len(runs) == 1:
        raise UserError(
            f'"{name}" is of a single run, whose interval needs the counts of each '
            f'image: give the run, "{name}=WORKDIR".'
        )
    return runs


def keep(record: Path, rows: Mapping[str, list[Report]]) -> None:
    """Adds rows of `read_rows` to a record: seeds, protocol, images and counts."""
    add_to_record(
        record, {name: [run.counts() for run in runs] for name, runs in rows.items()}
    )


def table(rows: dict[str, list[Report]], *, rarest_third: bool = False) -> str:
    """Markdown: a row per name, the classes as columns, percent.

    Args:
      rows: name -> reports, as `read_rows` gives them.
      rarest_third: adds the mean over the classes of `rarest` and its gain.

    Raises:
      UserError: see `rarest`.
    """
    first = next(iter(rows.values()))
    names = [first[0].class_names[c] for c in first[0].classes]
    heads, means, below = ["mIoU", "gain"], [rows], ""
    if rarest_third:
        rare, below = rarest([r for reports in rows.values() for r in reports])
        heads += ["rarest third", "its gain"]
        means.append(
            {
                name: [dataclasses.replace(r, classes=rare) for r in reports]
                for name, reports in rows.items()
            }
        )
    lines = [
        f"| run | {' | '.join(heads + names)} |",
        f"|{'---|' * (1 + len(heads) + len(names))}",
    ]
    for name, reports in rows.items():
        cells = [name]
        for mean in means:
            score, gain = _score_and_gain(mean[name], next(iter(mean.values())))
            cells += [score, "" if reports is first else gain]
        iou = 100 * np.nanmean([r.iou[list(r.classes)] for r in reports], axis=0)
        cells += ["–" if np.isnan(v) else f"{v:.0f}" for v in iou]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + below


def rarest(reports: list[Report]) -> tuple[tuple[int, ...], str]:
    """The rarest third of the evaluated classes, and a paragraph that names them.

    Of C evaluated classes the floor(C / 3) with the fewest pixels in the labels, of
    those that have any; rows of a report's confusion matrix are labels.

    Raises:
      UserError: fewer than three classes, or reports that counted other labels.
    """
    classes = np.array(reports[0].classes)
    counts = [report.confusion.sum(1)[classes] for report in reports]
    if len(classes) < 3:
        raise UserError(
            f"{len(classes)} classes have no rarest third: leave --rarest-third out."
        )
    if not all(np.array_equal(count, counts[0]) for count in counts):
        raise UserError(
            "The runs were scored on different labels, so their rarest classes may "
            "differ: evaluate all in one way, or leave --rarest-third out."
        )
    order = np.argsort(counts[0], kind="stable")
    order = order[counts[0][order] > 0][: len(classes) // 3]
    shares = counts[0] / counts[0].sum()
    listed = ", ".join(
        f"{reports[0].class_names[classes[i]]} ({100 * shares[i]:.2g} %)" for i in order
    )
    text = (
        f"Rarest third: the {len(order)} of {len(classes)} classes with the fewest "
        f"pixels in the test labels: {listed}."
    )
    return tuple(classes[order].tolist()), f"\n\n{text}"


def _score_and_gain(reports: list[Report], first: list[Report]) -> tuple[str, str]:
    """The mean IoU over `classes` in percent and its gain over the first row's."""
    scores = 100 * np.array([report.miou for report in reports])
    gains = scores - [100 * report.miou for report in first[: len(scores)]]
    score, gain = f"{scores.mean():.1f}", f"{gains.mean():+.1f}"
    if len(scores) > 1:
        score += f" ± {scores.std(ddof=1):.1f}"
        error = gains.std(ddof=1) / np.sqrt(len(gains))
        gain += f", s.e. {error:.1f} ({', '.join(f'{g:+.1f}' for g in gains)})"
    elif reports[0].interval:
        low, high = (100 * v for v in reports[0].interval)
        score += f" ({low:.1f} to {high:.1f})"
        if interval := reports[0].gain_interval(first[0]):
            low, high = (100 * v for v in interval)
            gain += f" ({low:+.1f} to {high:+.1f})"
    return score, gain


def main(arguments: list[str]) -> None:
    options = [x for x in arguments if x.startswith("--")]
    marker, *rows = [x for x in arguments if not x.startswith("--")] or [""]
    reports = [x.split("=", 1)[1] for x in options if x.startswith("--report=")]
    known = len(reports) + options.count("--rarest-third")
    if not rows or known < len(options):
        sys.exit(__doc__)
    record = DOCUMENT.with_suffix("") / f"{marker}.json"
    try:
        found = read_rows(rows, *reports[:1] or ["report.json"], record)
        text = table(found, rarest_third="--rarest-third" in options)
        keep(record, found)
    except UserError as error:
        sys.exit(f"uda_jax: {error}")
    replace_block(DOCUMENT, marker, text)


if __name__ == "__main__":
    main(sys.argv[1:])
