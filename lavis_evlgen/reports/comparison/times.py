"""How long training took to a quality: from the curves of a comparison's runs.

Arms take turns on one machine, where the seconds of single steps scatter. Times here are therefore optimisation steps
times the median step time of their stage; seconds as logged stand beside them and enter no ratio but their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from lavis_evlgen.reports.comparison.file import Arm, Final, Run

LOSS = "held_out_loss"
CIDER = "CIDEr"


@dataclass(frozen=True)
class Measured:
    """A value of a metric, and what training up to it took."""

    step: float
    images: float
    seconds: float
    value: float


@dataclass(frozen=True)
class Crossing:
    """Where a curve first reaches a value; `at_most` where it had by its first measurement, so perhaps before."""

    step: float
    images: float
    seconds: float
    at_most: bool = False


def steady_seconds(arm: Arm, step: float) -> float | None:
    """Training time up to a step of an arm: steps of each stage times its median step time; None where that is."""
    seconds, before = 0.0, 0
    for stage in arm.stages:
        done = min(max(step - before, 0.0), stage.steps)
        if done and stage.seconds_per_step is None:
            return None
        seconds += done * (stage.seconds_per_step or 0.0)
        before += stage.steps
    return seconds


def measured(arm: Arm, run: Run, metric: str, split: str) -> list[Measured]:
    """A metric during training: the held-out loss in all stages that caption, or a score on a split."""
    if metric == LOSS:
        values = [(point, point.held_out_loss) for point in run.curve if arm.captions(point.stage)]
        return [Measured(at.step, at.images, at.seconds, value) for at, value in values if value is not None]
    scores = [(each, each.scores.get(metric)) for each in run.evaluations if each.split == split]
    return [Measured(at.step, at.images, at.seconds, value) for at, value in scores if value is not None]


def final_value(arm: Arm, run: Run, metric: str, split: str) -> float | None:
    """What a finished run had at its end, of the same measurement as its curve; None of an unfinished one."""
    if not run.finished or run.final is None:
        return None
    if metric == LOSS:
        return run.final.held_out_loss
    curve = measured(arm, run, metric, split)
    return curve[-1].value if curve else None


def lower_is_better(metric: str) -> bool:
    return metric.endswith("loss")


def first_crossing(curve: Sequence[Measured], wanted: float, lower: bool) -> Crossing | None:
    """The first place where a curve, straight between its points, is at least as good as `wanted`."""
    before = None
    for point in curve:
        if point.value <= wanted if lower else point.value >= wanted:
            if before is None:
                return Crossing(point.step, point.images, point.seconds, at_most=True)
            part = (wanted - before.value) / (point.value - before.value)
            return Crossing(
                before.step + part * (point.step - before.step),
                before.images + part * (point.images - before.images),
                before.seconds + part * (point.seconds - before.seconds),
            )
        before = point
    return None


def time_to_quality(arm: Arm, of: Arm, metric: str, split: str) -> dict[str, Any]:
    """What an arm's training takes to the final quality of another one.

    Scores are those of `split`. Seeds are paired; only those are compared which both arms have finished. All stages of
    both arms are counted.

    Returns:
        ``seeds``: a list with ``seed``, ``wanted``, ``best``, ``reached`` and, where it was reached, ``steps``,
        ``images``, ``seconds``, ``seconds_logged``, ``share`` and ``share_logged`` (of the other arm's whole training
        time) and ``at_most``. ``reached`` and ``compared``: numbers of seeds. The spreads of the figures over the
        seeds that reached it stand under their names.
    """
    lower = lower_is_better(metric)
    ends = {run.seed: (final_value(of, run, metric, split), final) for run, final in of.finished}
    seeds = []
    for run, _ in arm.finished:
        curve = measured(arm, run, metric, split)
        wanted, end = ends.get(run.seed, (None, None))
        if wanted is None or end is None or not curve:
            continue
        values = [point.value for point in curve]
        found: dict[str, Any] = {"seed": run.seed, "wanted": wanted, "best": min(values) if lower else max(values)}
        crossing = first_crossing(curve, wanted, lower)
        found["reached"] = crossing is not None
        if crossing:
            found |= _taken(arm, of, crossing, end)
        seeds.append(found)
    keys = ("steps", "images", "seconds", "seconds_logged", "share", "share_logged")
    return {
        "arm": arm.name,
        "of": of.name,
        "metric": metric,
        "compared": len(seeds),
        "reached": sum(each["reached"] for each in seeds),
        **{key: spread(each.get(key) for each in seeds) for key in keys},
        "seeds": seeds,
    }


def _taken(arm: Arm, of: Arm, crossing: Crossing, end: Final) -> dict[str, Any]:
    seconds, whole = steady_seconds(arm, crossing.step), steady_seconds(of, of.steps)
    return {
        "steps": crossing.step,
        "images": crossing.images,
        "seconds": seconds,
        "seconds_logged": crossing.seconds,
        "share": seconds / whole if seconds is not None and whole else None,
        "share_logged": crossing.seconds / end.seconds if end.seconds else None,
        "at_most": crossing.at_most,
    }


def spread(values: Iterable[float | None]) -> dict[str, Any] | None:
    """Mean, sample standard deviation (None of one value), extremes and number of the values that are known."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    sd = stdev(known) if len(known) > 1 else None
    return {"mean": mean(known), "sd": sd, "min": min(known), "max": max(known), "n": len(known)}
