"""A store of its own for each attempt of a job that torchrun starts again.

torchrun's agent keeps one TCPStore through all restarts and lends it to the processes of every attempt. What a process
group notes there (where each rank listens, NCCL's ids) is still there in the next attempt, under the same keys: a rank
that is early reads the address of a process that is gone, is refused, and the restart fails. So the ranks of an attempt
agree on a prefix that none before had.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping
from datetime import timedelta

import torch.distributed as dist

from lavis_evlgen.runners.placement import Placement

PREFIX = "lavis_evlgen/meeting"
PAUSE = 0.02  # seconds between two looks


def agents_store(env: Mapping[str, str] = os.environ) -> bool:
    """Whether the store at MASTER_ADDR:MASTER_PORT is the torchrun agent's, and outlives this attempt."""
    return env.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def store_of_this_attempt(placement: Placement, timeout: timedelta) -> dist.Store:
    """The agent's store under a prefix that no other attempt has; every rank calls it.

    Raises:
        DistStoreError: the others did not come in time. DistNetworkError: the store cannot be reached.
    """
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(*address, is_master=False, wait_for_workers=False, timeout=timeout)
    meeting = dist.PrefixStore(PREFIX, store)
    if placement.rank == 0:
        name = _invite(meeting, placement.world_size, timeout)
    else:
        name = _come(meeting, placement.rank, timeout)
    return dist.PrefixStore(name, store)


def _come(store: dist.Store, rank: int, timeout: timedelta) -> str:
    """The attempt's name, by an answer to a question that only this process has asked."""
    question = uuid.uuid4().hex
    store.set(f"question/{rank}", question)
    store.wait([f"answer/{question}"], timeout)
    name = store.get(f"answer/{question}").decode()
    store.set(f"{name}/{rank}", "here")
    return name


def _invite(store: dist.Store, world_size: int, timeout: timedelta) -> str:
    """Answer every rank's question with a new name until all are here; nobody reads the answers to older questions."""
    name = uuid.uuid4().hex
    absent = set(range(1, world_size))
    answered: set[str] = set()
    end = time.monotonic() + timeout.total_seconds()
    while absent:
        for rank in [rank for rank in absent if store.check([f"question/{rank}"])]:
            question = store.get(f"question/{rank}").decode()
            if question not in answered:
                store.set(f"answer/{question}", name)
                answered.add(question)
        absent = {rank for rank in absent if not store.check([f"{name}/{rank}"])}
        if absent and time.monotonic() > end:
            ranks = ", ".join(map(str, sorted(absent)))
            raise dist.DistStoreError(f"rank {ranks} did not come in {timeout.total_seconds():g} s")
        time.sleep(PAUSE)
    return name
