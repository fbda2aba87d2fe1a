"""Runs of the tiny model: their configuration, their results, and one as its own process."""

import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny_lavis  # noqa: F401
import torch
from omegaconf import OmegaConf
from torch.distributed.elastic.utils.distributed import get_free_port

from lavis_evlgen import launch

RUN = {
    "task": "tiny_task",
    "max_iters": 12,
    "iters_per_inner_epoch": 4,
    "batch_size_train": 4,
    "batch_size_eval": 5,
    "init_lr": 0.01,
    "warmup_lr": 0.001,
    "warmup_steps": 3,
    "log_freq": 1,
    "device": "cpu",
    "num_threads": 1,
    "auto_resume": True,
    "dist_timeout": 60,
}


def write_config(folder: Path, out: str = "out", model: Any = None, data: Any = None, **run: Any) -> list[str]:
    """Write a configuration whose output goes to folder/out; the launcher arguments for it."""
    content = {
        "model": {"arch": "tiny", "model_type": "default", **(model or {})},
        "datasets": data or {"tiny_data": {"train": 40}},
        "run": {**RUN, "output_dir": str(folder / out), **run},
    }
    path = folder / f"{out}.yaml"
    OmegaConf.save(OmegaConf.create(content), path)
    return ["--cfg-path", str(path)]


def rows(folder: Path, key: str = "loss") -> list[dict[str, Any]]:
    """Records of log.jsonl that have ``key``."""
    return [r for r in map(json.loads, (folder / "log.jsonl").read_text().splitlines()) if key in r]


def losses(folder: Path) -> list[tuple[int, float, float]]:
    return [(row["iters"], row["loss"], row["lr"]) for row in rows(folder)]


def trained(folder: Path, name: str = "model.pth") -> dict[str, torch.Tensor]:
    return torch.load(folder / name, weights_only=True)["model"]


def start_ranks(context: Any, target: Callable[..., None], world_size: int, *args: Any) -> list[Any]:
    """Start ``target(rank, world_size, port, *args)`` in one process a rank; ``context``: of multiprocessing."""
    port = get_free_port()
    processes = [context.Process(target=target, args=(rank, world_size, port, *args)) for rank in range(world_size)]
    for process in processes:
        process.start()
    return processes


def launch_rank(rank: int, world_size: int, port: int, argv: list[str], log: str) -> None:
    become_rank(rank, world_size, port, log)
    sys.exit(launch.main(argv))


def become_rank(rank: int, world_size: int, port: int, log: str) -> None:
    """Make this process one of several, as torchrun does, with its output in a file."""
    placement = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size}
    take_environment({**placement, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}, f"{log}.{rank}")


def take_environment(env: dict[str, Any], log: str) -> None:
    """Give this process the variables of a launcher, in place of any others, and its output to a file."""
    multiprocessing.set_start_method("fork", force=True)  # the way a launched process starts data workers
    for name in [name for name in os.environ if name.startswith("TORCHELASTIC")]:
        del os.environ[name]
    os.environ.update({name: str(value) for name, value in env.items()})
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    torch.set_num_threads(1)


def launch_with(env: dict[str, Any], argv: list[str], log: str) -> None:
    """The launcher in the environment of another launcher."""
    take_environment(env, log)
    sys.exit(launch.main(argv))
