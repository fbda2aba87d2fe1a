"""One run from a yaml file: what `train.py` and `evaluate.py` share."""

import argparse
import logging
import os
import random
import sys
import tempfile
import time
import traceback
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
import torch.distributed as dist
from lavis.common.config import Config
from lavis.common.dist_utils import setup_for_distributed
from lavis.common.registry import registry
from lavis.tasks import setup_task
from omegaconf import DictConfig, OmegaConf

import lavis_evlgen  # noqa: F401  registers models, builders, tasks and the runner
from lavis_evlgen.configuration.check import check_config
from lavis_evlgen.configuration.read import SECTIONS, read_config
from lavis_evlgen.errors import ConfigError, DataError, EvlgenError
from lavis_evlgen.launch_options import add_launch_options
from lavis_evlgen.runners.activity import ACTIVITY
from lavis_evlgen.runners.data_workers import worker_deaths_named
from lavis_evlgen.runners.distributed import init_process_group, on_rank_zero, usable_device
from lavis_evlgen.runners.interrupt import StopSignal, end_with_agent
from lavis_evlgen.runners.out_of_memory import OutOfMemory, memory_errors_explained
from lavis_evlgen.runners.placement import Placement
from lavis_evlgen.runners.settings import RunSettings
from lavis_evlgen.runners.sharding import built
from lavis_evlgen.runners.watchdog import watched

LAVIS_RUNNERS = ("runner_iter", "runner_base")


def parse_args(argv: list[str] | None, evaluate: bool) -> argparse.Namespace:
    verb = "evaluate" if evaluate else "train"
    parser = argparse.ArgumentParser(prog=f"lavis_evlgen.{verb}", description=f"{verb} a model as a yaml file says")
    add_launch_options(parser)
    return parser.parse_args(argv)


def fill_in(run: DictConfig, placement: Placement, evaluate: bool) -> torch.device:
    """Put in what LAVIS's code reads without a default, and where this process stands; returns its device."""
    try:
        device = usable_device(str(run.get("device") or "cuda"), placement.local_rank)
    except RuntimeError as error:
        raise ConfigError(f"run.device: {run.device!r}: torch knows no such device; use cpu or cuda") from error
    facts: dict[str, Any] = {
        "device": device.type,
        "distributed": placement.world_size > 1,
        "world_size": placement.world_size,
        "rank": placement.rank,
        "gpu": device.index or 0,
        "dist_backend": "nccl" if device.type == "cuda" else "gloo",
        "evaluate": evaluate or bool(run.get("evaluate", False)),
    }
    for key, value in facts.items():
        run[key] = value
    return device


def choose_runner(run: DictConfig, stock: bool) -> str:
    """LAVIS's runners become runner_evlgen unless ``stock``."""
    named = run.get("runner") or "runner_base"
    if named in LAVIS_RUNNERS and not stock:
        if run.get("runner"):
            logging.info("run.runner %s: using runner_evlgen in its place (--stock-runner keeps LAVIS's).", named)
        named = "runner_evlgen"
    run["runner"] = named
    return named


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def lavis_config(config: DictConfig) -> Config:
    """LAVIS's Config of an already merged configuration; it reads a file, so it gets one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.yaml")
        OmegaConf.save(OmegaConf.create({name: config[name] for name in SECTIONS}), path)
        return Config(argparse.Namespace(cfg_path=str(path), options=[]))


def run(config: DictConfig, stock: bool = False) -> dict[str, Any]:
    """Build task, data, model and runner, and train or evaluate; the metrics by split on rank 0."""
    cfg = lavis_config(config)
    cfg.pretty_print()
    with memory_errors_explained(cfg.config), worker_deaths_named():
        runner = build_runner(cfg)
        if stock and cfg.run_cfg.evaluate:
            return runner.evaluate(skip_reload=True) or {}
        return runner.train() or {}


def build_runner(cfg: Config) -> Any:
    """Task, data, model and runner of a configuration, from its seed."""
    seed = int(cfg.run_cfg.get("seed", 42))
    # the same start on every rank, then different dropout
    seed_everything(seed)
    task = setup_task(cfg)
    ACTIVITY.enter("reading the data sets")
    datasets = task.build_datasets(cfg)
    ACTIVITY.enter("building the model")
    model = built(lambda: task.build_model(cfg), RunSettings.from_config(cfg.run_cfg))
    seed_everything(seed + cfg.run_cfg.rank)
    job_id = on_rank_zero(lambda: _free_job_id(Path(cfg.run_cfg.get("output_dir", "output"))))
    for name in ("output_dir", "result_dir"):  # LAVIS's runners cannot set them twice in a process
        registry.mapping["paths"].pop(name, None)
    runner_cls = registry.get_runner_class(cfg.run_cfg.runner)
    return runner_cls(cfg=cfg, task=task, model=model, datasets=datasets, job_id=job_id)


def _free_job_id(folder: Path) -> str:
    """Date and time to the second; the next free second when another run began in this one."""
    now = time.time()
    while True:
        job_id = time.strftime("%Y%m%d%H%M%S", time.localtime(now))
        if not os.path.exists(folder / job_id):
            return job_id
        now += 1


def start(argv: list[str] | None, evaluate: bool) -> dict[str, Any]:
    """Parse, join the other processes, check and run; raises EvlgenError for what a user can mend."""
    args = parse_args(argv, evaluate)
    placement = Placement.from_environment()
    level = logging.INFO if placement.rank == 0 else logging.WARNING
    logging.basicConfig(format="%(asctime)s [%(levelname)s] %(message)s")
    logging.getLogger().setLevel(level)
    config = read_config(args.cfg_path, args.options)
    settings = RunSettings.from_config(config.run)
    if settings.num_threads:
        torch.set_num_threads(settings.num_threads)
    device = fill_in(config.run, placement, evaluate)
    stock = args.stock_runner
    choose_runner(config.run, stock)
    check_config(config)
    if stock and settings.shard != "none":
        raise ConfigError("run.shard: LAVIS's runners cannot train sharded models; leave out --stock-runner")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if placement.world_size > 1 or stock:  # LAVIS's runners call dist.barrier() in any case
        backend = config.run.dist_backend
        init_process_group(placement, backend, settings.dist_url, settings.dist_timeout)
    if stock:
        setup_for_distributed(placement.rank == 0)
        if device.type == "cpu":
            config.run.device = "cpu:0"  # LAVIS's runner has no model when the device is plain "cpu"
    with StopSignal(at_once=True), nullcontext() if stock else watched(placement, settings):
        end_with_agent()
        metrics = run(config, stock)
    if dist.is_initialized():  # not after an error: the other ranks may never answer
        dist.barrier()  # all leave together: none closes its connections while another one still uses them
        dist.destroy_process_group()
    return metrics


def main(argv: list[str] | None = None, evaluate: bool = False) -> int:
    """Entry point of the launchers; the exit code is 2 for errors that a user can mend, said in one line."""
    try:
        start(argv, evaluate)
    except EvlgenError as error:
        _report(error, Placement.from_environment().rank)
        return 2
    return 0


def run_and_leave(argv: list[str] | None = None, evaluate: bool = False) -> NoReturn:
    """:func:`main` as a whole process.

    One of several ranks leaves without the interpreter's own clean-up once everything is written and said: threads of
    gloo, NCCL or a lost store may still run, and abort the process when they meet an interpreter that is gone
    ("terminate called without an active exception").
    """
    code: int | str | None
    try:
        code = main(argv, evaluate)
    except SystemExit as left:
        code = left.code
    except Exception:
        traceback.print_exc()
        code = 1
    if Placement.from_environment().world_size > 1:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))
    sys.exit(code)


def _report(error: EvlgenError, rank: int) -> None:
    """Say the error once; one about data may have met another rank than the first, and come from a worker."""
    message = str(error)
    if "Original Traceback" in message:
        message = message.strip().splitlines()[-1].split(": ", 1)[-1]
    if rank == 0:
        print(f"error: {message}", file=sys.stderr)
    elif isinstance(error, DataError | OutOfMemory):
        print(f"rank {rank}: error: {message}", file=sys.stderr)
