"""A figure over the steps, kept in bounded memory."""

from __future__ import annotations

MOST = 1024  # points


class Series:
    """(step, value) points in order of steps; when there are many, means of ever more neighbours, all alike long."""

    def __init__(self) -> None:
        self.last: float | None = None
        self._points: list[tuple[float, float]] = []
        self._size = 1  # values a point stands for
        self._steps = self._values = 0.0
        self._count = 0

    def add(self, step: float, value: float) -> None:
        self.last = value
        self._steps += step
        self._values += value
        self._count += 1
        if self._count == self._size:
            self._points.append(self._open())
            self._steps = self._values = 0.0
            self._count = 0
        if len(self._points) == MOST:
            pairs = zip(self._points[::2], self._points[1::2], strict=True)
            self._points = [((a + c) / 2, (b + d) / 2) for (a, b), (c, d) in pairs]
            self._size *= 2

    def points(self) -> list[tuple[float, float]]:
        """At most MOST of them; the last one may stand for fewer values."""
        return [*self._points, self._open()] if self._count else list(self._points)

    def _open(self) -> tuple[float, float]:
        return self._steps / self._count, self._values / self._count
