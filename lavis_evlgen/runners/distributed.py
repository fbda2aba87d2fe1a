"""The processes of one run: how they join, what they exchange, and work that rank 0 does for all."""

import datetime
import logging
import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from lavis.common.dist_utils import get_rank, get_world_size, is_dist_avail_and_initialized

from lavis_evlgen.errors import EvlgenError
from lavis_evlgen.runners.attempt import agents_store, store_of_this_attempt
from lavis_evlgen.runners.meeting import set_meeting_point
from lavis_evlgen.runners.placement import Placement


def init_process_group(placement: Placement, backend: str, dist_url: str, timeout_s: float) -> None:
    """Join the other processes; raises EvlgenError when they do not come within ``timeout_s`` seconds."""
    set_meeting_point(placement, backend)
    timeout = datetime.timedelta(seconds=timeout_s)
    try:
        own_store = dist_url == "env://" and agents_store()
        dist.init_process_group(
            backend=backend,
            init_method=None if own_store else dist_url,
            store=store_of_this_attempt(placement, timeout) if own_store else None,
            world_size=placement.world_size,
            rank=placement.rank,
            timeout=timeout,
        )
    except (RuntimeError, ValueError, OSError) as error:
        where = dist_url if dist_url != "env://" else f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise EvlgenError(
            f"rank {placement.rank} of {placement.world_size} could not join the others at {where} ({backend}, "
            f"run.dist_timeout {timeout_s:g} s): {error}. Check that every process was started and that "
            "MASTER_ADDR/MASTER_PORT (torchrun sets them) name the machine of rank 0."
        ) from error


def on_rank_zero(work: Callable[[], Any]) -> Any:
    """Run ``work`` on rank 0 alone and give its result to every rank; an EvlgenError is raised on every rank.

    Files therefore need not be visible from other machines, and all ranks choose the same one.
    """
    if not is_dist_avail_and_initialized():
        return work()
    outcome: list[Any] = [None, None]
    if get_rank() == 0:
        try:
            outcome[0] = work()
        except EvlgenError as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def on_every_rank(work: Callable[[], None]) -> None:
    """Do it on each rank; an EvlgenError of one is raised on all."""
    own: EvlgenError | None = None
    try:
        work()
    except EvlgenError as error:
        own = error
    for failed in filter(None, gathered(own)):
        raise failed


def summed(values: list[float], device: torch.device) -> list[float]:
    """Sum of each value over all ranks, in double precision."""
    if not is_dist_avail_and_initialized():
        return values
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return tensor.tolist()


def gathered(value: Any) -> list[Any]:
    """``value`` of every rank, in order of rank."""
    if not is_dist_avail_and_initialized():
        return [value]
    values: list[Any] = [None] * get_world_size()
    dist.all_gather_object(values, value)
    return values


def usable_device(name: str, local_rank: int = 0, key: str = "run.device") -> torch.device:
    """The device of this process; without a GPU ``cuda`` becomes ``cpu``, with one log line that names `key`.

    The only GPU that a process sees is its own: ``srun --gpus-per-task=1`` hides those of the others.
    """
    device = torch.device(name)
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        logging.warning("%s is %s, but torch finds no GPU here: running on the CPU.", key, name)
        return torch.device("cpu")
    if device.index is not None:
        return device
    return torch.device("cuda", local_rank if torch.cuda.device_count() > 1 else 0)
