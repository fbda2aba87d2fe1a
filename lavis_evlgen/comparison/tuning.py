"""Choosing one key's value for every stage of every arm alike, by runs on the validation split."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from lavis_evlgen.comparison.arm_run import ArmRun, Prepare
from lavis_evlgen.comparison.arms import PREVIOUS, Arm
from lavis_evlgen.comparison.plan import Plan, Tuning
from lavis_evlgen.comparison.record import RunCurve
from lavis_evlgen.comparison.turns import train_by_turns
from lavis_evlgen.errors import ConfigError, DivergedError
from lavis_evlgen.runners.checkpointing import EXPORT
from lavis_evlgen.runners.interrupt import StopSignal


def tune(plan: Plan, prepare: Prepare, pool: dict[str, nn.Module], stop: StopSignal) -> dict[str, Any] | None:
    """The held-out loss of every arm at every value, and the value chosen for it; None where nothing is tuned.

    An arm's stages are tuned one after the other, each by its own held-out loss after `steps` steps of a schedule of
    that length, from the best weights of the stage before. Runs that are there already are not repeated. A value whose
    loss is not finite has no score.
    """
    if plan.tune is None:
        return None
    tuner = _Tuner(plan, plan.tune, prepare, pool, stop)
    scores: dict[str, dict[str, float | None]] = {}
    chosen: dict[str, Any] = {}
    for arm in plan.arms:
        if arm.name in plan.tune.arms:
            for name, found, value in tuner.stages(arm):
                scores[name], chosen[name] = found, value
    return {
        "key": plan.tune.key,
        "values": list(plan.tune.values),
        "steps": plan.tune.steps,
        "seed": plan.tune.seed,
        "split": plan.arms[0].stages[-1].config.run.valid_splits[0],
        "metric": "held_out_loss",
        "scores": scores,
        "chosen": chosen,
    }


def tuned(arm: Arm, tuning: dict[str, Any] | None) -> Arm:
    """The arm with the values chosen for its stages."""
    if tuning is None or arm.name not in tuning["chosen"]:
        return arm
    stages = [
        Arm("", "", (stage,)).with_value(tuning["key"], tuning["chosen"][stage_name(arm, number)]).stages[0]
        for number, stage in enumerate(arm.stages)
    ]
    return replace(arm, stages=tuple(stages))


def stage_name(arm: Arm, number: int) -> str:
    """What stage 0, 1, … is called in the scores: the last one by the arm's name alone."""
    return arm.name if number == len(arm.stages) - 1 else f"{arm.name}, stage {number + 1}"


class _Tuner:
    def __init__(
        self, plan: Plan, wanted: Tuning, prepare: Prepare, pool: dict[str, nn.Module], stop: StopSignal
    ) -> None:
        self.wanted, self.prepare, self.pool, self.stop = wanted, prepare, pool, stop
        self.out = plan.out / "tuning"

    def stages(self, arm: Arm) -> list[tuple[str, dict[str, float | None], Any]]:
        """Name, losses by value and chosen value of every stage."""
        results: list[tuple[str, dict[str, float | None], Any]] = []
        start: Path | None = None
        for number in range(len(arm.stages)):
            name, losses = stage_name(arm, number), []
            for value in self.wanted.values:
                loss = self._loss(arm, number, value, start)
                said = "diverged" if loss is None else f"held-out loss {loss:.3f}"
                logging.info("tuning %s: %s=%s  %s", name, self.wanted.key, value, said)
                losses.append(loss)
            best = self._best(name, losses)
            shown = [f"{value:g}" if isinstance(value, float) else str(value) for value in self.wanted.values]
            results.append((name, dict(zip(shown, losses, strict=True)), best))
            start = self._folder(arm, number, best) / EXPORT
        self._drop_weights(arm)
        return results

    def _best(self, name: str, losses: list[float | None]) -> Any:
        found = [(loss, number) for number, loss in enumerate(losses) if loss is not None]
        if not found:
            raise ConfigError(
                f"compare.tune: the loss of {name} is finite at no value of {self.wanted.key}; try lower ones"
            )
        return self.wanted.values[min(found)[1]]

    def _folder(self, arm: Arm, number: int, value: Any) -> Path:
        return self.out / f"{arm.name}_stage{number + 1}_{value}"

    def _loss(self, arm: Arm, number: int, value: Any, start: Path | None) -> float | None:
        folder = self._folder(arm, number, value)
        diverged = folder / "diverged.json"
        if diverged.is_file():
            return None
        run = ArmRun(self._alone(arm, number, value, start), self.wanted.seed, folder, *self._with, scored=False)
        try:
            train_by_turns([run], self.wanted.steps, self.stop)
        except DivergedError as error:
            diverged.write_text(json.dumps({"error": str(error)}) + "\n", "utf-8")
            return None
        loss = RunCurve.read(folder).held_out[-1]["held_out_loss"]
        return loss if loss is not None and math.isfinite(loss) else None

    @property
    def _with(self) -> tuple[Prepare, dict[str, nn.Module], StopSignal]:
        return self.prepare, self.pool, self.stop

    def _alone(self, arm: Arm, number: int, value: Any, start: Path | None) -> Arm:
        """One stage as an arm of its own, as long as tuning runs are."""
        alone = Arm(stage_name(arm, number), arm.title, (arm.stages[number],)).with_value(self.wanted.key, value)
        steps, every = self.wanted.steps, int(alone.stages[0].config.run.health_freq)
        lengths = {"max_iters": steps, "iters_per_inner_epoch": steps, "health_freq": steps if steps % every else every}
        for key, number_of_steps in lengths.items():
            alone = alone.with_value(f"run.{key}", number_of_steps)
        for key, text in alone.stages[0].config.model.items():
            if isinstance(text, str) and PREVIOUS in text:
                alone = alone.with_value(f"model.{key}", text.replace(PREVIOUS, str(start)))
        return alone

    def _drop_weights(self, arm: Arm) -> None:
        """Nothing starts from them any more."""
        for number in range(len(arm.stages)):
            for value in self.wanted.values:
                (self._folder(arm, number, value) / EXPORT).unlink(missing_ok=True)
