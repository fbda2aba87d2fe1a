"""`evlgen compare`: tune, train all arms by turns, one seed after the other, and record what was found."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from lavis.common.dist_utils import is_main_process
from omegaconf import DictConfig
from torch import nn

from lavis_evlgen.comparison.arm_run import ArmRun
from lavis_evlgen.comparison.plan import Plan
from lavis_evlgen.comparison.record import FILE, run_folder, write
from lavis_evlgen.comparison.tuning import tune, tuned
from lavis_evlgen.comparison.turns import train_by_turns
from lavis_evlgen.configuration.check import check_config
from lavis_evlgen.launch import choose_runner, fill_in
from lavis_evlgen.runners.distributed import init_process_group
from lavis_evlgen.runners.interrupt import StopSignal
from lavis_evlgen.runners.placement import Placement
from lavis_evlgen.runners.settings import RunSettings

TUNING = "tuning.json"


def compare(plan: Plan, command: str = "") -> Path:
    """Run a whole comparison, or go on with it; gives the path of comparison.json.

    Under torchrun every process takes part in every arm.

    Raises:
        ConfigError: an arm's configuration is wrong (all are checked before any training), or a folder holds a run of
            another one. DivergedError: an arm's loss is not finite any more.
    """
    placement = Placement.from_environment()
    prepare = _Prepare(placement)
    for arm in plan.arms:
        for stage in arm.stages:
            prepare(stage.config.copy())
    settings = RunSettings.from_config(plan.arms[0].stages[0].config.run)
    if settings.num_threads:
        torch.set_num_threads(settings.num_threads)
    if placement.world_size > 1 and not dist.is_initialized():
        init_process_group(placement, prepare.backend, settings.dist_url, settings.dist_timeout)
    plan.out.mkdir(parents=True, exist_ok=True)
    pool: dict[str, nn.Module] = {}
    stop = StopSignal()
    tuning = tune(plan, prepare, pool, stop)
    if is_main_process() and tuning is not None:
        (plan.out / TUNING).write_text(json.dumps(tuning, indent=1) + "\n", "utf-8")
    plan = replace(plan, arms=tuple(tuned(arm, tuning) for arm in plan.arms))
    for seed in plan.seeds:
        runs = [ArmRun(arm, seed, run_folder(plan, arm, seed), prepare, pool, stop) for arm in plan.arms]
        try:
            train_by_turns(runs, plan.turn, stop)
        finally:
            if is_main_process():
                write(plan, tuning, command)
        logging.info("seed %d is done", seed)
    return plan.out / FILE


@contextmanager
def progress_shown(rank: int) -> Iterator[None]:
    """Within it the log shows what the comparison itself says, and warnings of its runs, on the first process."""
    logging.basicConfig(format="%(asctime)s [%(levelname)s] %(message)s")
    logging.getLogger().setLevel(logging.INFO if rank == 0 else logging.WARNING)
    own = {"compare", "tuning", "turns"}

    def is_shown(record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO or record.module in own

    handlers = list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(is_shown)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_shown)


class _Prepare:
    """What the launcher does to a configuration before it builds anything."""

    def __init__(self, placement: Placement) -> None:
        self.placement = placement
        self.backend = "gloo"

    def __call__(self, config: DictConfig) -> DictConfig:
        RunSettings.from_config(config.run)
        device = fill_in(config.run, self.placement, evaluate=False)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        self.backend = config.run.dist_backend
        choose_runner(config.run, stock=False)
        check_config(config)
        return config


def describe(plan: Plan) -> str:
    """The arms and what they differ in, for people."""
    lines = []
    for arm in plan.arms:
        steps = " + ".join(str(stage.steps) for stage in arm.stages)
        lines += [f"{arm.name}: {arm.title}, {steps} steps", *(f"    {each}" for each in arm.overrides)]
    return "\n".join(lines)
