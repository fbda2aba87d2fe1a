"""Workers whose end is noticed before it is known why they ended."""

import os
import signal
import subprocess
import time

import pytest
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from lavis_evlgen.errors import DataError
from lavis_evlgen.runners.data_workers import Batches, worker_deaths_held_back, worker_deaths_named


class Worker:
    """A killed process whose exit code the system takes a second to give, as on a busy machine."""

    pid = 7

    def __init__(self) -> None:
        self.known = time.monotonic() + 1

    @property
    def exitcode(self) -> int | None:
        return None if time.monotonic() < self.known else -9


class Loader:
    """Its own iterator; the connection to its worker is closed."""

    timeout, dataset = 0, ()

    def __init__(self, *workers: Worker) -> None:
        self._workers = workers

    def __iter__(self) -> "Loader":
        return self

    def __next__(self) -> None:
        raise EOFError("nothing more comes")

    def _shutdown_workers(self) -> None:
        self._workers = ()


def test_the_exit_code_is_waited_for():
    with pytest.raises(DataError, match=r"pictures: worker 0 \(pid 7\), was killed by SIGKILL"):
        next(Batches(Loader(Worker()), "pictures"))


def test_an_error_of_the_main_process_is_raised_at_once(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("there is nobody to wait for"))
    with pytest.raises(EOFError, match="nothing more comes"):
        next(Batches(Loader(), "pictures"))


def die(worker: int) -> None:
    if worker == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_before_torch_looks_after_it_is_named_at_once(monkeypatch):
    """Nothing else would notice until a batch is `run.data_timeout` late."""
    watch = signal_handling._set_worker_pids

    def late(*args: object) -> None:
        time.sleep(1)
        watch(*args)

    monkeypatch.setattr(signal_handling, "_set_worker_pids", late)
    loader = DataLoader(range(8), num_workers=2, timeout=600, worker_init_fn=die, multiprocessing_context="fork")
    with pytest.raises(DataError, match=r"pictures: worker 1 \(pid \d+\), was killed by SIGKILL. Usually"):
        Batches(loader, "pictures")
    assert not [batches for batches in Batches.live if batches._name == "pictures"]


def test_a_death_while_workers_are_started_is_explained():
    with (
        pytest.raises(
            DataError, match=r"DataLoader worker \(pid 7\) is killed by signal: Killed.* lower run.num_workers"
        ),
        worker_deaths_named(),
    ):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
    with pytest.raises(RuntimeError, match="^another$"), worker_deaths_named():
        raise RuntimeError("another")


def test_a_death_waits_until_a_block_is_over():
    def handler(number: int, frame: object) -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    before, done = signal.signal(signal.SIGCHLD, handler), []
    try:
        with pytest.raises(RuntimeError, match="pid 7"), worker_deaths_held_back():
            subprocess.run(["true"], check=True)
            done.append("all of it")
        assert done == ["all of it"] and signal.getsignal(signal.SIGCHLD) is handler
        with worker_deaths_held_back():
            pass
        with pytest.raises(OSError, match="full"), worker_deaths_held_back():
            raise OSError("full")
        assert signal.getsignal(signal.SIGCHLD) is handler
    finally:
        signal.signal(signal.SIGCHLD, before)
