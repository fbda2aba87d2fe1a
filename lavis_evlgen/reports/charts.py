"""Line charts as inline SVG, legible on light and dark pages, on a phone, and as files of their own."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Points = Sequence[tuple[float, float]]

# the page may set --curve-0 … and the current colour; these are the colours without it
CURVE_COLOURS = ("#2f6fed", "#d9480f", "#0b8a5f", "#8b5cf6", "#a16207", "#c2257a", "#0891b2", "#4b5563")
DASHES = ("", "7 4", "2 3", "10 3 2 3")  # for every four curves another one, so that colour is never the only sign
WIDTH, HEIGHT = 520, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 34, 46
LEGEND_LINE = 18
LONGEST_NAME = 60  # characters that fit on a line of the legend
GROUND, INK = "#ffffff", "#1c1d20"  # of a chart that is a file of its own


@dataclass(frozen=True)
class Curve:
    """A named line through points (x, y).

    Attributes:
        name: stands in the legend, unless it is empty.
        faint: drawn thin, for noisy values behind smooth ones.
        band: (x, low, high) of an area behind the line, such as the range over seeds.
        marked: with a dot at every point, for few of them; a single point always has one.
        look: number of its colour and dashes; by default its place among the curves that have points.
    """

    name: str
    points: Points
    faint: bool = False
    band: Sequence[tuple[float, float, float]] = ()
    marked: bool = False
    look: int | None = None


@dataclass(frozen=True)
class _Axis:
    """Ticks, and how far between the first and the last one a value stands."""

    ticks: list[float]
    log: bool = False

    def share(self, value: float) -> float:
        first, last = self.ticks[0], self.ticks[-1]
        if self.log:
            return math.log(value / first) / math.log(last / first)
        return (value - first) / (last - first)


def line_chart(curves: Sequence[Curve], x_label: str, y_label: str, *, log_x: bool = False) -> str:
    """An ``<svg>`` with round ticks, a grid and a legend; empty text when there is no point.

    Both axes start at zero; with `log_x` the x axis is logarithmic, and points that are not right of zero are left out.
    """
    curves = [_right_of_zero(curve) for curve in curves] if log_x else list(curves)
    curves = [curve for curve in curves if curve.points]
    if not curves:
        return ""
    xs = [x for curve in curves for x, _ in curve.points]
    x_axis = _Axis(log_ticks(min(xs), max(xs)), log=True) if log_x else _Axis(round_ticks(max(xs)))
    y_axis = _Axis(round_ticks(max(y for curve in curves for y in _heights(curve))))
    looks = [number if curve.look is None else curve.look for number, curve in enumerate(curves)]
    floor = HEIGHT - BOTTOM
    legend, below = _legend([(curve, look) for curve, look in zip(curves, looks, strict=True) if curve.name])
    parts = [
        f'<svg viewBox="0 {-below} {WIDTH} {HEIGHT + below}" role="img" font-family="inherit" font-size="13" '
        'fill="currentColor">',
        f"<title>{escape(y_label)} over {escape(x_label)}</title>",
    ]

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = x_axis.share(x) * (WIDTH - LEFT - RIGHT), y_axis.share(y) * (HEIGHT - TOP - BOTTOM)
        return LEFT + across, floor - up

    for y in y_axis.ticks:
        _, height = place(xs[0], y)
        parts.append(_line(LEFT, height, WIDTH - RIGHT, height, 'stroke="currentColor" stroke-opacity=".15"'))
        parts.append(_text(LEFT - 8, height + 4, f"{y:g}", "end"))
    for x in x_axis.ticks:
        across, _ = place(x, 0)
        if log_x:
            parts.append(_line(across, TOP, across, floor, 'stroke="currentColor" stroke-opacity=".08"'))
        parts.append(_text(across, floor + 18, f"{x:g}", "middle"))
    parts.append(_text(LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 8, x_label, "middle"))
    parts.append(_text(0, 0, y_label, "middle", f'transform="translate(13 {(TOP + floor) / 2:.0f}) rotate(-90)"'))
    for curve, look in zip(curves, looks, strict=True):
        edge = [(x, high) for x, _, high in curve.band] + [(x, low) for x, low, _ in reversed(curve.band)]
        if edge:
            area = _written(place(*point) for point in edge)
            parts.append(f'<polygon points="{area}" style="fill:{_colour(look)}" fill-opacity=".13"/>')
    for curve, look in zip(curves, looks, strict=True):
        places = [place(*point) for point in curve.points]
        parts.append(
            f'<polyline points="{_written(places)}" fill="none" stroke-linejoin="round" {_stroke(curve, look)}/>'
        )
        if curve.marked or len(places) == 1:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.4" style="fill:{_colour(look)}"/>' for x, y in places]
    return "".join([*parts, *legend, "</svg>"])


def standalone(svg: str) -> str:
    """A chart as a file of its own: light, on its own ground, since nothing around it sets colours and letters."""
    box = re.search(r'viewBox="(\S+) (\S+) (\S+) (\S+)"', svg)
    if box is None:
        raise ValueError("this is no chart of line_chart")
    left, top, width, height = box.groups()
    svg = re.sub(r"var\(--curve-\d+,(#\w+)\)", r"\1", svg).replace("currentColor", INK)
    svg = svg.replace("inherit", "system-ui, sans-serif", 1)
    ground = f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="{GROUND}"/>'
    svg = svg.replace("</title>", f"</title>{ground}", 1)
    svg = svg.replace("<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" ', 1)
    return re.sub(r"(</title>|/>|</text>)", r"\1\n", svg) + "\n"


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


def log_ticks(smallest: float, largest: float) -> list[float]:
    """1, 2 and 5 times powers of ten (over four decades and more the powers alone) that enclose both numbers."""
    low, high = math.floor(math.log10(smallest)), math.ceil(math.log10(largest))
    factors = (1, 2, 5) if largest < 1e4 * smallest else (1,)
    ticks = [float(f"{factor}e{power}") for power in range(low, high + 2) for factor in factors]
    first = max(tick for tick in ticks if tick <= smallest * (1 + 1e-9))
    last = min(tick for tick in ticks if tick >= largest * (1 - 1e-9) and tick > first)
    return [tick for tick in ticks if first <= tick <= last]


def _right_of_zero(curve: Curve) -> Curve:
    points = [point for point in curve.points if point[0] > 0]
    band = [each for each in curve.band if each[0] > 0]
    return Curve(curve.name, points, curve.faint, band, curve.marked, curve.look)


def _heights(curve: Curve) -> list[float]:
    return [y for _, y in curve.points] + [high for _, _, high in curve.band]


def _legend(curves: Sequence[tuple[Curve, int]]) -> tuple[list[str], int]:
    """The curves' names above the chart, and how much higher the picture gets by lines beyond the first."""
    names = [_shortened(curve.name) for curve, _ in curves]
    places, left, line = [], float(LEFT), 0
    for name in names:
        width = 46 + 6.7 * len(name)
        if left > LEFT and left + width - 20 > WIDTH:
            left, line = float(LEFT), line + 1
        places.append((left, line))
        left += width
    parts = []
    for (curve, look), name, (left, at) in zip(curves, names, places, strict=True):
        top = 14 - LEGEND_LINE * (line - at)
        parts.append(_line(left, top, left + 20, top, _stroke(curve, look)))
        parts.append(_text(left + 26, top + 4, name, "start"))
    return parts, LEGEND_LINE * line


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _stroke(curve: Curve, look: int) -> str:
    dashes = DASHES[look // 4 % len(DASHES)]
    width = 'stroke-width="1.3" stroke-opacity=".6"' if curve.faint else 'stroke-width="2.4"'
    return f'style="stroke:{_colour(look)}" {width}' + (f' stroke-dasharray="{dashes}"' if dashes else "")


def _colour(look: int) -> str:
    number = look % len(CURVE_COLOURS)
    return f"var(--curve-{number},{CURVE_COLOURS[number]})"


def _written(places) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _line(x1: float, y1: float, x2: float, y2: float, look: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {look}/>'


def _text(x: float, y: float, text: str, anchor: str, extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {extra}>{escape(text)}</text>'
