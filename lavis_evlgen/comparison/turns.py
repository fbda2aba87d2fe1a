"""Arms train by turns, so that a machine whose speed drifts treats all of them alike."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Sequence

from lavis_evlgen.comparison.arm_run import ArmRun
from lavis_evlgen.comparison.record import RunCurve
from lavis_evlgen.runners.interrupt import StopSignal


def train_by_turns(runs: Sequence[ArmRun], turn: int, stop: StopSignal) -> None:
    """Train all runs to their ends, `turn` steps of each in every round.

    A stop signal ends the process after the running step; every run has then saved its state.
    """
    clock = _Clock(runs)
    try:
        with stop:
            while any(not run.finished for run in runs):
                for run in runs:
                    if not run.finished:
                        clock.time(run, turn)
    except SystemExit:
        for run in runs:
            if run.is_open:
                run.save()
        raise
    finally:
        for run in runs:
            run.close()


class _Clock:
    """Says how far each run is and how long the rest will take."""

    def __init__(self, runs: Sequence[ArmRun]) -> None:
        self.runs = runs
        self.seconds: dict[tuple[str, int], float] = {}  # of a step, by arm and stage, evaluations included
        self.said: dict[str, tuple[int, int]] = {}

    def time(self, run: ArmRun, turn: int) -> None:
        stage, before, began = run.stage, run.iters, time.perf_counter()
        opening = not run.is_open
        run.turn(turn)
        after = run.iters if run.stage == stage else run.arm.stages[stage].steps
        if after > before and not opening:
            self.seconds[run.arm.name, stage] = (time.perf_counter() - began) / (after - before)
        self._say(run, stage, after)

    def _say(self, run: ArmRun, stage: int, step: int) -> None:
        arm = run.arm
        curve = RunCurve.read(run.stage_folder(stage))
        found = [point for point in curve.held_out if point["step"] <= step]
        if not found or self.said.get(arm.name) == (stage, found[-1]["step"]):
            return
        point = found[-1]
        self.said[arm.name] = (stage, point["step"])
        which = f", {arm.stages[stage].title}" if len(arm.stages) > 1 else ""
        logging.info(
            "seed %d  %s%s  step %d/%d  held-out loss %.3f (shuffled %.3f)  %.2f s a step  left %s",
            run.seed, arm.name, which, point["step"], arm.stages[stage].steps,
            _number(point["held_out_loss"]), _number(point["shuffled_loss"]), _number(curve.step_seconds), self._left(),
        )  # fmt: skip

    def _left(self) -> str:
        known = list(self.seconds.values())
        usual = sum(known) / len(known) if known else 0.0
        left = 0.0
        for run in self.runs:
            for number, stage in enumerate(run.arm.stages):
                if number >= run.stage:
                    done = run.iters if number == run.stage else 0
                    left += (stage.steps - done) * self.seconds.get((run.arm.name, number), usual)
        return str(datetime.timedelta(seconds=int(left)))


def _number(value: float | None) -> float:
    """The log has null where a value was not finite."""
    return float("nan") if value is None else value
