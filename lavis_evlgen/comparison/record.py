"""What a comparison found, read from its run folders into one JSON: `comparison.json`."""

from __future__ import annotations

import datetime
import json
import platform
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from lavis.common.dist_utils import get_world_size

from lavis_evlgen.comparison.arm_run import read_facts, stage_folder
from lavis_evlgen.comparison.arms import Arm
from lavis_evlgen.comparison.plan import Plan
from lavis_evlgen.errors import DataError
from lavis_evlgen.launch import lavis_config
from lavis_evlgen.reports.figures import machine
from lavis_evlgen.runners.progress import LOG_FILE, RunLog
from lavis_evlgen.runners.settings import RunSettings
from lavis_evlgen.versions import versions

FORMAT = 1
FILE = "comparison.json"
HELD_OUT = ("held_out_loss", "shuffled_loss")


@dataclass(frozen=True)
class RunCurve:
    """The course of one training run, from its log.

    Attributes:
        held_out: by health check `step`, `seconds` (of training so far, evaluation left out), `loss` (of the newest
            record), `held_out_loss`, `shuffled_loss`.
        evaluations: `step`, `seconds`, `split`, `scores`.
        seconds: of all steps.
        step_seconds: the median over the log's records; None before the first.
    """

    held_out: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    seconds: float
    step_seconds: float | None

    @classmethod
    def read(cls, folder: Path) -> RunCurve:
        try:
            return cls._of(RunLog(folder, enabled=False))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{folder / LOG_FILE}: a line of it is damaged ({error!r}); remove it") from error

    @classmethod
    def _of(cls, log: RunLog) -> RunCurve:
        held_out, evaluations, rates = [], [], []
        seconds, counted, loss = 0.0, 0, None
        for row in log.read():
            place = {"step": row.get("iters", 0), "seconds": round(seconds, 6)}
            if "seconds" in row:
                seconds += row["seconds"]
                rates.append(row["seconds"] / max(1, row["iters"] - counted))
                counted, loss = row["iters"], row.get("loss")
            elif "held_out_loss" in row:
                held_out.append({**place, "loss": loss, **{key: row[key] for key in HELD_OUT}})
            elif "split" in row:
                scores = {key: row[key] for key in row if key not in ("iters", "split") and _is_number(row[key])}
                evaluations.append({**place, "split": row["split"], "scores": scores})
        return cls(held_out, evaluations, round(seconds, 6), median(rates) if rates else None)


def collect(plan: Plan, tuning: dict[str, Any] | None, command: str = "") -> dict[str, Any]:
    """Everything that the report is made of; unfinished runs come with what they have so far."""
    arms = [_arm_record(plan, arm) for arm in plan.arms]
    first, here = plan.arms[0].stages[-1].config, machine()
    model = lavis_config(first).model_cfg
    return {
        "format": FORMAT,
        "name": plan.name,
        "command": command,
        "date": datetime.date.today().isoformat(),
        "versions": versions(),
        "setting": {
            "data": plan.data,
            "images": _images(plan),
            "vision": model.get("vit_model"),
            "language": model.get("llm_model") or model.get("opt_model"),
            "batch_size": int(first.run.get("batch_size_train", 8)),
            "precision": str(first.run.get("precision") or "fp32"),
            "device": str(first.run.get("device", "cuda")),
            "threads": torch.get_num_threads(),
            "processor": here["gpu"] or here["processor"] or platform.machine(),
            "world_size": get_world_size(),
        },
        "seeds": list(plan.seeds),
        "tuning": tuning,
        "sweep": plan.sweep,
        "reference": plan.reference,
        "claims": [dict(claim) for claim in plan.claims] or None,
        "arms": arms,
    }


def write(plan: Plan, tuning: dict[str, Any] | None, command: str = "") -> Path:
    """Write `comparison.json` into the plan's folder."""
    path = plan.out / FILE
    path.write_text(json.dumps(collect(plan, tuning, command), indent=1) + "\n", "utf-8")
    return path


def _arm_record(plan: Plan, arm: Arm) -> dict[str, Any]:
    folders = {seed: run_folder(plan, arm, seed) for seed in plan.seeds}
    stages = []
    for number, stage in enumerate(arm.stages):
        curves = [RunCurve.read(stage_folder(arm, folder, number)) for folder in folders.values()]
        facts = next(filter(None, (read_facts(stage_folder(arm, folder, number)) for folder in folders.values())), {})
        rates = [curve.step_seconds for curve in curves if curve.step_seconds is not None]
        stages.append(
            {
                "title": stage.title,
                "steps": stage.steps,
                "seconds_per_step": round(median(rates), 6) if rates else None,
                **{key: facts.get(key) for key in ("trainable_parameters", "soft_prompt_tokens", "peak_memory_gib")},
            }
        )
    return {
        "name": arm.name,
        "title": arm.title,
        "overrides": list(arm.overrides),
        "group": arm.group,
        "stages": stages,
        "runs": [_run_record(arm, seed, folder) for seed, folder in folders.items()],
    }


def _run_record(arm: Arm, seed: int, folder: Path) -> dict[str, Any]:
    """Steps, images and seconds count over all stages."""
    curve: list[dict[str, Any]] = []
    evaluations: list[dict[str, Any]] = []
    steps, images, seconds, facts = 0, 0, 0.0, None
    for number, stage in enumerate(arm.stages):
        own = stage_folder(arm, folder, number)
        facts, found = read_facts(own), RunCurve.read(own)
        per_step = facts["images_per_step"] if facts else _images_per_step(stage.config.run)
        for points, into in ((found.held_out, curve), (found.evaluations, evaluations)):
            for point in points:
                place = {"stage": number + 1, "step": steps + point["step"]}
                place |= {"images": images + per_step * point["step"], "seconds": round(seconds + point["seconds"], 6)}
                into.append({**point, **place})
        steps, images, seconds = steps + stage.steps, images + per_step * stage.steps, seconds + found.seconds
        if facts is None:
            break
    final = None
    if facts is not None:
        last = {key: curve[-1][key] for key in HELD_OUT} if curve else dict.fromkeys(HELD_OUT)
        scores = {split: {k: v for k, v in of.items() if _is_number(v)} for split, of in facts["scores"].items()}
        final = {**last, "steps": steps, "seconds": round(seconds, 6), "scores": scores}
    return {"seed": seed, "finished": final is not None, "curve": curve, "evaluations": evaluations, "final": final}


def run_folder(plan: Plan, arm: Arm, seed: int) -> Path:
    return plan.out / arm.name / f"seed{seed}"


def _images(plan: Plan) -> dict[str, int] | None:
    """Rows of the annotation files by split, where they are given as files of lines."""
    counts = {}
    for section in plan.arms[0].stages[-1].config.datasets.values():
        for split, path in (section.get("annotations") or {}).items():
            file = Path(str(path))
            if file.suffix == ".jsonl" and file.is_file():
                counts[str(split)] = sum(1 for line in file.read_text("utf-8").splitlines() if line.strip())
    return counts or None


def _images_per_step(run: Any) -> int:
    return replace(RunSettings.from_config(run), world_size=get_world_size()).images_per_step


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
