"""Attempts of a job that share torchrun's store do not see what the ones before left in it."""

import os
import threading
import time
from datetime import timedelta

import pytest
import tiny_runs
import torch
import torch.distributed as dist

from lavis_evlgen.errors import EvlgenError
from lavis_evlgen.runners.attempt import store_of_this_attempt
from lavis_evlgen.runners.distributed import init_process_group
from lavis_evlgen.runners.placement import Placement


@pytest.fixture
def kept_store():
    """A store as torchrun's agent keeps it through all attempts."""
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


@pytest.fixture
def agent(kept_store, monkeypatch):
    """This process as one that torchrun's agent started. Not for tests that start others: they would inherit it."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(kept_store.port)}
    for name, value in {**address, "RANK": "0", "WORLD_SIZE": "2", "TORCHELASTIC_USE_AGENT_STORE": "True"}.items():
        monkeypatch.setenv(name, value)


def stores(world_size: int, late: int | None = None) -> list[dist.Store]:
    """The store of each rank of one attempt; rank ``late`` comes last."""
    found: dict[int, dist.Store] = {}

    def join(rank: int) -> None:
        time.sleep(0.3 if rank == late else 0)
        found[rank] = store_of_this_attempt(Placement(rank, rank, world_size), timedelta(seconds=120))

    threads = [threading.Thread(target=join, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[rank] for rank in range(world_size)]


@pytest.mark.parametrize("late", [0, 2, None])
def test_ranks_of_an_attempt_share_a_store_and_none_before_had_it(agent, late):
    for attempt in range(3):
        own = stores(3, late)
        assert not own[1].check(["where rank 0 listens"])
        own[0].set("where rank 0 listens", str(attempt))
        assert [each.get("where rank 0 listens") for each in own] == [str(attempt).encode()] * 3


def test_a_rank_that_does_not_come_is_named(agent):
    with pytest.raises(EvlgenError, match=r"rank 0 of 2 could not join .*rank 1 did not come in 0\.5 s"):
        init_process_group(Placement(0, 0, 2), "gloo", "env://", 0.5)


def join_and_sum(rank: int, port: int, sleep: float, log: str) -> None:
    tiny_runs.become_rank(rank, 2, port, log)
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    time.sleep(sleep)
    init_process_group(Placement(rank, rank, 2), "gloo", "env://", 60)
    total = torch.tensor([float(rank + 1)])
    dist.all_reduce(total)
    assert total.item() == 3
    os._exit(0)


def test_a_restarted_rank_that_is_early_does_not_look_for_one_that_is_gone(kept_store, forkserver, tmp_path):
    for sleep in (0.0, 2.0):  # in the second attempt rank 0 comes late
        args = [(rank, kept_store.port, sleep if rank == 0 else 0.0, str(tmp_path / "log")) for rank in range(2)]
        ranks = [forkserver.Process(target=join_and_sum, args=each) for each in args]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(300)
        logs = [(tmp_path / f"log.{rank}").read_text() for rank in range(2)]
        assert [process.exitcode for process in ranks] == [0, 0], logs
