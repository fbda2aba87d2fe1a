"""One run that is watched: its log, its files, and what both say about it now."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lavis_evlgen.runners.progress import LOG_FILE
from lavis_evlgen.watch.state import CURVES, RunState
from lavis_evlgen.watch.tail import LogTail

CONFIG = "config.yaml"
QUIET = 60.0  # seconds without a record that mean nothing
QUIET_RECORDS = 5  # times the usual time between records that mean nothing either
QUIET_START, QUIET_EVALUATION = 600.0, 1800.0
GRACE = 10.0  # seconds after a sign of life in which nobody looks for the process

ALIVE = ("starting", "running", "evaluating")
TROUBLE = ("silent", "dead", "stopped")


@dataclass(frozen=True)
class Frame:
    """What is known of a run at one moment; None is unknown. As JSON it is what ``watch --json`` prints.

    Attributes:
        status: waiting (no log yet), starting, running, evaluating, silent, dead (its process is gone), stopped,
            paused, finished.
        why: what there is to say about the status.
        age: seconds since the log was last written.
        left: seconds to the last step, evaluations included.
        figures: the newest of each of CURVES that the log has.
        evaluations: scores by split, with the step as ``iters``.
        warmup: the step from which a missing gap is a sign of trouble.
        best: split, ``agg_metrics`` and ``iters`` of the best validation.
        checkpoint: name and age in seconds of the newest one.
        damaged: lines of the log that are no records.
    """

    folder: str
    status: str
    why: str
    age: float | None
    step: int
    max_iters: int | None
    left: float | None
    figures: dict[str, float]
    health_step: int | None
    warmup: int
    evaluations: dict[str, dict[str, Any]]
    best: dict[str, Any] | None
    checkpoint: dict[str, Any] | None
    nan_steps: int
    bad_samples: int
    starts: int
    warnings: list[dict[str, Any]] = field(default_factory=list)
    damaged: int = 0


class WatchedRun:
    """A run folder, read anew at every :meth:`refresh` as far as it is new."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = RunState()
        self._tail = LogTail(folder / LOG_FILE)
        self._config: dict[str, Any] = {}
        self._config_time = 0.0

    def refresh(self) -> None:
        for record in self._tail.records(self._restart):
            self.state.add(record)
        self._read_config()

    def frame(self, now: float) -> Frame:
        """``now`` in Unix seconds."""
        state = self.state
        age = self._age(now)
        status, why = self._status(age)
        last = {name: state.curves[name].last for name in CURVES}
        return Frame(
            folder=str(self.folder),
            status=status,
            why=why,
            age=age,
            step=state.step,
            max_iters=self.max_iters,
            left=self._left(now) if status in ALIVE else None,
            figures={name: value for name, value in last.items() if value is not None},
            health_step=state.health_step,
            warmup=int(self._config.get("warmup_steps") or 0),
            evaluations=state.evaluations,
            best=self._best(),
            checkpoint=self._checkpoint(now),
            nan_steps=state.totals["nan_steps"],
            bad_samples=state.totals["bad_samples"],
            starts=state.starts,
            warnings=[{"iters": iters, "text": text} for iters, text in state.warnings],
            damaged=self._tail.damaged,
        )

    @property
    def max_iters(self) -> int | None:
        return self.state.max_iters or self._config.get("max_iters") or None

    def _restart(self) -> None:
        self.state = RunState()

    def _read_config(self) -> None:
        """The `run` section, once it is there; a run writes it when it starts."""
        path = self.folder / CONFIG
        try:
            written = path.stat().st_mtime
            if written != self._config_time:
                run: Any = OmegaConf.to_container(OmegaConf.load(path).run, resolve=False)
                self._config, self._config_time = dict(run), written
        except Exception:  # not there, or half written: the next look finds it
            return

    def _age(self, now: float) -> float | None:
        try:
            return max(0.0, now - (self.folder / LOG_FILE).stat().st_mtime)
        except FileNotFoundError:
            return None

    def _status(self, age: float | None) -> tuple[str, str]:
        state, phase = self.state, self.state.phase.get("state", "")
        if age is None:
            return "waiting", "no log yet"
        if phase in ("finished", "paused") and not state.evaluating:
            return phase, ""
        if phase == "stopped":
            return phase, str(self.state.phase.get("why", ""))
        if not phase and self._looks_finished():
            return "finished", ""
        if age > GRACE and self._is_gone():
            return "dead", f"process {self.state.phase['pid']} is gone"
        if age > self._patience():
            return "silent", "perhaps hanging or dead"
        if state.evaluating:
            return "evaluating", state.evaluating
        return ("running", "") if state.step else ("starting", "")

    def _looks_finished(self) -> bool:
        """Of logs that do not say it, as older versions wrote them."""
        if not self.state.step:
            return bool(self.state.evaluations)
        return self.max_iters is not None and self.state.step >= self.max_iters

    def _is_gone(self) -> bool:
        """Whether the run's process was on this machine and is no more."""
        pid = self.state.phase.get("pid")
        if not isinstance(pid, int) or self.state.phase.get("host") != socket.gethostname():
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False

    def _patience(self) -> float:
        if self.state.evaluating:
            return QUIET_EVALUATION
        usual = self.state.record_seconds
        return QUIET_START if usual is None else max(QUIET, QUIET_RECORDS * usual)

    def _left(self, now: float) -> float | None:
        """By the time since the process started, evaluations and all, or else by the time of the last steps."""
        state, phase = self.state, self.state.phase
        if self.max_iters is None or not state.step:
            return None
        per_step, done = state.step_seconds, state.step - phase.get("iters", 0)
        if phase and done > 0:
            per_step = max(0.0, now - (self._age(now) or 0.0) - phase["time"]) / done
        return None if per_step is None else per_step * max(0, self.max_iters - state.step)

    def _best(self) -> dict[str, Any] | None:
        """Of the split whose ``agg_metrics`` chooses the best checkpoint: the run's first validation split."""
        best = self.state.best
        if not best:
            return None
        wanted = (self._config.get("valid_splits") or [None])[0]
        split = wanted if wanted in best else next(iter(best))
        return {"split": split, "agg_metrics": best[split][0], "iters": best[split][1]}

    def _checkpoint(self, now: float) -> dict[str, Any] | None:
        found = []
        for path in self.folder.glob("checkpoint_*.pth"):
            if match := re.fullmatch(r"checkpoint_(\d+)\.pth", path.name):
                found.append((int(match[1]), path))
        for _, path in sorted(found, reverse=True):
            try:
                return {"name": path.name, "age": max(0.0, now - path.stat().st_mtime)}
            except FileNotFoundError:  # removed at this moment
                continue
        return None
