r"""mIoU against the share of labelled target images: a table and a picture in docs/.

    python scripts/acquisition_curves.py acquisition \
        "random=runs/random_0,runs/random_1" "entropy=runs/entropy_0,runs/entropy_1" \
        --line "all labels=runs/oracle_0,runs/oracle_1"

A curve is NAME=WORKDIR[,WORKDIR...], runs with the same rounds; several are seeds: mean
and standard deviation (n - 1).  A point is the score on the test images just before a
round (`miou_before` of its round.json), the last one that of the finished run: later
points have been trained for longer, too.  With --ends every run gives its last point
alone, so that runs of several budgets make a curve of equally long trainings; as many
runs for each budget are seeds.  --line draws the score of runs without a share.  The
table goes between the markers of that name in docs/results.md, the picture is
docs/<name>.png.  The points are kept in docs/results/<name>.json; a NAME alone takes
its curve, or after --line its line, from there.
"""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from markers import replace_block
from matplotlib.figure import Figure
from records import add_to_record, entry_of

from uda_jax.errors import UserError
from uda_jax.files import write_atomically
from uda_jax.metrics import Report
from uda_jax.round_files import FOLDER

DOCS = Path(__file__).parent.parent / "docs"
_COLORS = ("#2a78d6", "#eb6834", "#1f9d63", "#8a4fd0", "#57606a")


def curve(workdir: Path) -> tuple[list[float], list[float]]:
    """Shares of labelled images, and the mIoU with each, both in percent.

    Raises:
      UserError: no finished run with rounds there.
    """
    report = Report.load(workdir / "report.json")
    paths = sorted(
        workdir.glob(f"{FOLDER}/*/round.json"), key=lambda p: int(p.parts[-2])
    )
    facts = [json.loads(path.read_text()) for path in paths]
    if not facts:
        raise UserError(f"{workdir} has no rounds: give it as --line NAME=RUN.")
    points = [
        (row["labelled_before"], row["miou_before"]) for row in facts if row["step"] > 0
    ]
    picked = (paths[-1].parent / "selected.jsonl").read_text().splitlines()
    points.append((facts[-1]["labelled_before"] + len(picked), report.miou))
    shares, scores = zip(*points, strict=True)
    return [100 * n / facts[0]["images"] for n in shares], [100 * x for x in scores]


def read(
    arguments: list[str], ends: bool = False, record: Path | None = None
) -> dict[str, tuple[list[float], np.ndarray]]:
    """Name -> (shares, scores [run, share]).

    Raises:
      UserError: see `curve`; or runs of one curve whose shares differ, or their number;
        or a NAME alone that is no curve of `record`, or not of the same `ends`.
    """
    curves = {}
    if len(arguments) > len(_COLORS):
        raise UserError(f"{len(arguments)} curves: draw up to {len(_COLORS)} at once.")
    for argument in arguments:
        name, given, folders = argument.partition("=")
        if not given:
            entry = _kept(record, name, "shares")
            if entry["ends"] != ends:
                raise UserError(
                    f'"{name}" was kept {"with" if entry["ends"] else "without"} --ends'
                    ", unlike now: give all curves of one picture in one way."
                )
            curves[name] = entry["shares"], np.array(entry["scores"])
            continue
        found = [curve(Path(folder)) for folder in folders.split(",")]
        if ends:
            by_share = {}
            for shares, scores in found:
                by_share.setdefault(shares[-1], []).append(scores[-1])
            shares = sorted(by_share)
            if len({len(scores) for scores in by_share.values()}) > 1:
                raise UserError(f'the shares of "{name}" have not as many runs each.')
            curves[name] = shares, np.array([by_share[share] for share in shares]).T
            continue
        if any(shares != found[0][0] for shares, _ in found):
            raise UserError(f'the runs of "{name}" have not the same rounds.')
        curves[name] = found[0][0], np.array([scores for _, scores in found])
    return curves


def read_lines(
    arguments: list[str], record: Path | None = None
) -> dict[str, np.ndarray]:
    """Name -> scores of runs without a share.

    Raises:
      UserError: a run without a report, or a NAME alone that is no line of `record`.
    """
    lines = {}
    for argument in arguments:
        name, given, folders = argument.partition("=")
        if given:
            paths = [Path(folder) / "report.json" for folder in folders.split(",")]
            lines[name] = np.array([100 * Report.load(path).miou for path in paths])
        else:
            lines[name] = np.array(_kept(record, name, "line"))
    return lines


def _kept(record: Path | None, name: str, part: str) -> Any:
    """What `keep` wrote of a curve ("shares") or of a line ("line")."""
    kind = "line" if part == "line" else "curve"
    if record is None:
        raise UserError(f'"{name}" names no runs: give them, "{name}=WORKDIR,...".')
    entry = entry_of(record, name, kind)
    if part not in entry:
        raise UserError(
            f'"{name}" is no {kind} in {record}: give it on the other side of --line, '
            f'or its runs, "{name}=WORKDIR,...".'
        )
    return entry if kind == "curve" else entry["line"]


def keep(record: Path, curves: dict, lines: dict, ends: bool) -> None:
    """Adds curves of `read` and lines of `read_lines` to a record."""
    entries = {
        name: {"shares": shares, "scores": scores.tolist(), "ends": ends}
        for name, (shares, scores) in curves.items()
    }
    add_to_record(record, entries | {k: {"line": v.tolist()} for k, v in lines.items()})


def table(curves: dict, lines: dict[str, np.ndarray]) -> str:
    """Markdown: a row per share, a column per curve, percent."""
    shares = sorted({share for s, _ in curves.values() for share in s})
    rows = [f"| labelled | {' | '.join(curves)} |", f"|{'---|' * (1 + len(curves))}"]
    for share in shares:
        cells = [f"{share:g} %"]
        for found, scores in curves.values():
            known = share in found
            cells.append(_score(scores[:, found.index(share)]) if known else "–")
        rows.append(f"| {' | '.join(cells)} |")
    below = "; ".join(f"{name}: {_score(scores)}" for name, scores in lines.items())
    return "\n".join(rows) + (f"\n\n{below[:1].upper()}{below[1:]}." if below else "")


def _score(scores: np.ndarray) -> str:
    text = f"{scores.mean():.1f}"
    return text + (f" ± {scores.std(ddof=1):.1f}" if len(scores) > 1 else "")


def picture(curves: dict, lines: dict[str, np.ndarray]) -> bytes:
    """A PNG file; bands are one standard deviation."""
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for color, (name, (shares, scores)) in zip(_COLORS, curves.items(), strict=False):
        mean = scores.mean(0)
        axes.plot(shares, mean, "o-", color=color, label=name, markersize=4)
        if len(scores) > 1:
            spread = scores.std(0, ddof=1)
            axes.fill_between(
                shares, mean - spread, mean + spread, color=color, alpha=0.15, lw=0
            )
    for name, scores in lines.items():
        axes.axhline(scores.mean(), color="#57606a", ls="--", lw=1, label=name)
    axes.set(xlabel="labelled target images, %", ylabel="mIoU, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def main(arguments: list[str]) -> None:
    ends = "--ends" in arguments
    arguments = [word for word in arguments if word != "--ends"]
    split = arguments.index("--line") if "--line" in arguments else len(arguments)
    name, *rows = arguments[:split] or [""]
    if not rows:
        sys.exit(__doc__)
    record = DOCS / "results" / f"{name}.json"
    try:
        curves = read(rows, ends, record)
        lines = read_lines(arguments[split + 1 :], record)
        if both := curves.keys() & lines.keys():
            raise UserError(f'"{min(both)}" names a curve and a line: rename one.')
        keep(record, curves, lines, ends)
    except UserError as error:
        sys.exit(f"uda_jax: {error}")
    write_atomically(DOCS / f"{name}.png", picture(curves, lines))
    replace_block(DOCS / "results.md", name, table(curves, lines))


if __name__ == "__main__":
    main(sys.argv[1:])
