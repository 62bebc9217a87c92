r"""Writes a table of finished runs into docs/results.md, between its markers.

    python scripts/results.py minicity \
        "source-only=runs/so_0,runs/so_1,runs/so_2" "TUFL=runs/tufl_0,runs/tufl_1"

A row is NAME=WORKDIR[,WORKDIR...]; several workdirs are seeds: mean and standard
deviation (n - 1) over them.  Rows of single runs get a bootstrap interval over the test
images, and the paired interval of their difference from the first row.
"""

import sys
from pathlib import Path

import numpy as np
from markers import replace_block

from uda_jax.metrics import Report
from uda_jax.scores import bootstrap_difference

DOCUMENT = Path(__file__).parent.parent / "docs" / "results.md"


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
            gain += f" ({', '.join(f'{g:+.1f}' for g in gains)})"
        elif reports[0].interval:
            low, high = (100 * v for v in reports[0].interval)
            cell += f" ({low:.1f} to {high:.1f})"
            if reports is not first:
                low, high = bootstrap_difference(
                    first[0].confusions, reports[0].confusions, first[0].classes
                )
                gain += f" ({100 * low:+.1f} to {100 * high:+.1f})"
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
    reports = {}
    for row in rows:
        name, workdirs = row.split("=", 1)
        reports[name] = [Report.load(f"{w}/report.json") for w in workdirs.split(",")]
    replace_block(DOCUMENT, marker, table(reports))


if __name__ == "__main__":
    main(sys.argv[1:])
