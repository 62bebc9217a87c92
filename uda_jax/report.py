"""The report of a run: one HTML file that opens anywhere, without a network."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uda_jax.curves import line_chart, series
from uda_jax.files import write_atomically
from uda_jax.metrics import Report
from uda_jax.report_style import data_uri, page, percent, swatch, text

_MISTAKES = 6
# Keys of metrics.jsonl to draw, in this order; others (times, speeds) are not curves.
_GROUPS = ("eval/", "loss/", "pseudo/", "data/", "optimizer/", "schedule/")


def write_report(
    workdir: str | os.PathLike,
    *,
    title: str,
    report: Report,
    colors: np.ndarray,
    config: Mapping[str, Any],
    history: Sequence[Mapping[str, float]] = (),
    strips: Sequence[Mapping[str, np.ndarray]] = (),
    strip_captions: Sequence[str] = (),
    baseline: Report | None = None,
    baseline_name: str = "before",
    others: Mapping[str, Report] | None = None,
    commands: Sequence[str] = (),
    next_commands: Sequence[str] = (),
    versions: Mapping[str, str] | None = None,
) -> Path:
    """Writes workdir/report.html: scores, pictures, curves, settings, commands.

    Args:
      workdir: folder of the run.
      title: heading, the run's name for example.
      report: the final evaluation.
      colors: [C, 3] uint8, the classes' colours.
      config: the run's settings, nested dicts of JSON values.
      history: rows {"step": ..., "loss/total": ..., "eval/miou": ...}, fractions where
        the key says IoU or accuracy; keys with one of the groups in `_GROUPS` become
        curves.
      strips: rows of pictures {column name: uint8 [H, W, 3]}, for example image, label,
        before and after.
      strip_captions: a caption per strip.
      baseline: an evaluation to compare with: of the start, or of another run.  Where
        `report.unlike` it, no gain is shown but the reason.
      baseline_name: what it is called in the tables.
      others: further evaluations on the same images, by name: their mIoU and the gain
        over each, with its interval.
      commands: shell commands that reproduce the run.
      next_commands: those of the stages that follow.
      versions: what it ran with, name -> version.

    Returns:
      The path of the file, written atomically.
    """
    headline = _headline(report, baseline, baseline_name)
    if baseline is not None and report.unlike(baseline):
        baseline = None  # the headline says why; numbers beside it would be compared
    captions = list(strip_captions) or [""] * len(strips)
    sections = [
        ("", headline),
        ("Beside it", _beside(report, others or {})),
        ("Pictures", _pictures(strips, captions, report, colors)),
        ("IoU per class", _classes(report, colors, baseline, baseline_name)),
        ("Largest mistakes", _mistakes(report, colors)),
        ("Curves", _curves(history, baseline)),
        ("What comes next", _shell(next_commands)),
        ("How it was made", _making(report, config, commands, versions or {})),
    ]
    return write_atomically(Path(workdir) / "report.html", page(title, sections))


def _gain(value: float) -> str:
    if np.isnan(value):
        return "–"
    tone = "up" if value >= 0.0005 else "down" if value <= -0.0005 else "same"
    return f"<span class={tone}>{percent(value, '+')}</span>"


def _headline(report, baseline, baseline_name):
    tiles = [("mIoU", percent(report.miou), "")]
    if report.interval:
        low, high = (percent(v) for v in report.interval)
        tiles[0] = ("mIoU", tiles[0][1], f"{low} to {high} (95 %, over images)")
    tiles += [(f"mIoU, {k}", percent(v), "") for k, v in report.miou_also.items()]
    if baseline is not None:
        note = f"points over {text(baseline_name)} ({percent(baseline.miou)})"
        gain = report.miou - baseline.miou
        if interval := report.gain_interval(baseline):
            low, high = (percent(v, "+") for v in interval)
            note += f", {low} to {high} (95 %, over images)"
        elif why := report.unlike(baseline):
            gain, before = np.nan, f"{text(baseline_name)} ({percent(baseline.miou)})"
            note = f"not compared with {before}, which {text(why)}"
        tiles.append(("gain", _gain(gain), note))
    tiles.append(("pixel accuracy", percent(report.pixel_accuracy), ""))
    tiles.append(("mean accuracy", percent(report.mean_accuracy), ""))
    where = report.provenance.get("benchmark", "")
    tiles.append(("test images", f"{report.num_images:,}", text(where)))
    cells = "".join(
        f"<div class=tile><span>{name}</span><strong>{value}</strong>"
        f"<small>{note}</small></div>"
        for name, value, note in tiles
    )
    facts = ("network", "method", "step", "checkpoint", "protocol")
    line = " · ".join(
        f"{key} {text(report.provenance[key])}"
        for key in facts
        if report.provenance.get(key) is not None
    )
    return f"<p class=facts>{line}</p><div class=tiles>{cells}</div>"


def _beside(report, others):
    rows = []
    for name, other in others.items():
        low, high = report.gain_interval(other) or (np.nan, np.nan)
        rows.append(
            f"<tr><td>{text(name)}<td>{percent(other.miou)}"
            f"<td>{_gain(report.miou - other.miou)}"
            f"<td>{percent(low, '+')} to {percent(high, '+')}"
        )
    head = "<th>alone<th>mIoU in %<th>gain<th>95 % interval, over images"
    body = f"<tbody>{''.join(rows)}</tbody>"
    return f"<table><thead><tr>{head}</thead>{body}</table>" if rows else ""


def _pictures(strips, captions, report, colors):
    if not strips:
        return ""
    parts = []
    for index, (strip, caption) in enumerate(zip(strips, captions, strict=True)):
        # Rows of the same columns need their names only once.
        named = index == 0 or list(strip) != list(strips[index - 1])
        figures = "".join(
            f"<figure>{f'<figcaption>{text(name)}</figcaption>' if named else ''}"
            f"<img src='{data_uri(picture)}' alt='{text(name)}'></figure>"
            for name, picture in strip.items()
        )
        note = f"<p class=caption>{text(caption)}</p>" if caption else ""
        parts.append(f"<div class=strip>{figures}</div>{note}")
    legend = "".join(
        f"<span>{swatch(colors[c])}{text(report.class_names[c])}</span>"
        for c in range(len(report.class_names))
    )
    return "".join(parts) + f"<p class=legend>{legend}</p>"


def _classes(report, colors, baseline, baseline_name):
    share = report.confusion.sum(1) / max(report.confusion.sum(), 1)
    before = baseline.iou if baseline is not None else np.full(len(share), np.nan)
    iou = report.iou
    compared = baseline is not None
    head = "<th>class<th class=bars>IoU in %<th>"
    head += f"<th>{text(baseline_name)}<th>gain" if compared else ""
    rows = []
    for c in report.classes:
        width = 0 if np.isnan(iou[c]) else 100 * iou[c]
        mark = (
            f"<b style='left:{100 * before[c]:.1f}%'></b>"
            if compared and not np.isnan(before[c])
            else ""
        )
        cells = (
            f"<td>{swatch(colors[c])}{text(report.class_names[c])}"
            f"<td class=bars><div class=bar><u style='width:{width:.1f}%'></u>"
            f"{mark}</div>"
            f"<td>{percent(iou[c])}"
        )
        if compared:
            cells += f"<td>{percent(before[c])}<td>{_gain(iou[c] - before[c])}"
        rows.append(f"<tr>{cells}<td class=faint>{percent(share[c])}")
    mean = f"<td>mean<td class=bars><td>{percent(report.miou)}"
    if compared:
        gain = _gain(report.miou - baseline.miou)
        mean += f"<td>{percent(baseline.miou)}<td>{gain}"
    notes = []
    if compared:
        notes.append(f"The line across a bar marks {text(baseline_name)}.")
    if report.absent:
        notes.append(
            f"Without any pixel, so not in the mean: {text(', '.join(report.absent))}."
        )
    note = f"<p class=caption>{' '.join(notes)}</p>" if notes else ""
    return (
        f"<table><thead><tr>{head}<th>% of pixels</thead><tbody>{''.join(rows)}</tbody>"
        f"<tfoot><tr>{mean}<td></tfoot></table>{note}"
    )


def _mistakes(report, colors):
    """The confusions that cost most: a large share of a class is taken for another."""
    counts = report.confusion.astype(np.float64)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    np.fill_diagonal(share, 0)
    keep = np.zeros_like(share)
    keep[list(report.classes)] = share[list(report.classes)]
    order = np.argsort(keep, axis=None, kind="stable")[::-1][:_MISTAKES]
    rows = []
    for flat in order:
        truth, guess = np.unravel_index(flat, share.shape)
        if keep[truth, guess] < 0.005:
            break
        names = report.class_names
        rows.append(
            f"<li>{swatch(colors[truth])}<b>{text(names[truth])}</b> taken for "
            f"{swatch(colors[guess])}<b>{text(names[guess])}</b>: "
            f"{percent(share[truth, guess])} % of its pixels</li>"
        )
    return f"<ul class=mistakes>{''.join(rows)}</ul>" if rows else ""


def _curves(history, baseline):
    lines = series(history)
    chosen = [
        key
        for group in _GROUPS
        for key in lines
        if key.startswith(group) and len(lines[key]) > 1
    ]
    charts = []
    for key in chosen:
        fraction = "iou" in key or "accuracy" in key
        reference = baseline.miou if baseline is not None and "miou" in key else None
        name = f"{key} (%)" if fraction else key
        chart = line_chart(
            name, lines[key], scale=100.0 if fraction else 1.0, reference=reference
        )
        charts.append(chart)
    return f"<div class=charts>{''.join(charts)}</div>" if charts else ""


def _shell(commands):
    return f"<pre>{text(chr(10).join(commands))}</pre>" if commands else ""


def _making(report, config, commands, versions):
    parts = [_shell(commands)]
    if versions:
        listed = " · ".join(f"{text(k)} {text(v)}" for k, v in versions.items())
        parts.append(f"<p class=caption>{listed}</p>")
    for name, values in (
        ("Configuration", config),
        ("Evaluation", report.provenance),
    ):
        rows = "".join(
            f"<tr><td>{text(key)}<td>{text(json.dumps(value, default=str))}"
            for key, value in _flatten(values)
        )
        if rows:
            parts.append(
                f"<details><summary>{name}</summary><table class=settings>{rows}"
                "</table></details>"
            )
    return "".join(parts)


def _flatten(values: Mapping, prefix: str = ""):
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
