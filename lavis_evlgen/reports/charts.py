"""Line charts as inline SVG, legible on light and dark pages and on a phone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Points = Sequence[tuple[float, float]]

# the page may set --curve-0 … and the current colour; these are the colours without it
CURVE_COLOURS = ("#2f6fed", "#d9480f", "#0b8a5f", "#8b5cf6", "#a16207")
WIDTH, HEIGHT = 520, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 34, 46
LEGEND_LINE = 18


@dataclass(frozen=True)
class Curve:
    """A named line through points (x, y); `faint` draws it thin, for noisy values behind smooth ones."""

    name: str
    points: Points
    faint: bool = False


def line_chart(curves: Sequence[Curve], x_label: str, y_label: str) -> str:
    """An ``<svg>`` with axes from zero, round ticks, a grid and a legend; empty text when there is no point."""
    curves = [curve for curve in curves if curve.points]
    if not curves:
        return ""
    x_ticks = round_ticks(max(x for curve in curves for x, _ in curve.points))
    y_ticks = round_ticks(max(y for curve in curves for _, y in curve.points))
    x_scale = (WIDTH - LEFT - RIGHT) / x_ticks[-1]
    y_scale = (HEIGHT - TOP - BOTTOM) / y_ticks[-1]
    floor = HEIGHT - BOTTOM
    legend, below = _legend(curves)
    parts = [
        f'<svg viewBox="0 {-below} {WIDTH} {HEIGHT + below}" role="img" font-family="inherit" font-size="13" '
        'fill="currentColor">',
        f"<title>{escape(y_label)} over {escape(x_label)}</title>",
    ]
    for y in y_ticks:
        height = floor - y * y_scale
        parts.append(_line(LEFT, height, WIDTH - RIGHT, height, 'stroke="currentColor" stroke-opacity=".15"'))
        parts.append(_text(LEFT - 8, height + 4, f"{y:g}", "end"))
    parts += [_text(LEFT + x * x_scale, floor + 18, f"{x:g}", "middle") for x in x_ticks]
    parts.append(_text(LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 8, x_label, "middle"))
    parts.append(_text(0, 0, y_label, "middle", f'transform="translate(13 {(TOP + floor) / 2:.0f}) rotate(-90)"'))
    for number, curve in enumerate(curves):
        path = " ".join(f"{LEFT + x * x_scale:.1f},{floor - y * y_scale:.1f}" for x, y in curve.points)
        parts.append(f'<polyline points="{path}" fill="none" stroke-linejoin="round" {_stroke(number, curve)}/>')
    return "".join([*parts, *legend, "</svg>"])


def averaged(points: Points, most: int = 80) -> list[tuple[float, float]]:
    """At most `most` points: the means of as many runs of neighbours of (nearly) equal length."""
    size = max(1, math.ceil(len(points) / most))
    runs = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in run) / len(run), sum(y for _, y in run) / len(run)) for run in runs]


def round_ticks(largest: float, about: int = 5) -> list[float]:
    """Round numbers from 0 to the first one that is not below `largest`."""
    if largest <= 0:
        return [0.0, 1.0]
    rough = largest / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [round(number * step, 10) for number in range(math.ceil(largest / step - 1e-9) + 1)]


def _legend(curves: Sequence[Curve]) -> tuple[list[str], int]:
    """The curves' names above the chart, and how much higher the picture gets by lines beyond the first."""
    places, left, line = [], float(LEFT), 0
    for curve in curves:
        width = 46 + 6.7 * len(curve.name)
        if left > LEFT and left + width - 20 > WIDTH:
            left, line = float(LEFT), line + 1
        places.append((left, line))
        left += width
    parts = []
    for number, (curve, (left, at)) in enumerate(zip(curves, places, strict=True)):
        top = 14 - LEGEND_LINE * (line - at)
        parts.append(_line(left, top, left + 20, top, _stroke(number, curve)))
        parts.append(_text(left + 26, top + 4, curve.name, "start"))
    return parts, LEGEND_LINE * line


def _stroke(number: int, curve: Curve) -> str:
    colour = CURVE_COLOURS[number % len(CURVE_COLOURS)]
    look = 'stroke-width="1.3" stroke-opacity=".6"' if curve.faint else 'stroke-width="2.4"'
    return f'style="stroke:var(--curve-{number % len(CURVE_COLOURS)},{colour})" {look}'


def _line(x1: float, y1: float, x2: float, y2: float, look: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {look}/>'


def _text(x: float, y: float, text: str, anchor: str, extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {extra}>{escape(text)}</text>'
