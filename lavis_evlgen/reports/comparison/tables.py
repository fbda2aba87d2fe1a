"""The tables of a comparison: quality, times, costs, sweep and tuning, as cells of text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lavis_evlgen.reports.comparison import words
from lavis_evlgen.reports.comparison.file import Arm, Comparison, Stage
from lavis_evlgen.reports.comparison.times import LOSS
from lavis_evlgen.reports.comparison.verdicts import pair

Figures = dict[str, Any]
SCORES = ("CIDEr", "METEOR", "SPICE", "ROUGE_L", "Bleu_4", "exact_match")  # then what is named right
CHOSEN = " ✓"


@dataclass(frozen=True)
class Table:
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def quality_tables(found: Figures) -> list[Table]:
    """Final losses, then the scores of one split a table."""
    arms = found["arms"].values()
    losses = {LOSS: "held-out loss", "shuffled_loss": "with wrong pictures", "gap": "gap"}
    losses = {key: label for key, label in losses.items() if any(key in arm["final"] for arm in arms)}
    tables = []
    if losses:
        rows = [[arm["title"], _finished(arm), *_finals(arm, losses)] for arm in arms]
        tables.append(Table(["", "finished", *losses.values()], rows))
    for split in splits(found):
        keys = [f"{split}.{name}" for name in _scores(found, split)]
        names = [words.metric_name(_metric(key)) for key in keys]
        tables.append(Table([split.replace("_", " "), *names], [[arm["title"], *_finals(arm, keys)] for arm in arms]))
    return tables


def time_tables(comparison: Comparison, found: Figures) -> list[Table]:
    """By metric: what every arm takes to the quality of the reference, and shares of time of all pairs of arms."""
    between = [each for each in found["to_quality"] if each["compared"] and each["arm"] != each["of"]]
    metrics = dict.fromkeys(each["metric"] for each in between)
    tables = [table(comparison, found, metric) for metric in metrics for table in (_to_reference, _pairs)]
    return [table for table in tables if table.rows]


def cost_table(comparison: Comparison, found: Figures) -> Table:
    """One row a stage; what was logged in all of an arm's stages stands in its first row."""
    head = ["", "stage", "steps", "median step", "training", "as logged", "trainable", "soft prompt", "peak memory"]
    rows = []
    for arm in comparison.arms:
        logged = words.seconds_range(found["arms"][arm.name]["seconds_logged"])
        for number, stage in enumerate(arm.stages):
            first = number == 0
            rows.append(_cost_row(arm.title if first else "", stage, logged if first else ""))
    return Table(head, rows)


def sweep_table(comparison: Comparison, found: Figures) -> Table:
    """One row a value: tokens, time, and the first score of the first split."""
    sweep = comparison.sweep
    assert sweep is not None
    keys = [LOSS, *(f"{split}.{name}" for split in splits(found)[:1] for name in _scores(found, split)[:1])]
    rows = []
    for value, name in zip(sweep.values, sweep.arms, strict=True):
        arm = comparison.arm(name)
        if arm:
            figures = found["arms"][name]
            rows.append([value, _tokens(arm.stages[-1]), words.seconds(figures["seconds"]), *_finals(figures, keys)])
    return Table([sweep.key, "soft prompt", "training", *(words.metric_name(_metric(key)) for key in keys)], rows)


def tuning_table(comparison: Comparison) -> Table:
    """One row an arm, one column a value of the grid, the chosen one marked."""
    tuning = comparison.tuning
    assert tuning is not None
    head = ["", *(f"{value:g}" if isinstance(value, float) else str(value) for value in tuning.values)]
    rows = []
    for name, scores in tuning.scores.items():
        marks = [CHOSEN if value == tuning.chosen.get(name) else "" for value in tuning.values]
        cells = [_tuned(tuning.metric, scores, str(value)) for value in tuning.values]
        rows.append([comparison.title(name), *(f"{cell}{mark}" for cell, mark in zip(cells, marks, strict=True))])
    return Table(head, rows)


def splits(found: Figures) -> list[str]:
    """Evaluated splits in the order of the file."""
    names = (key.rpartition(".")[0] for arm in found["arms"].values() for key in arm["final"])
    return list(dict.fromkeys(name for name in names if name))


def _to_reference(comparison: Comparison, found: Figures, metric: str) -> Table:
    of = comparison.title(found["reference"])
    head = [
        f"to the final {words.metric_name(metric)} of {of}",
        *("reached", "steps", "images", "time", "share of its time", "share as logged"),
    ]
    rows = []
    for each in found["to_quality"]:
        if (each["of"], each["metric"]) == (found["reference"], metric) and each["compared"]:
            counts = [words.with_range(each[key]) for key in ("steps", "images")]
            shares = [words.share_of_time(each), words.with_range(each["share_logged"], 100, 0, " %")]
            time = words.seconds_range(each["seconds"])
            rows.append([comparison.title(each["arm"]), words.reached(each), *counts, time, *shares])
    return Table(head, rows)


def _pairs(comparison: Comparison, found: Figures, metric: str) -> Table:
    compared = [each for each in found["to_quality"] if each["metric"] == metric and each["compared"]]
    arms = [arm for arm in comparison.arms if any(arm.name in (each["arm"], each["of"]) for each in compared)]

    def cell(arm: Arm, of: Arm) -> str:
        each = pair(found, arm.name, of.name, metric)
        return "not reached" if each and each["compared"] and not each["reached"] else words.share_of_time(each)

    head = [f"share of time to the final {words.metric_name(metric)} of", *(arm.title for arm in arms)]
    return Table(head, [[arm.title, *(cell(arm, of) for of in arms)] for arm in arms])


def _cost_row(title: str, stage: Stage, logged: str) -> list[str]:
    step, parameters, memory = stage.seconds_per_step, stage.trainable_parameters, stage.peak_memory_gib
    return [
        title,
        stage.title,
        f"{stage.steps:,}",
        words.UNKNOWN if step is None else f"{step:.3f} s",
        words.seconds(None if step is None else step * stage.steps),
        logged,
        words.UNKNOWN if parameters is None else f"{parameters / 1e6:.2f} M",
        _tokens(stage),
        words.UNKNOWN if memory is None else f"{memory:.2f} GiB",
    ]


def _tokens(stage: Stage) -> str:
    return words.UNKNOWN if stage.soft_prompt_tokens is None else f"{stage.soft_prompt_tokens} tokens"


def _tuned(metric: str, scores: dict[str, float | None], value: str) -> str:
    return "diverged" if value in scores and scores[value] is None else words.value(metric, scores.get(value))


def _finished(arm: Figures) -> str:
    done = len(arm["seeds"])
    return f"{done} of {words.seeds(done + len(arm['unfinished']))}"


def _finals(arm: Figures, keys: Iterable[str]) -> list[str]:
    return [words.with_deviation(_metric(key), arm["final"].get(key)) for key in keys]


def _metric(key: str) -> str:
    """``test.CIDEr`` is CIDEr; losses have no split."""
    return key.rpartition(".")[2]


def _scores(found: Figures, split: str) -> list[str]:
    """The scores of a split that are shown, CIDEr first."""
    keys = dict.fromkeys(key for arm in found["arms"].values() for key in arm["final"])
    names = [_metric(key) for key in keys if key.rpartition(".")[0] == split]
    rates = [name for name in names if name.endswith("_right")]
    return [name for name in (*SCORES, *rates) if name in names]
