"""How the figures of a comparison are written: spreads, shares of time, names of metrics."""

from __future__ import annotations

from typing import Any

from lavis_evlgen.reports.sections import duration

UNKNOWN = "–"
Spread = dict[str, Any]


def metric_name(metric: str) -> str:
    """``held_out_loss`` as held-out loss, ``Bleu_4`` as BLEU-4, ``named_right`` as named right."""
    known = {"held_out_loss": "held-out loss", "exact_match": "word for word", "ROUGE_L": "ROUGE-L"}
    if metric.startswith("Bleu_"):
        return metric.replace("Bleu_", "BLEU-")
    return known.get(metric, metric.replace("_", " "))


def is_share(metric: str) -> bool:
    return metric.endswith("_right") or metric == "exact_match"


def value(metric: str, number: float | None) -> str:
    """A single figure: losses with three decimals, shares in per cent, scores with two."""
    if number is None:
        return UNKNOWN
    if is_share(metric):
        return f"{100 * number:.1f} %"
    return f"{number:.{_decimals(metric)}f}"


def with_deviation(metric: str, found: Spread | None) -> str:
    """Mean ± sample standard deviation over seeds, without the latter for a single one."""
    if not found:
        return UNKNOWN
    if found["sd"] is None:
        return value(metric, found["mean"])
    if is_share(metric):
        return f"{100 * found['mean']:.1f} ± {100 * found['sd']:.1f} %"
    decimals = _decimals(metric)
    return f"{found['mean']:.{decimals}f} ± {found['sd']:.{decimals}f}"


def with_range(found: Spread | None, scale: float = 1.0, decimals: int = 0, unit: str = "") -> str:
    """Mean (smallest to largest) over seeds, without the latter where they are written alike."""
    if not found:
        return UNKNOWN
    mean, low, high = (f"{scale * found[key]:,.{decimals}f}" for key in ("mean", "min", "max"))
    return f"{mean}{unit}" if low == high else f"{mean}{unit} ({low} to {high})"


def seconds(number: float | None) -> str:
    """Short times with a decimal, since shares are taken of them."""
    if number is None:
        return UNKNOWN
    return f"{number:.1f} s" if number < 60 else duration(number)


def seconds_range(found: Spread | None) -> str:
    if not found:
        return UNKNOWN
    mean, low, high = (seconds(found[key]) for key in ("mean", "min", "max"))
    return mean if low == high else f"{mean} ({low} to {high})"


def best_missed(pair: dict[str, Any]) -> str:
    """Of a pair with seeds that did not reach the quality, the one that came nearest: best value and wanted one."""
    missed = [each for each in pair["seeds"] if not each["reached"]]
    nearest = min(missed, key=lambda each: abs(each["best"] - each["wanted"]))
    metric = pair["metric"]
    return f"best {value(metric, nearest['best'])} of {value(metric, nearest['wanted'])} wanted"


def share_of_time(pair: dict[str, Any] | None, key: str = "share") -> str:
    """A pair's share of the other arm's training time, or that it was not reached and how near it came."""
    if not pair or not pair["compared"]:
        return UNKNOWN
    if not pair["reached"]:
        return f"not reached ({best_missed(pair)})"
    # a curve that starts below the quality wanted was there at its first measurement, perhaps before
    at_most = "≤ " if any(each.get("at_most") for each in pair["seeds"]) else ""
    text = at_most + with_range(pair[key], 100, 0, " %")
    return text if pair["reached"] == pair["compared"] else f"{reached(pair)}: {text}"


def percent(share: float) -> str:
    """A share that somebody named, as it was named."""
    return f"{100 * share:g} %"


def reached(pair: dict[str, Any]) -> str:
    return f"{pair['reached']} of {seeds(pair['compared'])}"


def seeds(number: int) -> str:
    return f"{number} seed{'' if number == 1 else 's'}"


def _decimals(metric: str) -> int:
    return 3 if metric.endswith("loss") or metric == "gap" else 2
