"""Line charts as inline SVG, in the colours of the page that they stand in."""

import html
import math
from collections.abc import Mapping, Sequence

_WIDTH, _HEIGHT = 320, 150  # of the picture, in its own units
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 10, 22


def series(history: Sequence[Mapping[str, float]]) -> dict[str, list[tuple]]:
    """{key: [(step, value), ...]} of the finite numbers in rows with a "step".

    Where a resumed run wrote a step again, the later row counts.
    """
    points: dict[str, dict] = {}
    for row in history:
        for key, value in row.items():
            number = isinstance(value, int | float) and math.isfinite(value)
            if key != "step" and number:
                points.setdefault(key, {})[row["step"]] = value
    return {key: sorted(values.items()) for key, values in points.items()}


def smooth(values: Sequence[float], weight: float) -> list[float]:
    """Running mean, m = weight * m + (1 - weight) * v, corrected for its start at 0."""
    out, total, norm = [], 0.0, 0.0
    for value in values:
        total = weight * total + (1 - weight) * value
        norm = weight * norm + (1 - weight)
        out.append(total / norm)
    return out


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) inside [low, high]."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((m * power for m in (1, 2, 5, 10)), key=lambda s: abs(s - raw))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def line_chart(
    name: str,
    points: Sequence[tuple[float, float]],
    *,
    scale: float = 1.0,
    reference: float | None = None,
) -> str:
    """One figure: `name`, the last value, and value over step.

    Args:
      name: heading.
      points: (step, value), sorted by step; at least one.
      scale: factor of the values, 100 for percent.
      reference: a value to draw as a dashed horizontal line.

    Returns:
      An HTML <figure>.  Above 30 points it shows their running mean, and them faintly.
    """
    steps = [step for step, _ in points]
    values = [value * scale for _, value in points]
    many = len(points) > 30
    # The mean reaches over about a twentieth of the curve.
    drawn = smooth(values, 1 - 20 / max(len(points), 60)) if many else values
    shown = [*values, *([] if reference is None else [reference * scale])]
    if many and reference is None:
        # A few spikes must not flatten the curve; the raw line is cut off at the frame.
        ordered = sorted(values)
        cut = max(1, len(ordered) // 100)
        shown = [*ordered[cut:-cut], *drawn]
    low, high = min(shown), max(shown)
    margin = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    bottom = 0.0 if low >= 0 and low - margin < 0 else low - margin
    low, high = bottom, high + margin
    first, last = steps[0], max(steps[-1], steps[0] + 1)
    x = lambda s: _LEFT + (s - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT)
    y = lambda v: _TOP + (high - v) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)
    level = lambda kind, v: (
        f'<line class="{kind}" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" '
        f'y1="{y(v):.1f}" y2="{y(v):.1f}"/>'
    )
    parts = []
    for tick in ticks(low, high):
        parts.append(
            f'{level("grid", tick)}<text x="{_LEFT - 6}" y="{y(tick) + 3.5:.1f}" '
            f'text-anchor="end">{number(tick)}</text>'
        )
    for tick in ticks(first, last):
        parts.append(
            f'<text x="{min(x(tick), _WIDTH - 4 * len(number(tick))):.1f}" '
            f'y="{_HEIGHT - 5}" text-anchor="middle">'
            f"{number(tick)}</text>"
        )
    if reference is not None:
        parts.append(level("reference", reference * scale))
    path = lambda v: " ".join(
        f"{x(s):.1f},{min(max(y(a), _TOP), _HEIGHT - _BOTTOM):.1f}"
        for s, a in zip(steps, v, strict=True)
    )
    if many:
        parts.append(f'<polyline class="raw" points="{path(values)}"/>')
    parts.append(f'<polyline class="line" points="{path(drawn)}"/>')
    if not many:
        for step, value in zip(steps, values, strict=True):
            parts.append(
                f'<circle cx="{x(step):.1f}" cy="{y(value):.1f}" r="3"><title>step '
                f"{step}: {number(value)}</title></circle>"
            )
    label = html.escape(name)
    caption = f"<figcaption>{label}<b>{number(drawn[-1])}</b></figcaption>"
    return (
        f"<figure class=chart>{caption}"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg></figure>"
    )


def number(value: float) -> str:
    """At most four significant digits, k and M for large whole ones."""
    for limit, unit in ((1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e6 if unit == 'M' else 1e3):.4g}{unit}"
    return f"{value:.4g}"
