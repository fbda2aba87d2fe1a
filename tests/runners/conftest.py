"""Configurations of the tiny model, and several processes without importing LAVIS again in each."""

import functools
import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import tiny_runs

from lavis_evlgen import launch

torch.set_num_threads(1)


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., list[str]]:
    """Writes a configuration; the launcher arguments for it. ``out`` names the output folder below tmp_path."""
    return functools.partial(tiny_runs.write_config, tmp_path)


@pytest.fixture
def train() -> Callable[..., dict[str, Any]]:
    """Trains in this process; EvlgenError is raised as it is."""
    return lambda argv, evaluate=False: launch.start(argv, evaluate)


@pytest.fixture(scope="session")
def forkserver() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lavis_evlgen.launch"])  # the import that takes seconds
    return context


@pytest.fixture
def start_processes(forkserver: Any, tmp_path: Path) -> Callable[..., list[Any]]:
    """Starts one launcher a rank (``target``: where more than the tiny model is registered); output in log.RANK."""

    def start(argv: list[str], world_size: int = 1, target: Any = tiny_runs.launch_rank) -> list[Any]:
        return tiny_runs.start_ranks(forkserver, target, world_size, argv, str(tmp_path / "log"))

    return start


@pytest.fixture
def run_processes(start_processes: Callable[..., list[Any]], tmp_path: Path) -> Callable[..., list[int]]:
    """Runs the launcher on several ranks to the end; their exit codes."""

    def run(argv: list[str], world_size: int = 2) -> list[int]:
        processes = start_processes(argv, world_size)
        for process in processes:
            process.join(300)
        return [process.exitcode for process in processes]

    return run
