"""What a run's records add up to."""

from __future__ import annotations

import math
from collections import deque
from typing import Any, TypeGuard

from lavis_evlgen.watch.series import Series

CURVES = (
    "loss",
    "held_out_loss",
    "shuffled_loss",
    "gap",
    "prompt_diversity",
    "lr",
    "grad_norm",
    "images_per_s",
    "tokens_per_s",
    "data_wait",
    "memory_gib",
    "host_memory_gib",
)
TOTALS = ("nan_steps", "bad_samples")
WARNINGS = 100  # that are kept
PACE = 20  # records over which the time of a step is averaged


class RunState:
    """The newest figures of a run, and how they came about.

    Attributes:
        step: finished optimisation steps.
        max_iters: how many there shall be, None where the log does not say it.
        curves: by name of CURVES.
        totals: by name of TOTALS, since the run began.
        phase: the last record that tells of a start or an end, {} before the first.
        evaluating: the splits that captions are being written for at the moment, "" when training.
        starts: how often a process took up the run.
        evaluations: by split, its last record.
        best: by split, the highest ``agg_metrics`` and its step.
        warnings: the last ones, as (step, text).
        health_step: step of the last comparison with shuffled pictures.
    """

    def __init__(self) -> None:
        self.step = 0
        self.max_iters: int | None = None
        self.curves: dict[str, Series] = {name: Series() for name in CURVES}
        self.totals = dict.fromkeys(TOTALS, 0)
        self.phase: dict[str, Any] = {}
        self.evaluating = ""
        self.starts = 0
        self.evaluations: dict[str, dict[str, Any]] = {}
        self.best: dict[str, tuple[float, int]] = {}
        self.warnings: deque[tuple[int, str]] = deque(maxlen=WARNINGS)
        self.health_step: int | None = None
        self._pace: deque[tuple[int, float]] = deque(maxlen=PACE)

    def add(self, record: dict[str, Any]) -> None:
        """Take a record of log.jsonl; unknown ones, and unknown keys, are left alone."""
        iters = record.get("iters")
        if not _is_number(iters):
            return
        iters = int(iters)
        if isinstance(record.get("warning"), str):
            self.warnings.append((iters, record["warning"]))
            return
        if isinstance(record.get("state"), str):
            self._enter(record)
            return
        self.evaluating = ""
        if isinstance(record.get("split"), str):
            self._evaluated(iters, record)
            return
        for name in CURVES:
            if _is_number(record.get(name)):
                self.curves[name].add(iters, record[name])
        for name in TOTALS:
            if _is_number(record.get(name)):
                self.totals[name] = int(record[name])
        if "gap" in record:
            self.health_step = iters
        if "loss" in record:
            if _is_number(record.get("seconds")):
                self._pace.append((iters - self.step, float(record["seconds"])))
            self.step = iters

    @property
    def step_seconds(self) -> float | None:
        """Mean time of the last steps, evaluation left out."""
        steps = sum(steps for steps, _ in self._pace)
        return sum(seconds for _, seconds in self._pace) / steps if steps > 0 else None

    @property
    def record_seconds(self) -> float | None:
        """Mean time between the last records of training."""
        return sum(seconds for _, seconds in self._pace) / len(self._pace) if self._pace else None

    def _enter(self, record: dict[str, Any]) -> None:
        if record["state"] == "evaluating":
            self.evaluating = str(record.get("what", ""))
            return
        self.phase, self.evaluating = record, ""
        if record["state"] == "started":
            self.starts += 1
            self.max_iters = record.get("max_iters")

    def _evaluated(self, iters: int, record: dict[str, Any]) -> None:
        split, value = record["split"], record.get("agg_metrics")
        self.evaluations[split] = record
        if _is_number(value) and (split not in self.best or value > self.best[split][0]):
            self.best[split] = (float(value), iters)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
