"""How figures are written in a terminal."""

from __future__ import annotations

import math

UNKNOWN = "–"


def span(seconds: float | None) -> str:
    """3 d 4 h, 5 h 12 min, 7 min, 12 s."""
    if seconds is None:
        return UNKNOWN
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def number(value: float | None) -> str:
    """Integers whole, others with four digits that count; an exponent below 0.001 and from 1,000,000 on."""
    if value is None:
        return UNKNOWN
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(value)
    if size and not 1e-3 <= size < 1e6:
        return f"{value:.2e}"
    return f"{value:,.{max(0, 3 - math.floor(math.log10(size))) if size else 0}f}"


def share(value: float) -> str:
    return f"{100 * value:.1f} %"
