"""How a check is shown: a summary on the terminal, a contact sheet, a page."""

import io
from collections.abc import Sequence

import numpy as np
import rich.box
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table

from uda_jax.data.check_overlap import Overlap
from uda_jax.data.check_walk import SetReport, Thumbnail
from uda_jax.data.dataset import size_text
from uda_jax.report_style import data_uri, page, percent, swatch, text
from uda_jax.visualize import FAINT, INK, PAPER, contact_sheet, legend

_SHOWN = 50  # problems of a data set on the page; check.json has all
_PRINTED = 5  # on the terminal
COLUMNS = 6  # of the contact sheet
_CELL = 240  # its pictures' width in pixels

_STYLE = """\
.sets td { vertical-align: top; }
.sets td:first-child { font-weight: 600; }
.well, .tile .well { color: var(--up); }
.wrong, .tile .wrong { color: var(--down); }
.wide { overflow-x: auto; }
.shares td:first-child { width: 170px; }
.shares td + td { min-width: 92px; padding: 5px 0 5px 18px; text-align: left; }
.shares th + th { padding-left: 18px; text-align: left; }
.shares small { color: var(--faint); float: right; line-height: 23px; }
.shares .bar { height: 6px; margin-top: 3px; }
.shares .bar u { background: var(--of); box-shadow: inset 0 0 0 1px #8886; }
.list { padding-left: 20px; margin: 8px 0 0; overflow-wrap: anywhere; }
.list li { margin: 4px 0; }
.sheet { display: grid; gap: 14px;
  grid-template-columns: repeat(auto-fill, minmax(170px, 1fr)); }
.sheet img { width: 100%; display: block; }
.sheet img:first-child { border-radius: 6px 6px 0 0; }
.sheet img:nth-child(2) { border-radius: 0 0 6px 6px; }
.sheet figcaption { color: var(--faint); font-size: 12px; overflow-wrap: anywhere;
  padding-top: 3px; line-height: 1.35; }
h3 { font-size: 15px; margin: 24px 0 8px; }
@media (max-width: 600px) { .shares td:first-child { width: auto; }
  main { padding: 20px 16px 48px; }
  .shares td + td, .shares th + th { min-width: 74px; padding-left: 12px; }
  .sheet { grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)); } }
"""


def print_summary(
    name: str,
    reports: Sequence[SetReport],
    overlaps: Sequence[Overlap],
    problems: Sequence[str],
) -> None:
    """Prints two tables and the problems to stdout."""
    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(name)
    for head in ("examples", "expected", "problems", "images", "labels", "ignored %"):
        table.add_column(head, justify="right")
    for report in reports:
        table.add_row(
            report.role,
            f"{len(report.dataset):,}",
            str(report.expected or "-"),
            f"{len(report.problems):,}" if report.problems else "-",
            _sizes(report.image_sizes),
            _sizes(report.label_sizes),
            _share(report.ignored_share),
        )
    _print(table)
    labelled = [report for report in reports if report.label_sizes]
    if labelled:
        shares = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
        shares.add_column("% of pixels, number of images")
        for report in labelled:
            shares.add_column(report.role, justify="right")
            shares.add_column("", justify="right")
        for c, label in enumerate(labelled[0].classes):
            cells = []
            for report in labelled:
                cells += [_share(report.shares[c]), f"{report.images[c]:,}"]
            shares.add_row(label, *cells)
        _print(shares)
    for line in [*_notes(reports, overlaps), *problems]:
        print(line)
    for report in reports:
        for line in report.problems[:_PRINTED]:
            print(f"{report.role}: {line}")
        more = len(report.problems) - _PRINTED
        if more > 0:
            print(f"{report.role}: and {more:,} more, see check.json")


def _print(table: Table) -> None:
    # Names of classes are a user's own: "crop [wet]" is no markup.
    console = Console(file=io.StringIO(), width=200, markup=False, emoji=False)
    console.print(table)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    print("\n".join(filter(None, lines)), end="\n\n")


def _notes(reports, overlaps) -> list[str]:
    """What is worth knowing and no mistake."""
    notes = [str(overlap) for overlap in overlaps if overlap.harmless]
    for report in reports:
        if report.absent:
            notes.append(f"{report.role}: never seen: {', '.join(report.absent)}.")
        if report.dataset.sizes_may_differ and report.label_sizes != report.image_sizes:
            notes.append(
                f"{report.role}: some labels have another size than their image, as "
                "published; training brings them to one size."
            )
    return notes


def _share(value: float) -> str:
    """Two decimals, because rare classes are what one looks for."""
    return "-" if np.isnan(value) else f"{100 * value:.2f}"


def _sizes(counts, most: int = 1) -> str:
    """The commonest sizes."""
    if not counts:
        return "-"
    shown = [size_text(size) for size, _ in counts.most_common(most)]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" + {more} other" if more else "")


def contact_sheet_png(name: str, reports: Sequence[SetReport]) -> bytes:
    """Examples of every data set, image above label, and a legend: a PNG file."""
    width = 8 + COLUMNS * (_CELL + 8)
    parts = [_line(name, width, 24, INK)]
    for report in reports:
        head = f"{report.role}: {len(report.dataset):,} examples, {_row(report)}"
        parts.append(_line(head, width, 16, FAINT))
        if report.thumbnails:
            pictures = [_stacked(thumbnail) for thumbnail in report.thumbnails]
            names = [thumbnail.name for thumbnail in report.thumbnails]
            options = {"columns": COLUMNS, "cell_width": _CELL}
            parts.append(contact_sheet(pictures, names, **options))
    labelled = [report for report in reports if report.label_sizes]
    if labelled:
        strip = legend(*_legend(labelled[0]), width=width - 16)
        parts.append(np.pad(strip, ((8, 8), (8, 8), (0, 0)), constant_values=255))
    stream = io.BytesIO()
    Image.fromarray(np.concatenate(parts)).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _legend(report: SetReport) -> tuple[list[str], np.ndarray]:
    """Names and colours of the classes, and the black of what has none."""
    return [*report.classes, "ignored"], np.vstack([report.colors, np.zeros((1, 3))])


def _line(words: str, width: int, size: int, color) -> np.ndarray:
    canvas = Image.new("RGB", (width, 2 * size), PAPER)
    font = ImageFont.load_default(size)
    ImageDraw.Draw(canvas).text((8, size), words, color, font, anchor="lm")
    return np.asarray(canvas)


def _stacked(thumbnail: Thumbnail) -> np.ndarray:
    parts = [p for p in (thumbnail.image, thumbnail.label) if p is not None]
    return np.concatenate(parts)


def _row(report: SetReport) -> str:
    """'cityscapes in data/cityscapes, split train'."""
    options = [
        f"{key} {', '.join(map(str, v)) if isinstance(v, list | tuple) else v}"
        for key, v in report.row.items()
        if key not in ("reader", "root") and v not in ("", (), [], 1.0)
    ]
    where = f"{report.row['reader']} in {report.row['root']}"
    return ", ".join([where, *options])


def html_page(
    name: str,
    reports: Sequence[SetReport],
    overlaps: Sequence[Overlap],
    problems: Sequence[str],
) -> str:
    """check.html: self-contained, for wide screens and narrow ones."""
    count = len(problems) + sum(len(report.problems) for report in reports)
    sections = [
        ("", _headline(reports, count)),
        ("Problems", _problems(reports, problems)),
        ("Data sets", _sets(reports)),
        ("Classes", _classes(reports)),
        ("Worth knowing", _list(_notes(reports, overlaps))),
        ("Examples", _sheet(reports)),
    ]
    return page(f"Check of {name}", sections, _STYLE)


def _headline(reports, count):
    verdict = (
        f"<span class=wrong>{count:,}</span>"
        if count
        else "<span class=well>none</span>"
    )
    examples = sum(len(report.dataset) for report in reports)
    checked = sum(report.checked for report in reports)
    note = "all decoded" if checked == examples else f"{checked:,} decoded"
    tiles = [("problems", verdict, ""), ("examples", f"{examples:,}", note)]
    labelled = [report for report in reports if report.label_sizes]
    if labelled:
        space = labelled[0].dataset.label_space
        pixels = sum(int(r.pixels.sum()) + r.ignored for r in labelled)
        tiles.append(("classes", space.num_classes, text(space.name)))
        tiles.append(("labelled pixels", _short(pixels), ""))
    cells = "".join(
        f"<div class=tile><span>{head}</span><strong>{value}</strong>"
        f"<small>{note}</small></div>"
        for head, value, note in tiles
    )
    return f"<div class=tiles>{cells}</div>"


def _short(count: int) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)


def _problems(reports, problems):
    parts = [_list(problems)]
    for report in reports:
        if report.problems:
            more = len(report.problems) - _SHOWN
            parts.append(f"<h3>{text(report.role)}</h3>")
            parts.append(_list(report.problems[:_SHOWN]))
            if more > 0:
                parts.append(f"<p class=caption>and {more:,} more in check.json</p>")
    return "".join(parts)


def _list(lines):
    items = "".join(f"<li>{text(line)}</li>" for line in lines)
    return f"<ul class=list>{items}</ul>" if items else ""


def _sets(reports):
    rows = []
    for report in reports:
        known = report.expected
        right = known is None or len(report.dataset) in known.counts
        tone = "" if known is None else " class=well" if right else " class=wrong"
        rows.append(
            f"<tr><td>{text(report.role)}<td{tone}>{len(report.dataset):,}"
            f"<td>{text(known or '–')}"
            f"<td{' class=wrong' if report.problems else ''}>{len(report.problems):,}"
            f"<td>{_size_list(report.image_sizes)}<td>{_size_list(report.label_sizes)}"
            f"<td>{percent(report.ignored_share)}"
        )
    table = (
        "<div class=wide><table class=sets><thead><tr><th>data set<th>examples"
        "<th>expected<th>problems<th>images<th>labels<th>% ignored</thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
    origins = [
        f"{text(r.role)}: {text(_row(r))}"
        + (f". Expected: {text(r.expected.origin)}." if r.expected else ".")
        for r in reports
    ]
    return table + "".join(f"<p class=caption>{line}</p>" for line in origins)


def _size_list(counts):
    if not counts:
        return "–"
    if len(counts) == 1:
        return size_text(next(iter(counts)))
    lines = [f"{size_text(size)} ({n:,})" for size, n in counts.most_common(6)]
    if len(counts) > 6:
        lines.append(f"{len(counts) - 6} other sizes")
    return "<br>".join(lines)


def _classes(reports):
    labelled = [report for report in reports if report.label_sizes]
    if not labelled:
        return ""
    head = "".join(f"<th>{text(report.role)}" for report in labelled)
    longest = max(np.nan_to_num(report.shares).max() for report in labelled) or 1
    rows = []
    for c, label in enumerate(labelled[0].classes):
        color = labelled[0].colors[c]
        cells = []
        for report in labelled:
            share, width = report.shares[c], 0.0
            if share > 0:
                width = max(100 * share / longest, 0.7)  # rare, and still to be seen
            tone = "" if share > 0 else " class=faint"
            cells.append(
                f"<td{tone}>{_share(share)} <small>{report.images[c]:,}</small>"
                f"<div class=bar><u style='width:{width:.1f}%'></u></div>"
            )
        of = "rgb({},{},{})".format(*map(int, color))
        rows.append(
            f"<tr style='--of:{of}'><td>{swatch(color)}{text(label)}{''.join(cells)}"
        )
    return (
        "<p class=caption>Per cent of the pixels that have a class; in grey the number "
        "of images that show it.</p><div class=wide><table class=shares><thead><tr>"
        f"<th>class{head}</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _sheet(reports):
    parts = []
    for report in reports:
        figures = "".join(_figure(thumbnail) for thumbnail in report.thumbnails)
        if figures:
            parts.append(
                f"<h3>{text(report.role)}</h3><div class=sheet>{figures}</div>"
            )
    labelled = [report for report in reports if report.label_sizes]
    if parts and labelled:
        names = zip(*_legend(labelled[0]), strict=True)
        spans = "".join(f"<span>{swatch(c)}{text(n)}</span>" for n, c in names)
        parts.append(f"<p class=legend>{spans}</p>")
    return "".join(parts)


def _figure(thumbnail: Thumbnail) -> str:
    pictures = [p for p in (thumbnail.image, thumbnail.label) if p is not None]
    images = "".join(f"<img src='{data_uri(p)}' alt=''>" for p in pictures)
    return f"<figure>{images}<figcaption>{text(thumbnail.name)}</figcaption></figure>"
