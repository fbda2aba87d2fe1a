"""Curves in characters: sparklines, and line charts of braille dots."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

Points = Sequence[tuple[float, float]]

BARS, ASCII_BARS = "▁▂▃▄▅▆▇█", "_.,-=+*#"
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of a braille cell, by row and column
BRAILLE = 0x2800
LOG_FROM = 3.0  # times the smallest value


def sparkline(points: Points, width: int, ascii_only: bool = False) -> str:
    """At most `width` characters, as high as the values (or their logarithms) between smallest and largest one."""
    if not points:
        return ""
    values = _binned(points, min(width, len(points)))
    if _spans_much(min(values), max(values)):
        values = [math.log(value) for value in values]
    low, high = min(values), max(values)
    bars = ASCII_BARS if ascii_only else BARS
    scale = (len(bars) - 1) / (high - low) if high > low else 0.0
    return "".join(bars[round((value - low) * scale)] for value in values)


class Canvas:
    """A chart of `width` x `height` characters; each has 2 x 4 dots and the colour of the last curve through it.

    Attributes:
        cells: rows of (character, number of the curve or None), top first.
        ticks: by row, the value at its middle: the top, middle and bottom rows'.
        x_range: first and last step.
    """

    def __init__(self, curves: Sequence[Points], width: int, height: int, ascii_only: bool = False) -> None:
        everything = [point for points in curves for point in points]
        ys = [y for _, y in everything]
        self.x_range = min(x for x, _ in everything), max(x for x, _ in everything)
        low, high = min(ys), max(ys)
        self._log = _spans_much(low, high)
        self._low, self._high = (math.log(low), math.log(high)) if self._log else (low, high)
        self._dots = [[0] * width for _ in range(height)]
        self._owner: list[list[int | None]] = [[None] * width for _ in range(height)]
        for number, points in enumerate(curves):
            self._draw(number, points, 2 * width, 4 * height)
        blank, mark = (" ", "*") if ascii_only else ("\u2800", "")
        self.cells = [
            [((mark or chr(BRAILLE + dots)) if dots else blank, owner) for dots, owner in zip(*row, strict=True)]
            for row in zip(self._dots, self._owner, strict=True)
        ]
        rows = sorted({0, height // 2, height - 1})
        self.ticks = {row: self._value(1 - row / (height - 1) if height > 1 else 0.5) for row in rows}

    def _value(self, share: float) -> float:
        value = self._low + share * (self._high - self._low)
        return math.exp(value) if self._log else value

    def _place(self, x: float, y: float, width: int, height: int) -> tuple[int, int]:
        """Column and row of a point's dot, of `width` x `height` dots."""
        first, last = self.x_range
        across = (x - first) / (last - first) if last > first else 0.0
        level = math.log(y) if self._log else y
        up = (level - self._low) / (self._high - self._low) if self._high > self._low else 0.5
        return round(across * (width - 1)), round((1 - up) * (height - 1))

    def _draw(self, number: int, points: Points, width: int, height: int) -> None:
        places = [self._place(x, y, width, height) for x, y in points]
        for (x, y), (to_x, to_y) in zip(places, places[1:] or places, strict=False):
            steps = max(abs(to_x - x), abs(to_y - y), 1)
            for step in range(steps + 1):
                self._dot(number, round(x + (to_x - x) * step / steps), round(y + (to_y - y) * step / steps))

    def _dot(self, number: int, x: int, y: int) -> None:
        self._dots[y // 4][x // 2] |= DOTS[y % 4][x % 2]
        self._owner[y // 4][x // 2] = number


def _spans_much(low: float, high: float) -> bool:
    """Whether a logarithmic scale shows more."""
    return low > 0 and high > LOG_FROM * low


def _binned(points: Points, count: int) -> list[float]:
    """Means of the values in `count` equal parts of the range of x; an empty part has the one before it."""
    first, last = points[0][0], points[-1][0]
    if last <= first:
        return [points[-1][1]]
    edges = [first + (last - first) * part / count for part in range(1, count)]
    sums: list[list[float]] = [[] for _ in range(count)]
    for x, y in points:
        sums[bisect_right(edges, x)].append(y)
    values: list[float] = []
    for part in sums:
        values.append(sum(part) / len(part) if part else values[-1])
    return values
