"""Workers whose end is noticed before it is known why they ended."""

import time

import pytest

from lavis_evlgen.errors import DataError
from lavis_evlgen.runners.data_workers import Batches


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
