"""The charts of a comparison: learning curves over seeds, the sweep and the tuning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from lavis_evlgen.reports.charts import Curve, line_chart
from lavis_evlgen.reports.comparison.file import Arm, Comparison
from lavis_evlgen.reports.comparison.times import CIDER, LOSS, Measured, measured, spread, steady_seconds
from lavis_evlgen.reports.comparison.words import metric_name

LOSS_LABEL = "held-out loss (nats a token)"
SECONDS = "seconds of training (steps x median step time)"


@dataclass(frozen=True)
class Chart:
    """`key` names the chart's file, `text` says what it shows to those who do not see it."""

    key: str
    text: str
    svg: str


# every key that a chart may have: files of other charts are left alone
KEYS = (
    *("loss_steps", "loss_images", "loss_seconds", "cider_seconds"),
    *("sweep_loss", "sweep_cider", "sweep_time", "tuning"),
)


def learning_charts(comparison: Comparison, *, images: bool = True) -> list[Chart]:
    """Held-out loss over steps, images and seconds, CIDEr of the validation split over seconds.

    `images` False leaves out the chart over images where it is that over steps on another scale.
    """
    steps = _Across("steps", "optimisation steps", lambda arm, at: at.step)
    seen = _Across("images", "images seen in training", lambda arm, at: at.images)
    seconds = _Across("seconds", SECONDS, lambda arm, at: steady_seconds(arm, at.step), log=True)
    every = [steps, seen, seconds] if images or len(_images_per_step(comparison)) > 1 else [steps, seconds]
    charts = [_learning(comparison, LOSS, across) for across in every]
    return [chart for chart in [*charts, _learning(comparison, CIDER, seconds)] if chart.svg]


@dataclass(frozen=True)
class _Across:
    """What a learning curve is drawn over: where a measurement of an arm stands."""

    key: str
    label: str
    place: Callable[[Arm, Measured], float | None]
    log: bool = False


def _learning(comparison: Comparison, metric: str, across: _Across) -> Chart:
    """Means over the finished seeds with the range as a band; unfinished runs as thin lines."""
    split = comparison.validation_split
    name, label = ("loss", LOSS_LABEL) if metric == LOSS else ("cider", f"CIDEr, {split}")
    curves = []
    for look, arm in enumerate(comparison.arms):
        done = [run.seed for run, _ in arm.finished]
        if done:
            values = [measured(arm, run, metric, split) for run, _ in arm.finished]
            curves.append(_mean_curve(arm, values, across, look))
        for run in arm.runs:
            if run.seed not in done:
                places = [(across.place(arm, at), at.value) for at in measured(arm, run, metric, split)]
                points = [(x, y) for x, y in places if x is not None]
                title = "" if any(curve.look == look for curve in curves) else f"{arm.title} (unfinished)"
                curves.append(Curve(title, points, faint=True, look=look))
    curves = [replace(curve, marked=metric != LOSS) for curve in curves]
    svg = line_chart(curves, across.label, label, log_x=across.log)
    return Chart(f"{name}_{across.key}", f"{label} over {across.label}, by arm", svg)


def _mean_curve(arm: Arm, runs: list[list[Measured]], across: _Across, look: int) -> Curve:
    """At the steps at which all of the runs were measured."""
    by_step = [{at.step: at for at in run} for run in runs]
    points, band = [], []
    for step, first in by_step[0].items():
        values = spread(each[step].value for each in by_step if step in each)
        x = across.place(arm, first)
        if x is not None and values and values["n"] == len(runs):
            points.append((x, values["mean"]))
            band.append((x, values["min"], values["max"]))
    return Curve(arm.title, points, band=band if len(runs) > 1 else (), look=look)


def _images_per_step(comparison: Comparison) -> set[float]:
    return {
        point.images / point.step for arm in comparison.arms for run in arm.runs for point in run.curve if point.step
    }


def sweep_places(comparison: Comparison) -> tuple[str, list[float]] | None:
    """The x axis of a sweep: its values where they are numbers, else the tokens of the soft prompts; or neither."""
    sweep = comparison.sweep
    if sweep is None:
        return None
    try:
        return sweep.key, [float(value) for value in sweep.values]
    except ValueError:
        arms = [comparison.arm(name) for name in sweep.arms]
        tokens = [arm.stages[-1].soft_prompt_tokens if arm else None for arm in arms]
        known = [float(each) for each in tokens if each is not None]
        return ("tokens of the soft prompt", known) if len(set(known)) == len(arms) else None


def sweep_charts(comparison: Comparison, found: dict[str, Any]) -> list[Chart]:
    """Quality, and training time, against the value that the sweep goes through (the paper's Figure 3)."""
    places = sweep_places(comparison)
    if places is None or comparison.sweep is None:
        return []
    label, xs = places
    arms = [
        (x, found["arms"][name]) for x, name in zip(xs, comparison.sweep.arms, strict=True) if name in found["arms"]
    ]
    score = next((key for _, arm in arms for key in arm["final"] if key.endswith(f".{CIDER}")), "")
    charts = [
        _sweep_chart("sweep_loss", label, LOSS_LABEL, [(x, arm["final"].get(LOSS)) for x, arm in arms], 0),
        _sweep_chart(
            "sweep_cider",
            label,
            f"CIDEr, {score.rpartition('.')[0]}",
            [(x, arm["final"].get(score)) for x, arm in arms],
            1,
        ),
        _sweep_chart("sweep_time", label, "seconds of training", [(x, spread([arm["seconds"]])) for x, arm in arms], 2),
    ]
    return [chart for chart in charts if chart.svg]


def _sweep_chart(
    key: str, x_label: str, y_label: str, values: list[tuple[float, dict[str, Any] | None]], look: int
) -> Chart:
    known = sorted(((x, each) for x, each in values if each), key=lambda pair: pair[0])
    points = [(x, each["mean"]) for x, each in known]
    band = [(x, each["min"], each["max"]) for x, each in known]
    svg = line_chart([Curve("", points, band=band, marked=True, look=look)], x_label, y_label)
    return Chart(key, f"{y_label} over {x_label}", svg)


def tuning_chart(comparison: Comparison) -> list[Chart]:
    """The metric that chose each arm's value, over the values of the grid."""
    tuning = comparison.tuning
    if tuning is None or not all(isinstance(value, int | float) for value in tuning.values):
        return []
    curves = []
    for look, arm in enumerate(comparison.arms):
        scores = tuning.scores.get(arm.name, {})
        points = sorted((float(value), score) for value, score in scores.items() if score is not None)
        curves.append(Curve(arm.title, points, marked=True, look=look))
    label = f"{metric_name(tuning.metric)} after {tuning.steps} steps, {tuning.split}"
    svg = line_chart(curves, tuning.key, label, log_x=all(value > 0 for value in tuning.values))
    return [Chart("tuning", f"{label}, over {tuning.key}, by arm", svg)] if svg else []
