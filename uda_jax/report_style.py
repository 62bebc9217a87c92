"""What the HTML pages share: the style sheet, the frame and small parts.

The style sheet is in a module, so that every installation has it.
"""

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

_PICTURE_WIDTH = 640  # pixels; wider pictures are reduced to it

STYLE = """\
:root { color-scheme: light dark; --paper: #fff; --card: #f6f7f9; --ink: #1f2328;
  --faint: #656d76; --line: #d8dee4;
  --accent: #2563eb; --up: #15803d; --down: #b91c1c; }
@media (prefers-color-scheme: dark) { :root { --paper: #0f1216; --card: #181c22;
  --ink: #e6e9ed; --faint: #949da8; --line: #2c323a; --accent: #6ea0ff; --up: #4ade80;
  --down: #f87171; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial,
    sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 18px; margin: 40px 0 12px; }
.facts, .caption { color: var(--faint); font-size: 13.5px; margin: 6px 0 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr));
  gap: 12px; margin-top: 20px; }
.tile { background: var(--card); border-radius: 10px; padding: 14px 16px; }
.tile span { display: block; color: var(--faint); font-size: 13px; }
.tile strong { display: block; font-size: 32px; line-height: 1.25; font-weight: 650;
  font-variant-numeric: tabular-nums; }
.tile strong span { display: inline; font-size: inherit; }
.tile small { color: var(--faint); font-size: 12.5px; }
.tile .up, .up { color: var(--up); } .tile .down, .down { color: var(--down); }
.tile .same, .same, .faint { color: var(--faint); }
.strip { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(150px, 1fr);
  gap: 8px; overflow-x: auto; margin-top: 14px; }
figure { margin: 0; }
.strip img { width: 100%; display: block; border-radius: 6px; }
.strip figcaption { color: var(--faint); font-size: 13px; padding-bottom: 3px;
  overflow-wrap: anywhere; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 13.5px;
  margin: 16px 0 0; }
i { display: inline-block; width: 13px; height: 13px; border-radius: 3px;
  margin-right: 7px; vertical-align: -1.5px; box-shadow: inset 0 0 0 1px #8886; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { color: var(--faint); font-weight: 500; font-size: 13px; }
th, td { text-align: right; padding: 5px 10px; white-space: nowrap; }
th:first-child, td:first-child, th.bars { text-align: left; padding-left: 0; }
tbody tr { border-top: 1px solid var(--line); }
tfoot tr { border-top: 2px solid var(--line); font-weight: 650; }
.bars { width: 45%; }
.bar { position: relative; height: 12px; background: var(--card); border-radius: 3px; }
.bar u { position: absolute; inset: 0 auto 0 0; background: var(--accent);
  border-radius: 3px; }
.bar b { position: absolute; top: -3px; bottom: -3px; width: 2px; margin-left: -1px;
  background: var(--ink); box-shadow: 0 0 0 1px var(--paper); }
.mistakes { list-style: none; padding: 0; margin: 0; display: grid; gap: 6px 32px;
  grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); }
.mistakes b { font-weight: 600; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(310px, 1fr));
  gap: 14px; }
.chart { background: var(--card); border-radius: 10px; padding: 10px 12px 6px; }
.chart figcaption { display: flex; justify-content: space-between; font-size: 13.5px;
  font-variant-numeric: tabular-nums; }
.chart svg { width: 100%; display: block; }
.chart text { fill: var(--faint); font-size: 10.5px; }
.grid { stroke: var(--line); stroke-width: 1; }
.reference { stroke: var(--ink); stroke-width: 1.2; stroke-dasharray: 4 4;
  opacity: .7; }
.line, .raw { fill: none; stroke: var(--accent); stroke-width: 1.8;
  stroke-linejoin: round; }
.raw { stroke-width: 1; opacity: .28; }
circle { fill: var(--accent); }
pre { background: var(--card); border-radius: 10px; padding: 14px 16px;
  overflow-x: auto; margin: 0;
  font: 13px/1.55 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
details { margin-top: 12px; } summary { cursor: pointer; font-weight: 600; }
.settings { font: 13px/1.5 ui-monospace, Menlo, Consolas, monospace; margin-top: 8px; }
.settings td { text-align: left; white-space: normal; padding: 3px 10px 3px 0; }
.settings td:first-child { color: var(--faint); width: 38%; }
"""


def page(title: str, sections: Sequence[tuple[str, str]], style: str = "") -> str:
    """A whole page, which opens anywhere without a network.

    Args:
      title: heading.
      sections: (heading, HTML); a section without content is left out.
      style: rules of this page, behind the common ones.
    """
    body = "".join(
        f"<section>{f'<h2>{name}</h2>' if name else ''}{content}</section>"
        for name, content in sections
        if content
    )
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}{style}</style></head>"
        f"<body><main><h1>{text(title)}</h1>{body}</main></body></html>\n"
    )


def text(value: Any) -> str:
    """`value` as text that HTML shows as it is."""
    return html.escape(str(value))


def percent(value: float, sign: str = "") -> str:
    """A fraction in per cent with one decimal, a dash for NaN."""
    return "–" if np.isnan(value) else f"{100 * value:{sign}.1f}"


def swatch(color: Sequence[int]) -> str:
    """A small square in an RGB colour."""
    red, green, blue = (int(v) for v in color)
    return f"<i style='background:rgb({red},{green},{blue})'></i>"


def data_uri(picture: np.ndarray) -> str:
    """A picture, uint8 [H, W, 3], inside the page: PNG for few colours, else JPEG."""
    image = Image.fromarray(picture)
    # Label maps have few colours: a palette PNG is exact and small, JPEG would smear.
    flat = image.getcolors(256) is not None
    if image.width > _PICTURE_WIDTH:
        height = round(image.height * _PICTURE_WIDTH / image.width)
        how = Image.Resampling.NEAREST if flat else Image.Resampling.LANCZOS
        image = image.resize((_PICTURE_WIDTH, height), how)
    stream = io.BytesIO()
    if flat:
        image.quantize(256).save(stream, "PNG", optimize=True)
    else:
        image.save(stream, "JPEG", quality=88)
    kind = "png" if flat else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
