r"""Writes a table of finished runs into docs/results.md, between its markers.

    python scripts/results.py methods \
        "source-only=runs/so_0,runs/so_1,runs/so_2" "TUFL=runs/tufl_0,runs/tufl_1"

A row is NAME=WORKDIR[,WORKDIR...]; several workdirs are seeds: mean and standard
deviation (n - 1) over them.  Their gain is over the first row, seed by seed, with the
standard error of its mean (s.e.: standard deviation / root of n).  Rows of single runs
get a bootstrap interval over the test images, and the paired interval of their gain.
Runs that were not scored alike, or whose seeds do not pair, are refused.
"""

import json
import sys
from pathlib import Path

import numpy as np
from markers import replace_block

from uda_jax.errors import UserError
from uda_jax.metrics import Report

DOCUMENT = Path(__file__).parent.parent / "docs" / "results.md"


def read_rows(arguments: list[str]) -> dict[str, list[Report]]:
    """The reports of NAME=WORKDIR[,WORKDIR...], by name.

    Raises:
      UserError: a name twice, a report that is missing or was made otherwise than the
        first, more runs than the first row has, or other seeds in another order.
    """
    rows: dict[str, list[Report]] = {}
    baseline: list[Path] = []
    for argument in arguments:
        name, folders = argument.split("=", 1)
        if name in rows:
            raise UserError(f'"{name}" names two rows: give each its own name.')
        workdirs = [Path(folder) for folder in folders.split(",")]
        baseline = baseline or workdirs
        rows[name] = [Report.load(workdir / "report.json") for workdir in workdirs]
        if len(workdirs) > len(baseline):
            raise UserError(
                f'"{name}" has {len(workdirs)} runs and the first row {len(baseline)}: '
                "a gain needs a run of the first row for each."
            )
        first = next(iter(rows.values()))[0]
        for workdir, other, report in zip(workdirs, baseline, rows[name], strict=False):
            if difference := first.unlike(report):
                raise UserError(
                    f"{workdir} {difference}, unlike {baseline[0]}: evaluate both in "
                    "one way, or make two tables."
                )
            seeds = _seed(workdir), _seed(other)
            if None not in seeds and seeds[0] != seeds[1]:
                raise UserError(
                    f"{workdir} (seed {seeds[0]}) stands where the first row has "
                    f"{other} (seed {seeds[1]}): give each row's seeds in one order."
                )
    return rows


def _seed(workdir: Path) -> int | None:
    """That of a run; None for an ensemble, which has no config."""
    path = workdir / "config.json"
    return json.loads(path.read_text())["seed"] if path.exists() else None


def table(rows: dict[str, list[Report]]) -> str:
    """Markdown: a row per name, the classes as columns, percent."""
    first = next(iter(rows.values()))
    names = [first[0].class_names[c] for c in first[0].classes]
    lines = [
        f"| run | mIoU | gain | {' | '.join(names)} |",
        f"|---|---|---|{'---|' * len(names)}",
    ]
    for name, reports in rows.items():
        scores = 100 * np.array([report.miou for report in reports])
        cell = f"{scores.mean():.1f}"
        gains = scores - [100 * report.miou for report in first[: len(scores)]]
        gain = f"{gains.mean():+.1f}"
        if len(scores) > 1:
            cell += f" ± {scores.std(ddof=1):.1f}"
            error = gains.std(ddof=1) / np.sqrt(len(gains))
            gain += f", s.e. {error:.1f} ({', '.join(f'{g:+.1f}' for g in gains)})"
        elif reports[0].interval:
            low, high = (100 * v for v in reports[0].interval)
            cell += f" ({low:.1f} to {high:.1f})"
            if interval := reports[0].gain_interval(first[0]):
                low, high = (100 * v for v in interval)
                gain += f" ({low:+.1f} to {high:+.1f})"
        if reports is first:
            gain = ""
        iou = 100 * np.nanmean([r.iou[list(r.classes)] for r in reports], axis=0)
        per_class = " | ".join("–" if np.isnan(v) else f"{v:.0f}" for v in iou)
        lines.append(f"| {name} | {cell} | {gain} | {per_class} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    if len(arguments) < 2 or not all("=" in row for row in arguments[1:]):
        sys.exit(__doc__)
    marker, *rows = arguments
    try:
        replace_block(DOCUMENT, marker, table(read_rows(rows)))
    except UserError as error:
        sys.exit(f"uda_jax: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
